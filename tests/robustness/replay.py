"""Performs a recorded run once more, undisturbed: each command at the step at which the journal says it took effect.

An ordinary client on a fresh daemon. The run stands still at every step at which something happened; there the commands
of that step are sent one after another. Standing still changes nothing that is computed.
"""

import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1.emergency_service_pb2 import ClearEmergencyPayload, EmergencySignal
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FINISHED

from esperd.leyline.vocabulary import CommandState
from tests.robustness.history import CommandRow, History, OutcomeRow
from tests.robustness.performance import Performance
from tests.robustness.processes import Launcher

_MEASURING = ("GATE_FAILED", "GATE_UNMEASURED")
"""Refusals that came of a measurement, which has drawn from the held-out data."""
_LEFT_OUT = ("pause", "resume", "checkpoint")
"""What the replay does in its own way, and what changes nothing."""
_KEEP_EVERY_STATE = (
    "run.start_paused=true",
    "run.task_options.step_s=0.0",
    "checkpoints.snapshot_every_steps=1",
    "checkpoints.snapshots=500",
    "checkpoints.every_steps=0",
    "checkpoints.good_after_steps=1",
)
"""So that a rollback finds the very state to which the recorded one led."""


def replay(folder: Path, launcher: Launcher, history: History, overrides: Sequence[str]) -> None:
    """Perform what is recorded in a folder of its own, until the run is finished."""
    steps = sorted(_replayed(history), key=lambda pair: pair[1].sequence)
    forks = {row.cause: row.fork_step for row in history.timelines}
    with closing(Performance(folder, launcher, (*overrides, *_KEEP_EVERY_STATE))) as performance:
        stage = _Stage(performance, forks)
        for step, group in itertools.groupby(steps, key=lambda pair: (pair[1].timeline, pair[1].global_step)):
            stage.go_to(step[1])
            for command, outcome in group:
                stage.perform(command, outcome)
        performance.until(lambda run: run.run.phase == TRAINER_PHASE_FINISHED)


def _replayed(history: History) -> list[tuple[CommandRow, OutcomeRow]]:
    commands = {row.command_id: row for row in history.commands}
    return [
        (commands[row.command_id], row)
        for row in history.outcomes
        if row.sequence and (row.state == CommandState.APPLIED or row.refusal_reason in _MEASURING)
        and commands[row.command_id].kind not in _LEFT_OUT
        and commands[row.command_id].request_id
    ]  # fmt: skip


class _Stage:
    """A run that stands still but when it is sent on to a step."""

    def __init__(self, performance: Performance, forks: dict[str, int]) -> None:
        self._performance = performance
        self._forks = forks
        self._numbers = itertools.count(1)
        self._emergencies: dict[str, str] = {}
        """Ids of this run's emergencies, by those of the recorded ones."""

    def go_to(self, step: int) -> None:
        """Let the run go on and stand still at a step; nothing when it is there."""
        now = self._performance.look().run.global_step
        assert now <= step, f"the replay is at step {now}, beyond {step}"
        if now < step:
            pause = self._control(pb.RUN_ACTION_PAUSE, step)
            self._performance.settle(self._control(pb.RUN_ACTION_RESUME))
            self._performance.settle(pause)

    def perform(self, command: CommandRow, outcome: OutcomeRow) -> None:
        """Send one recorded command, and see that it comes to the same."""
        if command.kind == "stop":
            self._control(pb.RUN_ACTION_STOP)
            return
        if command.kind == "emergency":
            self._perform_emergency(command)
            return
        message = pb.AdaptationCommand.FromString(command.payload)
        message.ClearField("apply_at")
        message.ClearField("expected_revision")
        if command.kind == "rollback":
            message.rollback.CopyFrom(pb.CommandRollback(global_step=self._forks[command.command_id]))
        self._performance.submit(message.request_id, lambda client: client.submit(message))
        settled = self._performance.settle(message.request_id)
        found = (settled.state, settled.error.reason)
        assert found == (outcome.state, outcome.refusal_reason), f"{command}: {outcome} became {settled}"

    def _perform_emergency(self, command: CommandRow) -> None:
        performance, name = self._performance, command.request_id
        if command.method.endswith("RaiseEmergency"):
            signal = EmergencySignal.FromString(command.payload)
            raised = performance.call(lambda client: client.raise_emergency(signal.level, name, request_id=name))
            self._emergencies[f"e-{command.command_id}"] = raised.emergency.emergency_id
        else:
            payload = ClearEmergencyPayload.FromString(command.payload)
            emergency_id = self._emergencies.get(payload.emergency_id, payload.emergency_id)
            performance.call(lambda client: client.clear_emergency(emergency_id, name, request_id=name))

    def _control(self, action: pb.RunAction, step: int = 0) -> str:
        name = f"replay-{next(self._numbers)}"
        message = pb.AdaptationCommand(request_id=name, reason=name, run_control=pb.CommandRunControl(action=action))
        if step:
            message.apply_at.CopyFrom(pb.ApplyAt(global_step=step))
        self._performance.submit(name, lambda client: client.submit(message))
        return name
