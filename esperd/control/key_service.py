"""The key methods of AdminService: which keys there are, read them again, refuse one; and the streams of refused keys.

Event loop only. Knows nothing of files; the keeper of the keys does.
"""

from collections.abc import Callable, Iterable

import structlog
from esper.leyline.v1 import admin_service_pb2 as pb

from esperd.control.call import Call, Route, Shape
from esperd.control.connections import Connections, OpenStream
from esperd.control.key_port import KeyPort
from esperd.control.noting import note
from esperd.control.shown import key_info, timestamp
from esperd.control.validation import parse
from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyState

_SERVICE = "/esper.leyline.v1.AdminService/"
LOOK_S = 1.0
"""How often keys are looked at."""
WARN_AGAIN_S = 3600.0
"""After a warning about a key there is no other for so long."""
WARN_BEFORE_END_S = 7 * 86400.0
"""How long before its end an active key is warned of."""
_REMOVED = "no longer in the key ring"


class KeyService:
    """Serves the keys in force."""

    def __init__(
        self,
        *,
        keys: KeyPort,
        connections: Connections,
        clock: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._keys = keys
        self._connections = connections
        self._clock = clock
        self._log = log
        self._warned_unix_s: dict[str, float] = {}
        """When the log was last warned of which key."""
        self._looked_unix_s = 0.0

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        yield Route(_SERVICE + "ReloadKeys", Shape.UNARY, pb.ReloadKeysRequest, self.reload_keys)
        yield Route(_SERVICE + "ListKeys", Shape.UNARY, pb.ListKeysRequest, self.list_keys)
        yield Route(_SERVICE + "RevokeKey", Shape.UNARY, pb.RevokeKeyRequest, self.revoke_key)

    async def reload_keys(self, call: Call, data: bytes) -> pb.ReloadKeysResponse:
        """Read the ring again."""
        note(self._log, call, parse(pb.AdminPayload, data).reason)
        done = self._keys.reload()
        return pb.ReloadKeysResponse(
            added_key_ids=done.added,
            removed_key_ids=done.removed,
            changed_key_ids=done.changed,
            num_streams_ended=done.num_streams_ended,
        )

    async def list_keys(self, call: Call, data: bytes) -> pb.ListKeysResponse:
        """Every key with its state and use."""
        note(self._log, call, parse(pb.AdminPayload, data).reason)
        return pb.ListKeysResponse(keys=[self._info(key) for key in self._keys.keys])

    async def revoke_key(self, call: Call, data: bytes) -> pb.RevokeKeyResponse:
        """Refuse a key for good."""
        asked = parse(pb.RevokeKeyPayload, data)
        note(self._log, call, asked.reason)
        done = await self._keys.revoke(asked.key_id, asked.reason)
        return pb.RevokeKeyResponse(key=self._info(done.key), num_streams_ended=done.num_streams_ended)

    def tick(self) -> None:
        """What happens to keys by time alone: they expire, also under open streams, or are used until late."""
        self.end_refused_streams()
        now_unix_s = self._clock()
        if abs(now_unix_s - self._looked_unix_s) >= LOOK_S:
            self._looked_unix_s = now_unix_s
            for key in self._keys.keys:
                self._look_at(key, now_unix_s)

    @property
    def is_any_accepted(self) -> bool:
        """Whether there is a key that is accepted now."""
        now_unix_s = self._clock()
        return any(key.is_accepted(now_unix_s) for key in self._keys.keys)

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

    def _look_at(self, key: Key, now_unix_s: float) -> None:
        """Warn of a key that somebody should exchange."""
        state, warned_unix_s = key.state(now_unix_s), self._warned_unix_s.get(key.key_id, 0.0)
        ends_in_s = None if key.not_after_unix_s is None else key.not_after_unix_s - now_unix_s
        if now_unix_s - warned_unix_s < WARN_AGAIN_S:
            return
        if state is KeyState.RETIRING and self._connections.use_of(key.key_id).last_used_unix_s > warned_unix_s:
            event = "a retiring key is still used"
        elif state is KeyState.ACTIVE and ends_in_s is not None and ends_in_s < WARN_BEFORE_END_S:
            event = "a key expires soon; esperctl keys rotate makes its successor"
        else:
            return
        self._warned_unix_s[key.key_id] = now_unix_s
        self._log.warning(
            event, key_id=key.key_id, principal=key.principal, ends_in_s=None if ends_in_s is None else round(ends_in_s)
        )

    def _info(self, key: Key) -> pb.KeyInfo:
        info = key_info(key, self._clock())
        use = self._connections.use_of(key.key_id)
        info.num_requests = use.num_requests
        info.num_streams = sum(stream.key_id == key.key_id for stream in self._connections.streams)
        if use.num_requests:
            info.last_used_time.CopyFrom(timestamp(use.last_used_unix_s))
        return info
