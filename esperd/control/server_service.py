"""ServerService: who this daemon is, and how it is.

Event loop only. What a signer needs first comes from here, unsigned.
"""

from collections.abc import Callable, Iterable, Mapping

from esper.leyline.v1 import server_service_pb2

from esperd.config.settings import ControlSettings
from esperd.control.access import method_accesses
from esperd.control.batches import MAX_COMMANDS
from esperd.control.call import Call, Route, Send, Shape
from esperd.control.condition import Condition, ConditionBoard
from esperd.control.identity import ServerIdentity
from esperd.control.key_port import KeyPort
from esperd.control.shown import timestamp, wire
from esperd.control.validation import parse
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import FRESHNESS_S, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES

_SERVICE = "/esper.leyline.v1.ServerService/"
CAPABILITIES = (
    "command_stream",
    "decision_stream",
    "emergency_lane",
    "state_watch",
    "command_watch_latest",
    "telemetry_stream",
    "telemetry_query",
    "audit_log",
    "start_run",
    "signed_requests_v1",
    "health_list",
    "reflection",
)


class ServerService:
    """Serves the daemon's own facts."""

    def __init__(
        self,
        *,
        identity: ServerIdentity,
        settings: Callable[[], ControlSettings],
        conditions: ConditionBoard,
        keys: KeyPort,
        policies: Mapping[str, MethodPolicy],
        clock: Callable[[], float],
    ) -> None:
        """`settings` gives those in force; `policies` are those of every method; `clock` gives Unix seconds."""
        self._settings = settings
        self._identity = identity
        self._conditions = conditions
        self._keys = keys
        self._policies = policies
        self._clock = clock

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = server_service_pb2
        yield Route(_SERVICE + "GetServerInfo", Shape.UNARY, pb.GetServerInfoRequest, self.get_server_info)
        yield Route(_SERVICE + "CheckAccess", Shape.UNARY, pb.CheckAccessRequest, self.check_access)
        yield Route(_SERVICE + "WatchServerState", Shape.STREAM, pb.WatchServerStateRequest, self.watch_server_state)

    async def get_server_info(
        self, _: Call, __: server_service_pb2.GetServerInfoRequest
    ) -> server_service_pb2.GetServerInfoResponse:
        """Id, epoch, clock, versions, capabilities and limits."""
        return server_service_pb2.GetServerInfoResponse(
            server_id=self._identity.server_id,
            epoch=self._identity.epoch,
            server_time=timestamp(self._clock()),
            version=self._identity.version,
            capabilities=CAPABILITIES,
            limits=_limits(self._settings()),
            run_id=self._identity.run_id,
            torch_version=self._identity.torch_version,
        )

    async def check_access(self, call: Call, data: bytes) -> server_service_pb2.CheckAccessResponse:
        """Who the signing key is, and what it may do."""
        asked = parse(server_service_pb2.CheckAccessPayload, data)
        key = self._keys.find(call.signer.key_id)
        assert key is not None  # its signature has just been verified
        response = server_service_pb2.CheckAccessResponse(
            principal=key.principal,
            key_id=key.key_id,
            key_state=key.state(self._clock()),
            permissions=[wire(permission) for permission in sorted(key.permissions)],
            methods=method_accesses(key, asked.methods, self._policies, is_unix=call.is_unix),
        )
        if key.not_after_unix_s is not None:
            response.not_after.CopyFrom(timestamp(key.not_after_unix_s))
        return response

    async def watch_server_state(self, _: Call, __: server_service_pb2.WatchServerStateRequest, send: Send) -> None:
        """The state now, and whenever it changes, until the daemon drains."""
        board = self._conditions
        seen = board.now
        await send(_message(seen))
        while not board.has_ended:
            seen = await board.changed(seen)
            await send(_message(seen))


def _limits(settings: ControlSettings) -> dict[str, int]:
    return {
        "max_header_bytes": MAX_HEADER_BYTES,
        "max_payload_bytes": MAX_PAYLOAD_BYTES,
        "max_batch_commands": MAX_COMMANDS,
        "max_streams": settings.max_streams,
        "max_reads_per_s": int(settings.max_reads_per_s),
        "max_commands_per_s": int(settings.max_commands_per_s),
        "max_decisions_per_s": int(settings.max_decisions_per_s),
        "max_emergencies_per_s": int(settings.max_emergencies_per_s),
        "command_box_capacity": settings.command_box_capacity,
        "freshness_window_s": int(FRESHNESS_S),
    }


def _message(condition: Condition) -> bytes:
    state = server_service_pb2.SERVER_STATE_STARTING
    if condition.is_draining:
        state = server_service_pb2.SERVER_STATE_DRAINING
    elif condition.is_serving:
        state = server_service_pb2.SERVER_STATE_SERVING
    message = server_service_pb2.WatchServerStateResponse(state=state, conditions=dict(condition.parts))
    return message.SerializeToString()
