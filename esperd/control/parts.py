"""What the control plane is made of: boards, desks, services and the one way in, and how they hang together.

Event loop only. Builds the parts; when they serve, and in which order they end, is written in `server.py`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import Settings
from esperd.control.admin_service import AdminService
from esperd.control.audit import AuditTrail
from esperd.control.audit_service import AuditService
from esperd.control.call import Service
from esperd.control.checkpoint_service import CheckpointService
from esperd.control.command_board import CommandBoard
from esperd.control.command_desk import CommandDesk
from esperd.control.command_service import CommandService
from esperd.control.condition import ConditionBoard
from esperd.control.connections import Connections
from esperd.control.emergency_service import EmergencyService
from esperd.control.entrance import Entrance
from esperd.control.event_pump import EventPump
from esperd.control.export_process import ExportProcess
from esperd.control.exports import ExportDesk
from esperd.control.gate import Gate
from esperd.control.health import SERVICE as HEALTH_SERVICE
from esperd.control.health import HealthService
from esperd.control.identity import ServerIdentity
from esperd.control.kernel_parts import KernelKeeping, KernelParts
from esperd.control.kernel_service import UPLOAD_KERNEL, KernelService
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
from esperd.leyline.method_policy import read_method_policies, services
from esperd.leyline.verify import Verifier
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.journal import Journal
from esperd.oona.records import CommandRecord

COMMAND_STREAM = "/esper.leyline.v1.CommandService/CommandStream"
URGENT_SHARE = 0.2
"""Part of the training share that refusals and reads on the emergency lane may take on top."""
_TRAINING = (TrainerPhase.TRAINING, TrainerPhase.VALIDATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around the control plane: it is given all of this and owns nothing of it."""

    port: TrainerPort
    journal: Journal
    verifier: Verifier
    keys: KeyPort
    """Keeps the keys that `verifier` accepts."""
    identity: ServerIdentity
    supervisor: Supervisor
    """The process around it."""
    clock: Callable[[], float]
    """Gives Unix seconds."""
    monotonic: Callable[[], float]
    """Gives seconds that never go back."""
    log: structlog.stdlib.BoundLogger
    store: CheckpointStore | None = None
    """The run's checkpoints; None means that there are none."""
    unsettled: Sequence[CommandRecord] | None = None
    """Commands without an outcome of earlier starts, which the trainer will carry out; None means that this start
    begins the run."""
    export_command: Sequence[str] = ()
    """Starts an export, up to its options; empty means that none can be made."""
    kernels: KernelKeeping | None = None
    """What kernels are kept with; None means that they are switched off."""


