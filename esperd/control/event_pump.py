"""Takes the trainer's events off the bridge and gives each to those whom it concerns.

Event loop only. One pass takes a bounded number, so that calls are served in between; the bridge rings again when more
is left. Nothing here waits: what must reach the disk goes to the recorder. Rollbacks and serious emergencies are in the
log as well, for who reads nothing else.
"""

from functools import partial

from structlog.stdlib import BoundLogger

from esperd.bridge.bridge import Event, TrainerPort
from esperd.control.command_board import CommandBoard
from esperd.control.kernel_desk import KernelDesk
from esperd.control.notices import checkpoint_notice, resumed_notice, timeline_notice, transition_notice
from esperd.control.pacing import CallMeter
from esperd.control.policy_sessions import PolicySessions
from esperd.control.recorder import Recorder
from esperd.control.state_board import StateBoard
from esperd.control.telemetry_service import TelemetryService
from esperd.leyline.commands import Outcome
from esperd.leyline.kernels import KernelClosed, KernelLoaded
from esperd.leyline.views import (
    CheckpointEvent,
    NoticeEvent,
    RunResumed,
    Snapshot,
    StatePacket,
    TimelineEvent,
    TransitionEvent,
)

MAX_EVENTS_PER_PASS = 256
_LOGGED_LEVELS = ("error", "critical")
_LOGGED_ELSEWHERE = ("run.failed",)
"""The trainer's thread logs it, with the trace."""


class EventPump:
    """From the bridge to the journal, the feeds, and the policies."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        recorder: Recorder,
        commands: CommandBoard,
        state: StateBoard,
        sessions: PolicySessions,
        telemetry: TelemetryService,
        kernels: KernelDesk,
        meter: CallMeter,
        log: BoundLogger,
    ) -> None:
        self._port = port
        self._recorder = recorder
        self._commands = commands
        self._state = state
        self._sessions = sessions
        self._telemetry = telemetry
        self._kernels = kernels
        self._meter = meter
        self._log = log

    def on_events(self) -> None:
        """The bridge's bell: one pass."""
        events = self._port.take_events(MAX_EVENTS_PER_PASS)
        self._meter.own_work(partial(self._pass_on, events))

    def take_all(self) -> None:
        """Everything that is left, when the trainer has gone."""
        while events := self._port.take_events(MAX_EVENTS_PER_PASS):
            self._pass_on(events)

    def _pass_on(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Outcome():
                    self._commands.acknowledged(event)
                    self._recorder.settle_later(event)
                case Snapshot():
                    self._state.publish(event)
                    self._kernels.look(event)
                case StatePacket():
                    self._sessions.packet(event)
                case TransitionEvent():
                    self._recorder.append_later(event)
                    self._telemetry.event(transition_notice(event))
                case NoticeEvent():
                    self._recorder.append_later(event)
                    self._telemetry.event(event)
                    self._write_down(event)
                    self._kernels.noticed(event)
                case CheckpointEvent():
                    self._recorder.append_later(event)
                    self._telemetry.event(checkpoint_notice(event, self._port.snapshot().revision))
                case TimelineEvent():
                    self._recorder.append_later(event)
                    self._telemetry.event(timeline_notice(event))
                case KernelLoaded():
                    self._kernels.loaded(event)
                case KernelClosed():
                    self._kernels.closed(event)
                case RunResumed():
                    self._recorder.append_later(event)
                    self._telemetry.event(resumed_notice(event))

    def _write_down(self, event: NoticeEvent) -> None:
        if event.level in _LOGGED_LEVELS and event.kind not in _LOGGED_ELSEWHERE:
            write = getattr(self._log, event.level)
            write(event.message, kind=event.kind, step=event.global_step, timeline=event.timeline)
