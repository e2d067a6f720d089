"""Performs a recorded run once more, undisturbed: each command at the step at which the journal says it took effect.

An ordinary client on a fresh daemon. What was rolled back is left out: the way that led to the end is performed as one
straight run, so that the recorded rollbacks and restarts are judged by something that uses neither. The run stands
still at every step at which something happened, and there the commands of that step are sent one after another.
"""

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1.emergency_service_pb2 import ClearEmergencyPayload, EmergencySignal
from esper.leyline.v1.vocabulary_pb2 import (
    CIRCUIT_BREAKER_STATE_CLOSED,
    COMMAND_STATE_APPLIED,
    EMERGENCY_LEVEL_HALT,
    TRAINER_PHASE_FINISHED,
    CircuitBreakerState,
    EmergencyLevel,
)

from esperd.leyline.vocabulary import CommandState
from tests.robustness.history import CommandRow, History, OutcomeRow, TimelineRow
from tests.robustness.performance import Performance
from tests.robustness.processes import Launcher

_MEASURING = ("GATE_FAILED", "GATE_UNMEASURED")
"""Refusals that came of a measurement, which has drawn from the held-out data."""
_LEFT_OUT = ("pause", "resume", "checkpoint")
"""What the replay does in its own way, and what changes nothing."""
_UNDISTURBED = ("run.start_paused=true", "run.task_options.step_s=0.0")


@dataclass(slots=True)
class Standing:
    """What an operator has set and no rollback takes back."""

    emergencies: dict[str, EmergencyLevel] = field(default_factory=dict)
    """Those raised and not cleared, by id."""
    breakers: dict[str, CircuitBreakerState] = field(default_factory=dict)
    """What each breaker was set to last, by name."""

    def copy(self) -> "Standing":
        """As it is now."""
        return Standing(dict(self.emergencies), dict(self.breakers))


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens at one step of the straight run."""

    timeline: int
    step: int
    standing: Standing
    """What stands then."""
    command: CommandRow | None = None
    """None where only what stands may have changed: the run came back here, or an operator set it."""
    outcome: OutcomeRow | None = None

    @property
    def is_stop(self) -> bool:
        """Whether it ends the run."""
        return self.command is not None and self.command.kind == "stop"


def replay(folder: Path, launcher: Launcher, history: History, overrides: Sequence[str]) -> None:
    """Perform what is recorded in a folder of its own, until the run is finished."""
    with closing(Performance(folder, launcher, (*overrides, *_UNDISTURBED))) as performance:
        stage = _Stage(performance)
        for scene in straight_run(history):
            stage.go_to(scene.step)
            stage.perform(scene)
        performance.until(lambda run: run.run.phase == TRAINER_PHASE_FINISHED)


def went_back_by_itself(history: History) -> bool:
    """Whether a rule of the trainer's own rolled the run back; no command could do the same again."""
    return not {row.cause for row in history.timelines} <= {row.command_id for row in history.commands}


def straight_run(history: History) -> list[Scene]:
    """The way that led to the end, without what was rolled back."""
    commands = {row.command_id: row for row in history.commands}
    opened = {row.cause: row for row in history.timelines}
    standing = Standing()
    scenes: list[Scene] = []
    for outcome in sorted((row for row in history.outcomes if row.sequence), key=lambda row: row.sequence):
        command = commands[outcome.command_id]
        is_applied = outcome.state == CommandState.APPLIED
        if command.command_id in opened:
            fork = opened[command.command_id]
            scenes = [scene for scene in scenes if _leads_to(scene, fork, history.timelines)]
            scenes.append(Scene(fork.timeline, fork.fork_step, standing.copy()))
        elif command.kind in _STANDING and is_applied:
            _STANDING[command.kind](command, standing)
            scenes.append(Scene(outcome.timeline, outcome.global_step, standing.copy()))
        elif command.kind not in _LEFT_OUT and (is_applied or outcome.refusal_reason in _MEASURING):
            scenes.append(Scene(outcome.timeline, outcome.global_step, standing.copy(), command, outcome))
    # A halt, and its end, may have come while the run caught up: at an earlier step than what was before. A stop ends
    # the run at its step, and the others of that safe point took effect too.
    return sorted(scenes, key=lambda scene: (scene.timeline, scene.step, scene.is_stop))


def _leads_to(scene: Scene, fork: TimelineRow, timelines: Sequence[TimelineRow]) -> bool:
    """Whether a scene lies on the way to where a timeline forked."""
    by_number = {row.timeline: row for row in timelines}
    limit, timeline = fork.fork_step, fork.parent
    while timeline != scene.timeline:
        if timeline not in by_number:
            return False
        limit = min(limit, by_number[timeline].fork_step)
        timeline = by_number[timeline].parent
    return scene.step <= limit


