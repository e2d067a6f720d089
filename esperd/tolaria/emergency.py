"""Emergency levels as values: what raises each, what lowers it again (design 02, Budgets, breakers, emergency levels).

Pure functions: an event and the current state in, the new state out; no clock, no I/O. What a level does to the run is
the trainer's affair.

| emergency | raised by | lowered again by |
| --- | --- | --- |
| `budget` | a slow window NOTICE, several in a row ELEVATED | healthy windows in a row, one level at a time |
| `executor` | a fault in carrying out a command ELEVATED | windows in a row without one |
| `loss` | a loss or a weight not finite, high losses in a row CONSERVATIVE | windows in a row with sound losses |
| `policy` | the policy lost CONSERVATIVE | the policy back |
| `checkpoint` | one that could not be written NOTICE | one that was |
| `breaker:<name>` | it opens CONSERVATIVE, turns half-open ELEVATED | it closes |
| `breaker:kernel` | it opens NOTICE: seeds run eager, and that is always right | it turns half-open |
| `rollback` | anomalies that rollbacks do not cure, or a rollback that went wrong HALT | the operator's clear |
| `epochs` | failed epochs in a row HALT | the operator's clear |
| `memory` | a step that does not fit, not even without the newest seed HALT | the operator's clear |
| any other | an operator, any level | the operator's clear |
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from esperd.config.settings import BudgetSettings
from esperd.leyline.views import EmergencyView
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel

ANOMALIES_IN_ROW = 3
"""Anomalous losses in a row that make the run conservative."""

FAILED_EPOCHS_IN_ROW = 3
"""Epochs in a row with an automatic rollback in each that halt it: it goes back more than it goes on."""


STORAGE_BREAKER = "breaker:checkpoint"
"""The emergency of checkpoints that cannot be written."""

KERNEL_BREAKER = "breaker:kernel"
"""The emergency of kernels that fail."""


@dataclass(frozen=True, slots=True)
class WindowMeasured:
    """A window of steps has ended: was it within its time budget, and were its losses sound."""

    is_slow: bool
    is_loss_sound: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LossAnomaly:
    """A loss out of line: `in_row` anomalous ones up to this, of which `non_finite_in_row` not even finite."""

    in_row: int
    non_finite_in_row: int
    detail: str
    grave_in_row: int = 0
    """Those up to this that are not finite, or at which most of what the run has learned is gone."""


@dataclass(frozen=True, slots=True)
class WeightsPoisoned:
    """Parameters are not finite, whatever the loss says."""

    detail: str


@dataclass(frozen=True, slots=True)
class RollbackFailed:
    """The trouble is past what a rollback can cure, or the rollback itself went wrong."""

    detail: str


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch is over; it failed when the run had to go back by itself in it."""

    has_failed: bool


@dataclass(frozen=True, slots=True)
class ExecutorFailed:
    """Carrying out a command met a fault that nobody foresaw."""

    detail: str


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """A checkpoint is durable, or could not be written."""

    is_written: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MemoryExhausted:
    """A step does not fit into the device's memory, not even after the newest seed has gone."""

    detail: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The steering policy came or was lost."""

    is_present: bool
    detail: str
    num_missed: int = 0
    """Decisions it missed in a row, unusable ones among them, when these are why it was lost."""


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A circuit breaker is in a new state."""

    name: str
    state: BreakerState
    detail: str


@dataclass(frozen=True, slots=True)
class OperatorRaised:
    """A principal raises an emergency under an id of its own."""

    emergency_id: str
    level: EmergencyLevel
    principal: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """A principal clears an emergency, whoever raised it."""

    emergency_id: str


EmergencyEvent = (
    WindowMeasured
    | LossAnomaly
    | WeightsPoisoned
    | RollbackFailed
    | EpochEnded
    | ExecutorFailed
    | CheckpointWritten
    | MemoryExhausted
    | PolicyChanged
    | BreakerChanged
    | OperatorRaised
    | Cleared
)