class ControlParts:
    """Everything of one control plane; built once, before it serves."""

    def __init__(self, around: Surroundings, settings: Settings) -> None:
        """Build the parts; `settings` are those of the start."""
        self.around = around
        self.settings = settings
        """Those in force: a reload replaces them."""
        self.policies = read_method_policies()
        self.conditions = ConditionBoard()
        self.connections = Connections(around.clock, settings.control.max_streams)
        self.key_service = KeyService(
            keys=around.keys, connections=self.connections, clock=around.clock, log=around.log
        )
        self.meter = CallMeter(time.thread_time)
        self.rates = Rates(self.policies.values(), limits_of(settings.control), around.monotonic)
        self.pacer, self.urgent_pacer = (self._make_pacer(share) for share in (1.0, URGENT_SHARE))
        self.commands = CommandBoard(around.identity.epoch)
        self.state = StateBoard(around.identity.epoch, around.port.snapshot())
        self._build_recording()
        self._build_desks()
        self._build_outlets()
        self.commands.listen(self.kernels.swaps.settled)
        self.entrance = self._make_entrance()

    def set_limits(self, settings: Settings) -> None:
        """Put the limits of other settings in force."""
        self.settings = settings
        control, budgets = settings.control, settings.budgets
        self.connections.max_streams = control.max_streams
        self.pacer.set_limits(control.training_share, control.max_concurrent_calls)
        self.urgent_pacer.set_limits(control.training_share * URGENT_SHARE, control.max_concurrent_calls)
        self.rates.set_limits(limits_of(control))
        self.sessions.set_patience(budgets.policy_answer_s, budgets.missed_deadlines)
        self.kernels.desk.set_settings(settings.kernels)

    def _build_recording(self) -> None:
        """What reaches the journal without anybody waiting for it."""
        port = self.around.port
        self.recorder = Recorder(
            journal=self.around.journal,
            clock=self.around.clock,
            sleep=asyncio.sleep,
            on_accepted=self.commands.accepted,
            on_settled=self.commands.settled,
            on_durable=port.note_durable,
            on_health=self._note_journal,
            log=self.around.log,
        )
        self.trail = AuditTrail(self.recorder.append_later)
        is_ended = port.snapshot().run.phase is TrainerPhase.FINISHED
        self.history = RunHistory(self.recorder.append_later, self.around.clock, is_ended=is_ended)
        self.gate = Gate(self.around.verifier, self.trail, self.connections, self.rates, self.around.clock)

    def _build_desks(self) -> None:
        """Where commands and decisions are taken."""
        settings, identity = self.settings, self.around.identity
        id_prefix = identity.epoch[:4].hex()
        self.kernels = self._make_kernels()
        self.desk = CommandDesk(
            port=self.around.port,
            journal=self.around.journal,
            recorder=self.recorder,
            board=self.commands,
            clock=self.around.clock,
            id_prefix=id_prefix,
            on_health=self._note_journal,
            check_swap=self.kernels.swaps.check,
        )
        self.sessions = PolicySessions(
            desk=self.desk,
            board=self.commands,
            recorder=self.recorder,
            snapshot=self.around.port.snapshot,
            answer_within_s=settings.budgets.policy_answer_s,
            max_missed=settings.budgets.missed_deadlines,
            run_name=settings.run.name or identity.run_id,
            id_prefix=id_prefix,
            clock=self.around.clock,
            monotonic=self.around.monotonic,
            log=self.around.log,
        )

    def _build_outlets(self) -> None:
        """What carries the run's state and files outside, and what takes the trainer's events in."""
        around, settings = self.around, self.settings
        self.telemetry = TelemetryService(
            port=around.port,
            pacer=self.pacer,
            frame_interval_s=settings.control.frame_interval_s,
            monotonic=around.monotonic,
        )
        self.checkpoints = CheckpointService(port=around.port, store=around.store, settings=settings.checkpoints)
        self.exports = ExportDesk(
            port=around.port,
            store=around.store,
            process=ExportProcess(around.export_command, around.log),
            run_directory=Path(settings.run.directory),
        )
        self.pump = EventPump(
            port=around.port,
            recorder=self.recorder,
            commands=self.commands,
            state=self.state,
            sessions=self.sessions,
            telemetry=self.telemetry,
            kernels=self.kernels.desk,
            meter=self.meter,
            log=around.log,
        )

    def tell(self, kind: str, message: str, level: str, attributes: Mapping[str, str]) -> None:
        """A notice of the control plane's own: into the log, the journal and the telemetry."""
        snapshot = self.around.port.snapshot()
        run, revision = snapshot.run, snapshot.revision
        notice = NoticeEvent(
            kind, message, level, run.global_step, revision, self.around.clock(), attributes, run.timeline
        )
        getattr(self.around.log, level)(message, kind=kind, **attributes)
        self.recorder.append_later(notice)
        self.telemetry.event(notice)

    def note_keys(self) -> int:
        """Other keys are in force: end the streams whose key is no longer accepted and return how many those are.

        Who vouches for kernels may be another one too.
        """
        self.kernels.desk.rescan()
        return self.key_service.end_refused_streams()

    def _make_kernels(self) -> KernelParts:
        around = self.around
        return KernelParts(
            keeping=around.kernels,
            port=around.port,
            settings=self.settings.kernels,
            epoch=around.identity.epoch,
            submit=lambda command, reason, seed_id: self.desk.submit_own(command, reason, seed_id),
            tell=self.tell,
            set_good=partial(self.conditions.set_part, "kernels"),
            clock=around.clock,
            monotonic=around.monotonic,
            log=around.log,
        )

    def _note_journal(self, is_healthy: bool) -> None:
        self.conditions.set_part("journal", is_healthy)

    def _make_pacer(self, part: float) -> Pacer:
        control = self.settings.control
        return Pacer(
            share=control.training_share * part,
            meter=self.meter,
            is_training=self._is_training,
            monotonic=self.around.monotonic,
            sleep=asyncio.sleep,
            max_waiting=control.max_concurrent_calls,
        )

    def _is_training(self) -> bool:
        return self.around.port.snapshot().run.phase in _TRAINING

    def _make_entrance(self) -> Entrance:
        served = (*self._own_services(), *self._standard_services())
        return Entrance(
            routes=[route for service in served for route in service.routes()],
            policies=self.policies,
            gate=self.gate,
            pacer=self.pacer,
            urgent_pacer=self.urgent_pacer,
            meter=self.meter,
            connections=self.connections,
            rates=self.rates,
            log=self.around.log,
        )

    def _own_services(self) -> Iterator[Service]:
        """The services of the contract."""
        around, port, journal, clock = self.around, self.around.port, self.around.journal, self.around.clock
        yield ServerService(
            identity=around.identity,
            settings=lambda: self.settings.control,
            conditions=self.conditions,
            keys=around.keys,
            policies=self.policies,
            clock=clock,
        )
        yield self.key_service
        yield AdminService(supervisor=around.supervisor, connections=self.connections, clock=clock, log=around.log)
        yield RunService(
            port=port,
            journal=journal,
            desk=self.desk,
            supervisor=around.supervisor,
            lease_principal=lambda: self.sessions.lease_principal,
            log=around.log,
        )
        yield CommandService(
            desk=self.desk,
            board=self.commands,
            journal=journal,
            port=port,
            gate=self.gate,
            pacer=self.pacer,
            policy=self.policies[COMMAND_STREAM],
            record=self.recorder.append_later,
            clock=clock,
        )
        yield EmergencyService(
            port=port,
            desk=self.desk,
            board=self.commands,
            journal=journal,
            recorder=self.recorder,
            clock=clock,
            monotonic=around.monotonic,
        )
        yield StateService(port=port, board=self.state, journal=journal)
        yield PolicyService(
            sessions=self.sessions,
            gate=self.gate,
            policy=self.policies[DECISION_STREAM],
            journal=journal,
            clock=clock,
            global_step=lambda: port.snapshot().run.global_step,
        )
        yield KernelService(
            port=port,
            board=self.kernels.board,
            desk=self.kernels.desk,
            gate=self.gate,
            policy=self.policies[UPLOAD_KERNEL],
        )
        yield AuditService(journal=journal, conditions=self.conditions, is_training=self._is_training)
        yield from (self.checkpoints, self.exports, self.telemetry)

    def _standard_services(self) -> Iterator[Service]:
        """The services that every gRPC tool knows."""
        names = [service.full_name for service in services()]
        yield HealthService(self.conditions, names)
        yield ReflectionService([*names, HEALTH_SERVICE, *REFLECTION_SERVICES])