def _note_emergency(command: CommandRow, standing: Standing) -> None:
    if command.method.endswith("RaiseEmergency"):
        level = EmergencySignal.FromString(command.payload).level
        if level < EMERGENCY_LEVEL_HALT:  # nothing is computed while a halt stands
            standing.emergencies[f"e-{command.command_id}"] = level
    else:
        standing.emergencies.pop(ClearEmergencyPayload.FromString(command.payload).emergency_id, None)


def _note_breaker(command: CommandRow, standing: Standing) -> None:
    asked = pb.AdaptationCommand.FromString(command.payload).circuit_breaker
    standing.breakers[asked.name] = asked.desired_state


_STANDING = {"emergency": _note_emergency, "breaker": _note_breaker}
"""What a command of this kind makes stand: a rollback keeps it, though it goes back to before the command."""


class _Stage:
    """A run that stands still but when it is sent on to a step."""

    def __init__(self, performance: Performance) -> None:
        self._performance = performance
        self._numbers = itertools.count(1)
        self._raised: dict[str, str] = {}
        """Ids of this run's emergencies, by those of the recorded ones."""
        self._breakers: dict[str, CircuitBreakerState] = {}

    def go_to(self, step: int) -> None:
        """Let the run go on and stand still at a step; nothing when it is there."""
        now = self._performance.look().run.global_step
        assert now <= step, f"the replay is at step {now}, beyond {step}"
        if now < step:
            pause = self._control(pb.RUN_ACTION_PAUSE, step)
            self._performance.settle(self._control(pb.RUN_ACTION_RESUME))
            self._performance.settle(pause)

    def perform(self, scene: Scene) -> None:
        """Send what happened there, and see that it comes to the same."""
        self._make_stand(scene.standing)
        if scene.command is None or scene.outcome is None:
            return
        if scene.is_stop:
            self._control(pb.RUN_ACTION_STOP)
            return
        message = pb.AdaptationCommand.FromString(scene.command.payload)
        message.ClearField("apply_at")
        message.ClearField("expected_revision")
        self._performance.submit(message.request_id, lambda client: client.submit(message))
        settled = self._performance.settle(message.request_id)
        recorded = (scene.outcome.state, scene.outcome.refusal_reason, scene.outcome.seed_id)
        # A refused command has made no seed; the client is shown the one that it named.
        seed_id = int(settled.seed_id or 0) if settled.state == COMMAND_STATE_APPLIED else 0
        found = (settled.state, settled.error.reason, seed_id)
        became = f"{recorded} became {found} {settled.error.message}"
        assert found == recorded, f"{message.request_id} at {scene.step}: {became}"

    def _make_stand(self, standing: Standing) -> None:
        """Raise, clear and set what it takes."""
        for recorded in [name for name in self._raised if name not in standing.emergencies]:
            self._clear(self._raised.pop(recorded))
        for recorded, level in standing.emergencies.items():
            if recorded not in self._raised:
                self._raised[recorded] = self._raise(level)
        for breaker in {**self._breakers, **standing.breakers}:
            self._set(breaker, standing.breakers.get(breaker, CIRCUIT_BREAKER_STATE_CLOSED))

    def _raise(self, level: EmergencyLevel) -> str:
        name = self._name()
        raised = self._performance.call(lambda client: client.raise_emergency(level, name, request_id=name))
        return raised.emergency.emergency_id

    def _clear(self, emergency_id: str) -> None:
        name = self._name()
        self._performance.call(lambda client: client.clear_emergency(emergency_id, name, request_id=name))

    def _set(self, breaker: str, state: CircuitBreakerState) -> None:
        if self._breakers.get(breaker, CIRCUIT_BREAKER_STATE_CLOSED) == state:
            return
        self._breakers[breaker] = state
        name = self._name()
        asked = pb.CommandCircuitBreaker(name=breaker, desired_state=state)
        message = pb.AdaptationCommand(request_id=name, reason=name, circuit_breaker=asked)
        self._performance.submit(name, lambda client: client.submit(message))
        self._performance.settle(name)

    def _control(self, action: pb.RunAction, step: int = 0) -> str:
        name = self._name()
        message = pb.AdaptationCommand(request_id=name, reason=name, run_control=pb.CommandRunControl(action=action))
        if step:
            message.apply_at.CopyFrom(pb.ApplyAt(global_step=step))
        self._performance.submit(name, lambda client: client.submit(message))
        return name

    def _name(self) -> str:
        return f"replay-{next(self._numbers)}"
