"""What the run does about losses out of line and weights that are not finite: nothing, skip, go back, or halt.

Pure rule over frozen values: no clock, no I/O, no torch; what it answers is carried out by the trainer, at the safe
point. The ladder counts steps only, so that the same run takes it the same way again.

| seen | answer |
| --- | --- |
| a single loss that is not finite | its step is left out; the run is conservative until it is healthy |
| ANOMALIES_IN_ROW losses too high or not finite, or a weight that is not finite | back to the newest good state |
| again, not later than it was seen first (and a window) | back once more, with the data in between left out |
| again, or more rollbacks than are allowed without a good state past the trouble | halt |
| no good state to go back to | halt if the loss or the weights are not finite, else go on being conservative |

Design 02 wants non-finite losses answered "at once"; for a single one leaving its step out is that answer. The weights
have not met it, and a rollback would only bring the run before the same batch again. That the data at which the loss
blew up be left out the second time is from Chowdhery et al. 2022 (PaLM, section 5.1, Training Instability): the same
batches did no harm from another state, so that leaving them out is enough.
"""

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from esperd.tolaria.emergency import ANOMALIES_IN_ROW, LossAnomaly

LOSS_ANOMALY = "loss_anomaly"
NON_FINITE = "non_finite"
POISONED = "poisoned_weights"
"""Causes of automatic rollbacks; they go into the timeline."""


class Answer(enum.Enum):
    """What the trainer is to do."""

    NONE = "none"
    SKIP_STEP = "skip_step"
    """Leave the step out: no update of the weights."""
    ROLLBACK = "rollback"
    """Go back to the newest good state."""
    HALT = "halt"
    """Stand still until an operator clears it."""


@dataclass(frozen=True, slots=True)
class Action:
    """What to do, and why."""

    answer: Answer
    cause: str = ""
    """LOSS_ANOMALY, NON_FINITE or POISONED."""
    detail: str = ""
    """The same in a sentence."""
    leaves_out_data: bool = False
    """Of a rollback: go on with the data after those at which the trouble was, not with those before it."""


@dataclass(frozen=True, slots=True)
class RecoveryRule:
    """How much is tried."""

    max_rollbacks: int
    """Rollbacks without a good state past the trouble between them, at most."""
    window_steps: int
    """Trouble that comes back within so many steps after where it was first is the same trouble."""


@dataclass(frozen=True, slots=True)
class RecoveryState:
    """How far up the ladder the run is."""

    trouble_step: int = -1
    """The step of the trouble that the run has gone back from; -1 while there is none."""
    has_left_out: bool = False
    """Data have been left out already on account of it."""
    num_rollbacks: int = 0
    """Since the last good state past a trouble."""
    has_epoch_failed: bool = False
    """The run had to go back in this epoch."""


class Recovery:
    """The rule with its state. Tell it every anomaly, every state that has become good, and every epoch's end."""

    def __init__(self, rule: RecoveryRule) -> None:
        self._rule = rule
        self.state = RecoveryState()

    def anomaly(self, anomaly: LossAnomaly, step: int, *, has_good_state: bool) -> Action:
        """Answer a loss out of line at a step; `has_good_state`: there is one to go back to."""
        is_finite = anomaly.non_finite_in_row == 0
        cause = LOSS_ANOMALY if is_finite else NON_FINITE
        if anomaly.grave_in_row < ANOMALIES_IN_ROW:
            return Action(Answer.NONE if is_finite else Answer.SKIP_STEP, cause, anomaly.detail)
        return self._grave(cause, anomaly.detail, step, has_good_state=has_good_state)

    def poisoned(self, step: int, *, has_good_state: bool) -> Action:
        """Answer weights that are not finite, whatever the loss says: nothing but an earlier state mends them."""
        return self._grave(POISONED, "parameters are not finite", step, has_good_state=has_good_state)

    def good_state(self, step: int) -> None:
        """A state of this step has become good; one past the trouble shows that the trouble is over."""
        if step > self.state.trouble_step:
            self.state = replace(self.state, trouble_step=-1, has_left_out=False, num_rollbacks=0)

    def rollback_failed(self, detail: str) -> Action:
        """Answer a rollback that missed its deadline or could not be done."""
        self._begin_anew()
        return Action(Answer.HALT, "rollback_failed", detail)

    def epoch_ended(self) -> bool:
        """Whether the epoch that is over has failed, and begin the next."""
        has_failed = self.state.has_epoch_failed
        self.state = replace(self.state, has_epoch_failed=False)
        return has_failed

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly: for the resume of a run, never for a rollback, which must not forget itself."""
        self.state = RecoveryState(**state)

    def _grave(self, cause: str, detail: str, step: int, *, has_good_state: bool) -> Action:
        state = self.state
        if not has_good_state:
            return self._halt(cause, f"{detail}, and there is no good state to go back to")
        if state.num_rollbacks >= self._rule.max_rollbacks:
            return self._halt(cause, f"{detail}: {state.num_rollbacks} rollbacks did not cure it")
        is_again = state.trouble_step >= 0 and step <= state.trouble_step + self._rule.window_steps
        if is_again and state.has_left_out:
            return self._halt(cause, f"{detail}: rollback did not cure it, not even without the data of that time")
        trouble_step = max(state.trouble_step, step) if is_again else step
        self.state = RecoveryState(trouble_step, is_again, state.num_rollbacks + 1, has_epoch_failed=True)
        return Action(Answer.ROLLBACK, cause, detail, leaves_out_data=is_again)

    def _halt(self, cause: str, detail: str) -> Action:
        if cause == LOSS_ANOMALY:
            return Action(Answer.NONE, cause, detail)
        self._begin_anew()
        return Action(Answer.HALT, cause, detail)

    def _begin_anew(self) -> None:
        """Whoever clears the halt has looked at the run: the ladder begins at its foot."""
        self.state = RecoveryState(has_epoch_failed=self.state.has_epoch_failed)
