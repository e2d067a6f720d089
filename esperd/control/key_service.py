"""The key methods of AdminService: which keys there are, read them again, refuse one; and the streams of refused keys.

Event loop only. Knows nothing of files; the keeper of the keys does.
"""

from collections.abc import Callable, Iterable

from esper.leyline.v1 import admin_service_pb2

from esperd.control.call import Call, Route, Shape
from esperd.control.connections import Connections, OpenStream
from esperd.control.entrance import parse
from esperd.control.key_port import KeyPort
from esperd.control.shown import timestamp, wire
from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key

_SERVICE = "/esper.leyline.v1.AdminService/"
_REMOVED = "no longer in the key ring"


class KeyService:
    """Serves the keys in force."""

    def __init__(self, *, keys: KeyPort, connections: Connections, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self._keys = keys
        self._connections = connections
        self._clock = clock

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = admin_service_pb2
        yield Route(_SERVICE + "ReloadKeys", Shape.UNARY, pb.ReloadKeysRequest, self.reload_keys)
        yield Route(_SERVICE + "ListKeys", Shape.UNARY, pb.ListKeysRequest, self.list_keys)
        yield Route(_SERVICE + "RevokeKey", Shape.UNARY, pb.RevokeKeyRequest, self.revoke_key)

    async def reload_keys(self, _: Call, data: bytes) -> admin_service_pb2.ReloadKeysResponse:
        """Read the ring again."""
        parse(admin_service_pb2.AdminPayload, data)
        done = self._keys.reload()
        return admin_service_pb2.ReloadKeysResponse(
            added_key_ids=done.added,
            removed_key_ids=done.removed,
            changed_key_ids=done.changed,
            num_streams_ended=done.num_streams_ended,
        )

    async def list_keys(self, _: Call, data: bytes) -> admin_service_pb2.ListKeysResponse:
        """Every key with its state and use."""
        parse(admin_service_pb2.AdminPayload, data)
        return admin_service_pb2.ListKeysResponse(keys=[self._info(key) for key in self._keys.keys()])  # noqa: SIM118

    async def revoke_key(self, _: Call, data: bytes) -> admin_service_pb2.RevokeKeyResponse:
        """Refuse a key for good."""
        asked = parse(admin_service_pb2.RevokeKeyPayload, data)
        done = await self._keys.revoke(asked.key_id, asked.reason)
        return admin_service_pb2.RevokeKeyResponse(key=self._info(done.key), num_streams_ended=done.num_streams_ended)

    def end_refused_streams(self) -> int:
        """End every stream whose key is no longer accepted: revoked, expired, or gone; returns how many."""
        now_unix_s = self._clock()

        def refusal_of(stream: OpenStream) -> EsperdError | None:
            if not stream.key_id:
                return None
            key = self._keys.find(stream.key_id)
            if key is not None and key.is_accepted(now_unix_s):
                return None
            return EsperdError("KEY_NOT_ACTIVE", state=_REMOVED if key is None else key.state(now_unix_s))

        return self._connections.end_streams(refusal_of)

    def _info(self, key: Key) -> admin_service_pb2.KeyInfo:
        use = self._connections.use_of(key.key_id)
        info = admin_service_pb2.KeyInfo(
            key_id=key.key_id,
            principal=key.principal,
            permissions=[wire(permission) for permission in sorted(key.permissions)],
            state=key.state(self._clock()),
            num_requests=use.num_requests,
            num_streams=sum(stream.key_id == key.key_id for stream in self._connections.streams),
        )
        if key.not_before_unix_s is not None:
            info.not_before.CopyFrom(timestamp(key.not_before_unix_s))
        if key.not_after_unix_s is not None:
            info.not_after.CopyFrom(timestamp(key.not_after_unix_s))
        if use.num_requests:
            info.last_used_time.CopyFrom(timestamp(use.last_used_unix_s))
        return info
