"""AdminService but for the keys: configuration, reload, log level, drain, connections, diagnostics.

Event loop only. Every method comes over a Unix socket and signed; the entrance and the gate have seen to that. What is
asked of the process goes through the supervisor's port.
"""

from collections.abc import Callable, Iterable, Sequence

import structlog
from esper.leyline.v1 import admin_service_pb2 as pb

from esperd.config.fields import describe_settings
from esperd.config.reloadable import RELOADABLE
from esperd.control.call import Call, Route, Shape
from esperd.control.connections import Connections, OpenStream
from esperd.control.noting import note
from esperd.control.shown import timestamp
from esperd.control.supervisor import SettingChange, Supervisor
from esperd.control.validation import parse

_SERVICE = "/esper.leyline.v1.AdminService/"


class AdminService:
    """Serves the daemon's own administration."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        connections: Connections,
        clock: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._supervisor = supervisor
        self._connections = connections
        self._clock = clock
        self._log = log

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        yield Route(_SERVICE + "ReloadConfig", Shape.UNARY, pb.ReloadConfigRequest, self.reload_config)
        yield Route(_SERVICE + "GetConfig", Shape.UNARY, pb.GetConfigRequest, self.get_config)
        yield Route(_SERVICE + "SetLogLevel", Shape.UNARY, pb.SetLogLevelRequest, self.set_log_level)
        yield Route(_SERVICE + "Drain", Shape.UNARY, pb.DrainRequest, self.drain)
        yield Route(_SERVICE + "ListConnections", Shape.UNARY, pb.ListConnectionsRequest, self.list_connections)
        yield Route(_SERVICE + "DumpDiagnostics", Shape.UNARY, pb.DumpDiagnosticsRequest, self.dump_diagnostics)

    async def reload_config(self, call: Call, data: bytes) -> pb.ReloadConfigResponse:
        """Apply what the files say now, all of it or nothing."""
        self._note(call, data)
        reloaded = self._supervisor.reload()
        return pb.ReloadConfigResponse(
            applied=_changes(reloaded.applied),
            restart_required=_changes(reloaded.restart_required),
            rejected=reloaded.rejected,
        )

    async def get_config(self, call: Call, data: bytes) -> pb.GetConfigResponse:
        """Every setting in force, with its origin."""
        self._note(call, data)
        configuration = self._supervisor.configuration
        settings = [
            pb.Setting(
                name=one.dotted_name,
                value=configuration.shown(one.dotted_name),
                origin=configuration.origins[one.dotted_name],
                description=one.help,
                reloadable=one.dotted_name in RELOADABLE,
            )
            for one in describe_settings()
        ]
        return pb.GetConfigResponse(path=str(configuration.path), settings=settings)

    async def set_log_level(self, call: Call, data: bytes) -> pb.SetLogLevelResponse:
        """Change the level of the log."""
        asked = parse(pb.SetLogLevelPayload, data)
        note(self._log, call, asked.reason)
        return pb.SetLogLevelResponse(previous_level=self._supervisor.set_log_level(asked.level))

    async def drain(self, call: Call, data: bytes) -> pb.DrainResponse:
        """Leave in good order once this is answered."""
        self._note(call, data)
        self._supervisor.drain()
        return pb.DrainResponse(drain_s=self._supervisor.configuration.settings.control.drain_s)

    async def list_connections(self, call: Call, data: bytes) -> pb.ListConnectionsResponse:
        """Open streams and peers."""
        self._note(call, data)
        peers = (
            pb.PeerInfo(peer=peer.name, num_calls=peer.num_calls, last_call_time=timestamp(peer.last_call_unix_s))
            for peer in self._connections.peers
        )
        return pb.ListConnectionsResponse(streams=map(_stream, self._connections.streams), peers=peers)

    async def dump_diagnostics(self, call: Call, data: bytes) -> pb.DumpDiagnosticsResponse:
        """What a maintainer needs to see."""
        self._note(call, data)
        sections = await self._supervisor.diagnose()
        return pb.DumpDiagnosticsResponse(
            time=timestamp(self._clock()),
            sections=[pb.DiagnosticSection(title=one.title, text=one.text) for one in sections],
        )

    def _note(self, call: Call, data: bytes) -> None:
        note(self._log, call, parse(pb.AdminPayload, data).reason)


def _changes(changes: Sequence[SettingChange]) -> list[pb.SettingChange]:
    return [pb.SettingChange(name=one.name, old_value=one.old_value, new_value=one.new_value) for one in changes]


def _stream(stream: OpenStream) -> pb.StreamInfo:
    return pb.StreamInfo(
        stream_number=stream.number,
        method=stream.method,
        peer=stream.peer,
        principal=stream.principal,
        key_id=stream.key_id,
        open_time=timestamp(stream.opened_unix_s),
        num_sent=stream.num_sent,
        num_received=stream.num_received,
    )