@dataclass(frozen=True, slots=True)
class EmergencyState:
    """Every raised emergency by id, and the counts that lead up and down."""

    emergencies: Mapping[str, EmergencyView] = field(default_factory=lambda: MappingProxyType({}))
    slow_in_row: int = 0
    fast_in_row: int = 0
    sound_in_row: int = 0
    calm_in_row: int = 0
    """Windows since the executor's last fault."""
    failed_epochs_in_row: int = 0

    @property
    def level(self) -> EmergencyLevel:
        """The highest level raised."""
        return max((e.level for e in self.emergencies.values()), default=EmergencyLevel.UNSPECIFIED)

    @property
    def training_level(self) -> EmergencyLevel:
        """The highest level raised by anything but storage.

        Checkpoints are written beside training, so how that goes is known at one step or another; it may not decide
        what is computed, or a run would not repeat.
        """
        views = self.emergencies.values()
        return max((e.level for e in views if e.emergency_id != STORAGE_BREAKER), default=EmergencyLevel.UNSPECIFIED)

    @property
    def cause(self) -> str:
        """The reasons of the highest level, in one line."""
        level = self.level
        return "; ".join(e.reason for e in self.emergencies.values() if e.level is level)


def wants_emergency_checkpoint(before: EmergencyLevel, after: EmergencyLevel) -> bool:
    """Whether the state must be saved now: once for each rise to CONSERVATIVE or HALT."""
    return after > before and after >= EmergencyLevel.CONSERVATIVE


def advance(
    state: EmergencyState, event: EmergencyEvent, budgets: BudgetSettings, step: int, unix_s: float
) -> EmergencyState:
    """The state after one event."""
    at = (step, unix_s)
    match event:
        case WindowMeasured():
            return _after_window(state, event, budgets, at)
        case LossAnomaly() | WeightsPoisoned():
            return _after_anomaly(state, event, at)
        case EpochEnded(has_failed):
            return _after_epoch(state, at, has_failed=has_failed)
        case RollbackFailed(detail):
            return _with(state, "rollback", EmergencyLevel.HALT, detail, "rollback", at)
        case MemoryExhausted(detail):
            return _with(state, "memory", EmergencyLevel.HALT, detail, "memory", at)
        case ExecutorFailed(detail):
            return _with(replace(state, calm_in_row=0), "executor", EmergencyLevel.ELEVATED, detail, "executor", at)
        case CheckpointWritten(is_written, detail):
            if is_written:
                return _without(state, "checkpoint")
            return _with(state, "checkpoint", EmergencyLevel.NOTICE, detail, "checkpoint", at)
        case PolicyChanged(is_present, detail):
            if is_present:
                return _without(state, "policy")
            return _with(state, "policy", EmergencyLevel.CONSERVATIVE, f"no policy steers: {detail}", "policy", at)
        case BreakerChanged(name, breaker_state, detail):
            key = f"breaker:{name}"
            levels = _KERNEL_LEVELS if key == KERNEL_BREAKER else _BREAKER_LEVELS
            if breaker_state not in levels:
                return _without(state, key)
            reason = f"breaker {name} is {breaker_state.name}: {detail}"
            return _with(state, key, levels[breaker_state], reason, key, at)
        case OperatorRaised(emergency_id, level, principal, detail):
            return _with(state, emergency_id, level, detail or "raised by hand", principal, at)
        case Cleared(emergency_id):
            return _reset_counts(_without(state, emergency_id), emergency_id)


_BREAKER_LEVELS = {BreakerState.OPEN: EmergencyLevel.CONSERVATIVE, BreakerState.HALF_OPEN: EmergencyLevel.ELEVATED}

_KERNEL_LEVELS = {BreakerState.OPEN: EmergencyLevel.NOTICE}

_At = tuple[int, float]
"""(step, Unix seconds)."""


