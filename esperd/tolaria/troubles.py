"""What the trainer does about losses out of line, weights that are not finite, and faults of commands.

Training thread only. The rule is pure (`recovery.py`); here it meets the losses of the run, its emergencies and its
rollback. What is decided in the middle of a step is carried out at its safe point.
"""

from esperd.leyline.commands import Command
from esperd.tolaria.emergency import ExecutorFailed, LossAnomaly, RollbackFailed, WeightsPoisoned
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.parts import Parts
from esperd.tolaria.recovery import Action, Answer
from esperd.tolaria.rollback import Rollback
from esperd.tolaria.task import describe, user_traceback


class Troubles:
    """Sees every loss."""

    def __init__(self, parts: Parts, keeper: Keeper) -> None:
        self._parts = parts
        self._keeper = keeper
        self._recovery = parts.recovery
        self._action: Action | None = None
        self.is_loss_sound = True
        """No loss of the current window was out of line; the trainer sets it back."""

    @property
    def wants_action(self) -> bool:
        """Whether the safe point has something to carry out."""
        return self._action is not None

    def see_loss(self, value: float) -> LossAnomaly | None:
        """Take in one loss; the anomaly if it is one."""
        parts = self._parts
        parts.telemetry.loss = value
        anomaly = parts.loss_window.see(value)
        if anomaly is not None:
            self._answer(anomaly)
        return anomaly

    def act(self, rollback: Rollback) -> None:
        """Carry out what the rule has decided."""
        action, self._action = self._action, None
        assert action is not None  # the caller has looked
        if rollback.is_under_way:
            return
        step = self._parts.progress.global_step
        self._parts.note(f"recovery.{action.answer.value}", action.detail, "error", cause=action.cause)
        if action.answer is Answer.ROLLBACK:
            rollback.recover(action)
        else:
            self._parts.note_change(self._parts.safety.handle(RollbackFailed(action.detail), step))

    def weights_are_poisoned(self) -> None:
        """The weights are not finite, whatever the loss says: the rule decides."""
        self._keeper.spoil()
        self._parts.note_change(self._parts.safety.handle(WeightsPoisoned("parameters are not finite"), self._step()))
        self._take(self._recovery.poisoned(self._step(), has_good_state=self._keeper.has_good_state))

    def epoch_ended(self) -> bool:
        """Whether the run had to go back in the epoch that is over."""
        return self._recovery.epoch_ended()

    def fault(self, command: Command, error: Exception) -> None:
        """A command met a fault of ours, or of a seed."""
        kind = type(command.payload).__name__
        text = f"{kind} {command.command_id} met a fault: {describe(error)}"
        self._parts.note("command.failed", text, "error", traceback=user_traceback(error))
        self._parts.safety.handle(ExecutorFailed(describe(error)), self._step())

    def diverged(self, command: Command, detail: str) -> None:
        """A command of the journal did not do again what it had done."""
        text = f"{type(command.payload).__name__} {command.command_id} did not do again what it had done: {detail}"
        self._parts.note("replay.diverged", text, "critical", command_id=command.command_id)

    def _answer(self, anomaly: LossAnomaly) -> None:
        self.is_loss_sound = False
        self._keeper.spoil()
        step = self._step()
        self._parts.note_change(self._parts.safety.handle(anomaly, step))
        self._take(self._recovery.anomaly(anomaly, step, has_good_state=self._keeper.has_good_state))

    def _take(self, action: Action) -> None:
        if action.answer in (Answer.ROLLBACK, Answer.HALT):
            self._action = action

    def _step(self) -> int:
        return self._parts.progress.global_step
