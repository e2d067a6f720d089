"""The gRPC server of the daemon: binds its addresses, serves, and leaves in good order.

Event loop only. It reaches the trainer through the bridge's port alone, so it could live in a process of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc

from esperd.config.settings import Settings
from esperd.control import addresses, certificate_watch
from esperd.control.audit import PERIOD_S
from esperd.control.certificate_watch import CertificateWatch
from esperd.control.chores import Chore, Chores
from esperd.control.earlier_starts import had_policy
from esperd.control.parts import COMMAND_STREAM, ControlParts, Surroundings
from esperd.control.reflection import SERVICES as REFLECTION_SERVICES
from esperd.control.tls import Certificates, TlsFiles, TlsPair
from esperd.control.transport import ConnectionLimits, server_options
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import TrainerPhase

HOUSEKEEPING_S = 0.1
FLUSH_S = 1.0
"""At a drain, how long the last outcomes may take to become durable before streams end."""
_OPEN_ENDED = (COMMAND_STREAM, *(f"/{name}/ServerReflectionInfo" for name in REFLECTION_SERVICES))
"""Streams that last for as long as their caller likes and have no last message of their own."""
_BROKEN = (TrainerPhase.FAILED, TrainerPhase.HALTED)


class ControlServer:
    """Leyline's front: servicers, event pump, pacing and lease in one event loop."""

    def __init__(self, around: Surroundings, settings: Settings) -> None:
        """Build everything; nothing is bound before `start`. Raises EsperdError TLS_INVALID."""
        self._around = around
        self.parts = ControlParts(around, settings)
        self._certificates = self._read_certificates()
        self._server: Any = None
        self._bound: list[str] = []
        self._chores = Chores(self.parts.meter, around.log)

    async def start(self) -> list[str]:
        """Bind and serve; returns the bound addresses (a port of 0 is replaced by the one that was given).

        Raises:
            EsperdError: ADDRESS_UNUSABLE; nothing stays bound.
        """
        self.parts.commands.reopen(self._around.unsettled or ())
        continues = self._around.unsettled is not None
        lost_policy = continues and await had_policy(
            self._around.journal, self._around.port.snapshot().run.started_unix_s
        )
        limits = ConnectionLimits(max_connections=self.parts.settings.control.max_connections)
        self._server = grpc.aio.server(options=server_options(limits))
        self._server.add_generic_rpc_handlers((self.parts.entrance,))
        try:
            for address in self._addresses():
                self._bound.append(self._bind(address))
            await self._server.start()
        except BaseException:
            await self._server.stop(None)
            self._remove_sockets()
            raise
        self._around.port.attach(asyncio.get_running_loop(), self.parts.pump.on_events)
        self.parts.conditions.set_part("journal", True)
        if lost_policy:
            self.parts.sessions.note_restart()
        self._look_around()
        await self.parts.kernels.desk.start()
        self._start_chores()
        self.parts.conditions.serve()
        return list(self._bound)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Read and check what other settings need, and change nothing; what it returns puts them in force.

        The certificates are read again from where these settings say. Raises EsperdError TLS_INVALID.
        """
        certificates = self._certificates
        pair = None if certificates is None else certificates.prepare(TlsFiles.of(settings.control))
        return partial(self._apply, settings, pair)

    def _apply(self, settings: Settings, pair: TlsPair | None) -> None:
        if self._certificates is not None and pair is not None:
            self._certificates.swap(pair)
        self.parts.set_limits(settings)

    def tell(self, kind: str, message: str, level: str, attributes: Mapping[str, str]) -> None:
        """A notice of the control plane's own: into the log, the journal and the telemetry."""
        self.parts.tell(kind, message, level, attributes)

    def depths(self) -> dict[str, int]:
        """What waits in the control plane, for whoever looks for a jam."""
        return {
            "calls that wait for their turn": self.parts.pacer.num_waiting,
            "calls that had to wait so far": self.parts.pacer.num_delayed,
            "calls refused for the load so far": self.parts.pacer.num_refused,
            "open streams": self.parts.connections.num_streams,
            "commands without an outcome": self.parts.commands.num_open,
            "rows for the journal": self.parts.recorder.num_waiting,
            "kernels for the validator": self.parts.kernels.desk.num_validating,
        }

    async def drain_and_stop(self, grace_s: float, hurry: "asyncio.Future[None] | None" = None) -> None:
        """Refuse new changes, end every stream with a resume token, then stop; at most `grace_s` seconds.

        Once `hurry` is done, calls and streams that have not ended yet are cut.
        """
        deadline_s = time.monotonic() + grace_s
        self.parts.conditions.drain()
        self.parts.desk.is_draining = True
        await self.parts.desk.finish_accepting()
        # Those who wait for an outcome that is there get it; then nobody waits any longer.
        self.parts.pump.take_all()
        await self.parts.recorder.flush(min(grace_s, FLUSH_S))
        self.parts.commands.end_waits()
        await self.parts.exports.close()
        self.parts.checkpoints.close()
        await self.parts.kernels.desk.close()
        self.parts.sessions.drain()
        self.parts.telemetry.drain()
        self.parts.state.feed.close("draining")
        self.parts.commands.feed.close("draining")
        for stream in self.parts.connections.streams:
            if stream.method in _OPEN_ENDED:
                stream.end(EsperdError("DRAINING"))
        await self._end_calls(max(0.0, deadline_s - time.monotonic()), hurry)
        self._remove_sockets()
        await self._chores.stop()
        await self.parts.desk.finish_accepting()
        self._around.port.detach()
        self.parts.pump.take_all()
        self.parts.trail.close_period()
        self.parts.history.look(self._around.port.snapshot().run, is_daemon_leaving=True)
        await self.parts.recorder.finish(max(1.0, deadline_s - time.monotonic()))

    async def _end_calls(self, grace_s: float, hurry: "asyncio.Future[None] | None") -> None:
        """Take no more connections and wait for what is under way, which is cut after `grace_s`, or in a hurry."""
        stopped = asyncio.ensure_future(self._server.stop(grace_s))
        await asyncio.wait([stopped] if hurry is None else [stopped, hurry], return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            await self._server.stop(None)
        await stopped

    def _addresses(self) -> list[str]:
        configured = self.parts.settings.control.listen
        return list(configured) or [f"unix:{self.parts.settings.run.directory}/leyline.sock"]

    def _bind(self, address: str) -> str:
        certificates = self._certificates
        credentials = None if certificates is None else certificates.credentials
        return addresses.bind(self._server, address, credentials, self.parts.settings.control.socket_group)

    def _remove_sockets(self) -> None:
        for address in self._bound:
            addresses.remove_socket(address)
        self._bound.clear()

    # Chores

    def _start_chores(self) -> None:
        chores: list[tuple[float, Chore]] = [
            (self.parts.settings.control.frame_interval_s, self.parts.telemetry.tick),
            (HOUSEKEEPING_S, self._look_around),
            (PERIOD_S, self.parts.trail.close_period),
        ]
        if self._certificate_watch is not None:
            self._certificate_watch.look()
            chores.append((certificate_watch.INTERVAL_S, self._certificate_watch.look))
        self._chores.start(chores)

    def _look_around(self) -> None:
        """What is to be noticed by its time alone: deadlines, the price of calls, how the parts are."""
        self.parts.sessions.tick()
        self.parts.key_service.tick()
        self.parts.kernels.desk.tick()
        self.parts.meter.close_window()
        self.parts.history.look(self._around.port.snapshot().run)
        self.parts.conditions.set_part("trainer", self._around.port.snapshot().run.phase not in _BROKEN)
        self.parts.conditions.set_part("keys", self.parts.key_service.is_any_accepted)

    def _read_certificates(self) -> Certificates | None:
        """The certificates for `tls:` addresses; none without such an address. Raises EsperdError TLS_INVALID."""
        self._certificate_watch: CertificateWatch | None = None
        if not any(map(addresses.is_tls, self._addresses())):
            return None
        certificates = Certificates(TlsFiles.of(self.parts.settings.control), self._around.clock)
        self._certificate_watch = CertificateWatch(
            certificates,
            clock=self._around.clock,
            tell=self.tell,
            set_good=partial(self.parts.conditions.set_part, "tls"),
        )
        return certificates