def _after_window(state: EmergencyState, event: WindowMeasured, budgets: BudgetSettings, at: _At) -> EmergencyState:
    state = replace(
        state,
        slow_in_row=state.slow_in_row + 1 if event.is_slow else 0,
        fast_in_row=0 if event.is_slow else state.fast_in_row + 1,
        sound_in_row=state.sound_in_row + 1 if event.is_loss_sound else 0,
        calm_in_row=state.calm_in_row + 1,
    )
    state = _after_budget(state, event, budgets, at)
    if state.sound_in_row >= budgets.healthy_windows_to_clear:
        state = _without(state, "loss")
    if state.calm_in_row >= budgets.healthy_windows_to_clear:
        state = _without(state, "executor")
    return state


def _after_budget(state: EmergencyState, event: WindowMeasured, budgets: BudgetSettings, at: _At) -> EmergencyState:
    raised = state.emergencies.get("budget")
    if event.is_slow:
        elevated = state.slow_in_row >= budgets.misses_to_elevate
        level = EmergencyLevel.ELEVATED if elevated else EmergencyLevel.NOTICE
        if raised is None or level > raised.level:
            state = _with(state, "budget", level, event.detail, "budget", at)
    elif raised is not None and state.fast_in_row >= budgets.healthy_windows_to_clear:
        state = replace(state, fast_in_row=0)
        if raised.level is EmergencyLevel.ELEVATED:
            state = _with(state, "budget", EmergencyLevel.NOTICE, "recovering", "budget", at)
        else:
            state = _without(state, "budget")
    return state


def _after_anomaly(state: EmergencyState, event: LossAnomaly | WeightsPoisoned, at: _At) -> EmergencyState:
    state = replace(state, sound_in_row=0)
    is_grave = isinstance(event, WeightsPoisoned) or event.non_finite_in_row > 0 or event.in_row >= ANOMALIES_IN_ROW
    if not is_grave or "loss" in state.emergencies:
        return state
    return _with(state, "loss", EmergencyLevel.CONSERVATIVE, event.detail, "loss", at)


def _after_epoch(state: EmergencyState, at: _At, *, has_failed: bool) -> EmergencyState:
    in_row = state.failed_epochs_in_row + 1 if has_failed else 0
    state = replace(state, failed_epochs_in_row=in_row)
    if in_row < FAILED_EPOCHS_IN_ROW:
        return state
    reason = f"{in_row} epochs in a row in which the run had to go back"
    return _with(state, "epochs", EmergencyLevel.HALT, reason, "epochs", at)


def _with(state: EmergencyState, key: str, level: EmergencyLevel, reason: str, origin: str, at: _At) -> EmergencyState:
    step, unix_s = at
    view = EmergencyView(key, level, reason, origin, step, unix_s)
    return replace(state, emergencies=MappingProxyType({**state.emergencies, key: view}))


def _without(state: EmergencyState, key: str) -> EmergencyState:
    if key not in state.emergencies:
        return state
    rest = {name: view for name, view in state.emergencies.items() if name != key}
    return replace(state, emergencies=MappingProxyType(rest))


def _reset_counts(state: EmergencyState, key: str) -> EmergencyState:
    match key:
        case "budget":
            return replace(state, slow_in_row=0)
        case "epochs":
            return replace(state, failed_epochs_in_row=0)
        case _:
            return state


def without_checkpoint_trouble(state: EmergencyState) -> EmergencyState:
    """The state without what was raised because checkpoints could not be written."""
    return _without(_without(state, "checkpoint"), STORAGE_BREAKER)


# As plain values, for a checkpoint


def to_plain(state: EmergencyState) -> dict[str, Any]:
    """The state as plain values."""
    return {
        "emergencies": [{**asdict(view), "level": int(view.level)} for view in state.emergencies.values()],
        **{name: getattr(state, name) for name in _COUNTS},
    }


def from_plain(plain: Mapping[str, Any]) -> EmergencyState:
    """The state that `to_plain` was given."""
    views = [EmergencyView(**{**view, "level": EmergencyLevel(view["level"])}) for view in plain["emergencies"]]
    emergencies = MappingProxyType({view.emergency_id: view for view in views})
    return EmergencyState(emergencies, **{name: plain[name] for name in _COUNTS})


_COUNTS = ("slow_in_row", "fast_in_row", "sound_in_row", "calm_in_row", "failed_epochs_in_row")
