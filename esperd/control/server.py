"""The gRPC server of the daemon: builds Leyline's parts, binds its addresses, serves, and leaves in good order.

Event loop only. It reaches the trainer through the bridge's port alone, so it could live in a process of its own.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import Settings
from esperd.control import addresses, certificate_watch
from esperd.control.admin_service import AdminService
from esperd.control.audit import PERIOD_S, AuditTrail
from esperd.control.audit_service import AuditService
from esperd.control.certificate_watch import CertificateWatch
from esperd.control.checkpoint_service import CheckpointService
from esperd.control.chores import Chore, Chores
from esperd.control.command_board import CommandBoard
from esperd.control.command_desk import CommandDesk
from esperd.control.command_service import CommandService
from esperd.control.condition import ConditionBoard
from esperd.control.connections import Connections
from esperd.control.earlier_starts import had_policy
from esperd.control.emergency_service import EmergencyService
from esperd.control.entrance import Entrance
from esperd.control.event_pump import EventPump
from esperd.control.export_process import ExportProcess
from esperd.control.exports import ExportDesk
from esperd.control.gate import Gate
from esperd.control.health import SERVICE as HEALTH_SERVICE
from esperd.control.health import HealthService
from esperd.control.identity import ServerIdentity
from esperd.control.key_port import KeyPort
from esperd.control.key_service import KeyService
from esperd.control.pacing import CallMeter, Pacer
from esperd.control.policy_service import PolicyService
from esperd.control.policy_sessions import METHOD as DECISION_STREAM
from esperd.control.policy_sessions import PolicySessions
from esperd.control.rates import Rates, limits_of
from esperd.control.recorder import Recorder
from esperd.control.reflection import SERVICES as REFLECTION_SERVICES
from esperd.control.reflection import ReflectionService
from esperd.control.run_history import RunHistory
from esperd.control.run_service import RunService
from esperd.control.server_service import ServerService
from esperd.control.state_board import StateBoard
from esperd.control.state_service import StateService
from esperd.control.supervisor import Supervisor
from esperd.control.telemetry_service import TelemetryService
from esperd.control.tls import Certificates, TlsFiles, TlsPair
from esperd.control.transport import ConnectionLimits, server_options
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import read_method_policies, services
from esperd.leyline.verify import Verifier
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.journal import Journal
from esperd.oona.records import CommandRecord

COMMAND_STREAM = "/esper.leyline.v1.CommandService/CommandStream"
HOUSEKEEPING_S = 0.1
FLUSH_S = 1.0
"""At a drain, how long the last outcomes may take to become durable before streams end."""
URGENT_SHARE = 0.2
"""Part of the training share that refusals and reads on the emergency lane may take on top."""
_OPEN_ENDED = (COMMAND_STREAM, *(f"/{name}/ServerReflectionInfo" for name in REFLECTION_SERVICES))
"""Streams that last for as long as their caller likes and have no last message of their own."""
_TRAINING = (TrainerPhase.TRAINING, TrainerPhase.VALIDATING)
_BROKEN = (TrainerPhase.FAILED, TrainerPhase.HALTED)


class ControlServer:
    """Leyline's front: servicers, event pump, pacing and lease in one event loop."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        journal: Journal,
        verifier: Verifier,
        settings: Settings,
        identity: ServerIdentity,
        supervisor: Supervisor,
        keys: KeyPort,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
        store: CheckpointStore | None = None,
        unsettled: Sequence[CommandRecord] | None = None,
        export_command: Sequence[str] = (),
    ) -> None:
        """`clock` gives Unix seconds, `monotonic` seconds that never go back; nothing is bound before `start`.
        `supervisor` is the process around it; `keys` keeps the keys that `verifier` accepts.

        `store` holds the run's checkpoints; None means that there are none. `unsettled` are the commands without an
        outcome of earlier starts, which the trainer will carry out; None means that this start begins the run.
        `export_command` starts an export, up to its options; empty means that none can be made.
        """
        self._port = port
        self._journal = journal
        self._unsettled = unsettled
        self._verifier = verifier
        self._settings = settings
        self._identity = identity
        self._supervisor = supervisor
        self._clock = clock
        self._keys = keys
        self._log = log
        self._policies = read_method_policies()
        self.conditions = ConditionBoard()
        self.connections = Connections(clock, settings.control.max_streams)
        self.key_service = KeyService(keys=keys, connections=self.connections, clock=clock, log=log)
        self._meter = CallMeter(time.thread_time)
        self._rates = Rates(self._policies.values(), limits_of(settings.control), monotonic)
        self._pacer, self._urgent_pacer = (self._make_pacer(monotonic, share) for share in (1.0, URGENT_SHARE))
        self._commands = CommandBoard(identity.epoch)
        self._state = StateBoard(identity.epoch, port.snapshot())
        self._build_recording(clock)
        self._build_desks(clock, monotonic)
        self._telemetry = TelemetryService(
            port=port,
            pacer=self._pacer,
            frame_interval_s=settings.control.frame_interval_s,
            monotonic=monotonic,
        )
        self._checkpoints = CheckpointService(port=port, store=store, settings=settings.checkpoints)
        self._exports = ExportDesk(
            port=port,
            store=store,
            process=ExportProcess(export_command, log),
            run_directory=Path(settings.run.directory),
        )
        self._pump = EventPump(
            port=port,
            recorder=self._recorder,
            commands=self._commands,
            state=self._state,
            sessions=self._sessions,
            telemetry=self._telemetry,
            meter=self._meter,
        )
        self._entrance = self._make_entrance(journal, clock, monotonic)
        self._certificates = self._read_certificates(clock)
        self._server: Any = None
        self._bound: list[str] = []
        self._chores = Chores(self._meter, log)

    async def start(self) -> list[str]:
        """Bind and serve; returns the bound addresses (a port of 0 is replaced by the one that was given).

        Raises:
            EsperdError: ADDRESS_UNUSABLE; nothing stays bound.
        """
        self._commands.reopen(self._unsettled or ())
        continues = self._unsettled is not None
        lost_policy = continues and await had_policy(self._journal, self._port.snapshot().run.started_unix_s)
        limits = ConnectionLimits(max_connections=self._settings.control.max_connections)
        self._server = grpc.aio.server(options=server_options(limits))
        self._server.add_generic_rpc_handlers((self._entrance,))
        try:
            for address in self._addresses():
                self._bound.append(self._bind(address))
            await self._server.start()
        except BaseException:
            await self._server.stop(None)
            self._remove_sockets()
            raise
        self._port.attach(asyncio.get_running_loop(), self._pump.on_events)
        self.conditions.set_part("journal", True)
        if lost_policy:
            self._sessions.note_restart()
        self._look_around()
        self._start_chores()
        self.conditions.serve()
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
        self._settings = settings
        control, budgets = settings.control, settings.budgets
        self.connections.max_streams = control.max_streams
        self._pacer.set_limits(control.training_share, control.max_concurrent_calls)
        self._urgent_pacer.set_limits(control.training_share * URGENT_SHARE, control.max_concurrent_calls)
        self._rates.set_limits(limits_of(control))
        self._sessions.set_patience(budgets.policy_answer_s, budgets.missed_deadlines)

    def tell(self, kind: str, message: str, level: str, attributes: Mapping[str, str]) -> None:
        """A notice of the control plane's own: into the log, the journal and the telemetry."""
        snapshot = self._port.snapshot()
        run, revision = snapshot.run, snapshot.revision
        notice = NoticeEvent(kind, message, level, run.global_step, revision, self._clock(), attributes, run.timeline)
        getattr(self._log, level)(message, kind=kind, **attributes)
        self._recorder.append_later(notice)
        self._telemetry.event(notice)

    def depths(self) -> dict[str, int]:
        """What waits in the control plane, for whoever looks for a jam."""
        return {
            "calls that wait for their turn": self._pacer.num_waiting,
            "calls that had to wait so far": self._pacer.num_delayed,
            "calls refused for the load so far": self._pacer.num_refused,
            "open streams": self.connections.num_streams,
            "rows for the journal": self._recorder.num_waiting,
        }

    async def drain_and_stop(self, grace_s: float, hurry: "asyncio.Future[None] | None" = None) -> None:
        """Refuse new changes, end every stream with a resume token, then stop; at most `grace_s` seconds.

        Once `hurry` is done, calls and streams that have not ended yet are cut.
        """
        deadline_s = time.monotonic() + grace_s
        self.conditions.drain()
        self._desk.is_draining = True
        await self._desk.finish_accepting()
        # Those who wait for an outcome that is there get it; then nobody waits any longer.
        self._pump.take_all()
        await self._recorder.flush(min(grace_s, FLUSH_S))
        self._commands.end_waits()
        await self._exports.close()
        self._checkpoints.close()
        self._sessions.drain()
        self._telemetry.drain()
        self._state.feed.close("draining")
        self._commands.feed.close("draining")
        for stream in self.connections.streams:
            if stream.method in _OPEN_ENDED:
                stream.end(EsperdError("DRAINING"))
        await self._end_calls(max(0.0, deadline_s - time.monotonic()), hurry)
        self._remove_sockets()
        await self._chores.stop()
        await self._desk.finish_accepting()
        self._port.detach()
        self._pump.take_all()
        self._trail.close_period()
        self._history.look(self._port.snapshot().run, is_daemon_leaving=True)
        await self._recorder.finish(max(1.0, deadline_s - time.monotonic()))

    async def _end_calls(self, grace_s: float, hurry: "asyncio.Future[None] | None") -> None:
        """Take no more connections and wait for what is under way, which is cut after `grace_s`, or in a hurry."""
        stopped = asyncio.ensure_future(self._server.stop(grace_s))
        await asyncio.wait([stopped] if hurry is None else [stopped, hurry], return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            await self._server.stop(None)
        await stopped

    def _addresses(self) -> list[str]:
        configured = self._settings.control.listen
        return list(configured) or [f"unix:{self._settings.run.directory}/leyline.sock"]

    def _bind(self, address: str) -> str:
        certificates = self._certificates
        credentials = None if certificates is None else certificates.credentials
        return addresses.bind(self._server, address, credentials, self._settings.control.socket_group)

    def _remove_sockets(self) -> None:
        for address in self._bound:
            addresses.remove_socket(address)
        self._bound.clear()

    # Chores

    def _start_chores(self) -> None:
        chores: list[tuple[float, Chore]] = [
            (self._settings.control.frame_interval_s, self._telemetry.tick),
            (HOUSEKEEPING_S, self._look_around),
            (PERIOD_S, self._trail.close_period),
        ]
        if self._certificate_watch is not None:
            self._certificate_watch.look()
            chores.append((certificate_watch.INTERVAL_S, self._certificate_watch.look))
        self._chores.start(chores)

    def _look_around(self) -> None:
        """What is to be noticed by its time alone: deadlines, the price of calls, how the parts are."""
        self._sessions.tick()
        self.key_service.tick()
        self._meter.close_window()
        self._history.look(self._port.snapshot().run)
        self.conditions.set_part("trainer", self._port.snapshot().run.phase not in _BROKEN)
        self.conditions.set_part("keys", self.key_service.is_any_accepted)

    # Building

    def _build_recording(self, clock: Callable[[], float]) -> None:
        """What reaches the journal without anybody waiting for it."""
        port = self._port
        self._recorder = Recorder(
            journal=self._journal,
            clock=clock,
            sleep=asyncio.sleep,
            on_accepted=self._commands.accepted,
            on_settled=self._commands.settled,
            on_durable=port.note_durable,
            on_health=self._note_journal,
            log=self._log,
        )
        self._trail = AuditTrail(self._recorder.append_later)
        is_ended = port.snapshot().run.phase is TrainerPhase.FINISHED
        self._history = RunHistory(self._recorder.append_later, clock, is_ended=is_ended)
        self._gate = Gate(self._verifier, self._trail, self.connections, self._rates, clock)

    def _build_desks(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """Where commands and decisions are taken."""
        settings, identity = self._settings, self._identity
        id_prefix = identity.epoch[:4].hex()
        self._desk = CommandDesk(
            port=self._port,
            journal=self._journal,
            recorder=self._recorder,
            board=self._commands,
            clock=clock,
            id_prefix=id_prefix,
            on_health=self._note_journal,
        )
        self._sessions = PolicySessions(
            desk=self._desk,
            board=self._commands,
            recorder=self._recorder,
            snapshot=self._port.snapshot,
            answer_within_s=settings.budgets.policy_answer_s,
            max_missed=settings.budgets.missed_deadlines,
            run_name=settings.run.name or identity.run_id,
            id_prefix=id_prefix,
            clock=clock,
            monotonic=monotonic,
            log=self._log,
        )

    def _read_certificates(self, clock: Callable[[], float]) -> Certificates | None:
        """The certificates for `tls:` addresses; none without such an address. Raises EsperdError TLS_INVALID."""
        self._certificate_watch: CertificateWatch | None = None
        if not any(map(addresses.is_tls, self._addresses())):
            return None
        certificates = Certificates(TlsFiles.of(self._settings.control), clock)
        self._certificate_watch = CertificateWatch(
            certificates,
            clock=clock,
            tell=self.tell,
            set_good=partial(self.conditions.set_part, "tls"),
        )
        return certificates

    def _note_journal(self, is_healthy: bool) -> None:
        self.conditions.set_part("journal", is_healthy)

    def _make_pacer(self, monotonic: Callable[[], float], part: float) -> Pacer:
        control = self._settings.control
        return Pacer(
            share=control.training_share * part,
            meter=self._meter,
            is_training=self._is_training,
            monotonic=monotonic,
            sleep=asyncio.sleep,
            max_waiting=control.max_concurrent_calls,
        )

    def _is_training(self) -> bool:
        return self._port.snapshot().run.phase in _TRAINING

    def _make_entrance(self, journal: Journal, clock: Callable[[], float], monotonic: Callable[[], float]) -> Entrance:
        port, desk, board, gate = self._port, self._desk, self._commands, self._gate
        names = [service.full_name for service in services()]
        parts = (
            ServerService(
                identity=self._identity,
                settings=lambda: self._settings.control,
                conditions=self.conditions,
                keys=self._keys,
                policies=self._policies,
                clock=clock,
            ),
            self.key_service,
            AdminService(supervisor=self._supervisor, connections=self.connections, clock=clock, log=self._log),
            RunService(
                port=port,
                journal=journal,
                desk=desk,
                supervisor=self._supervisor,
                lease_principal=lambda: self._sessions.lease_principal,
            ),
            CommandService(
                desk=desk,
                board=board,
                journal=journal,
                port=port,
                gate=gate,
                pacer=self._pacer,
                policy=self._policies[COMMAND_STREAM],
                record=self._recorder.append_later,
                clock=clock,
            ),
            EmergencyService(
                port=port,
                desk=desk,
                board=board,
                journal=journal,
                recorder=self._recorder,
                clock=clock,
                monotonic=monotonic,
            ),
            StateService(port=port, board=self._state, journal=journal),
            PolicyService(
                sessions=self._sessions,
                gate=gate,
                policy=self._policies[DECISION_STREAM],
                journal=journal,
                clock=clock,
                global_step=lambda: port.snapshot().run.global_step,
            ),
            AuditService(journal=journal, conditions=self.conditions, is_training=self._is_training),
            self._checkpoints,
            self._exports,
            self._telemetry,
            HealthService(self.conditions, names),
            ReflectionService([*names, HEALTH_SERVICE, *REFLECTION_SERVICES]),
        )
        return Entrance(
            routes=[route for part in parts for route in part.routes()],
            policies=self._policies,
            gate=gate,
            pacer=self._pacer,
            urgent_pacer=self._urgent_pacer,
            meter=self._meter,
            connections=self.connections,
            rates=self._rates,
            log=self._log,
        )
