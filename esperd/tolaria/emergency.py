"""Emergency levels as values: what raises each, what lowers it again (design 02, Budgets, breakers, emergency levels).

Pure functions: an event and the current state in, the new state out; no clock, no I/O. What a level does to the run is
the trainer's affair.

| event | raises | lowered again by |
| --- | --- | --- |
| a slow window | NOTICE, several in a row ELEVATED | healthy windows in a row, one level at a time |
| a loss beyond mean + 6 sigma and 3x mean, three in a row | CONSERVATIVE | healthy windows in a row |
| a non-finite loss | CONSERVATIVE, many in a row HALT | healthy windows in a row; HALT by an operator only |
| the policy lost | CONSERVATIVE | the policy back |
| a breaker open | CONSERVATIVE, half-open ELEVATED | the breaker closed |
| an operator | any | the operator's clear |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from esperd.config.settings import BudgetSettings
from esperd.leyline.views import EmergencyView
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel

ANOMALIES_IN_ROW = 3
"""Anomalous losses in a row that make the run conservative."""

NON_FINITE_TO_HALT = 10
"""Non-finite losses in a row that halt it: the weights are past saving by skipping steps."""


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


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The steering policy came or was lost."""

    is_present: bool
    detail: str


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


EmergencyEvent = WindowMeasured | LossAnomaly | PolicyChanged | BreakerChanged | OperatorRaised | Cleared


@dataclass(frozen=True, slots=True)
class EmergencyState:
    """Every raised emergency by id, and the counts that lead up and down."""

    emergencies: Mapping[str, EmergencyView] = field(default_factory=lambda: MappingProxyType({}))
    slow_in_row: int = 0
    fast_in_row: int = 0
    sound_in_row: int = 0

    @property
    def level(self) -> EmergencyLevel:
        """The highest level raised."""
        return max((e.level for e in self.emergencies.values()), default=EmergencyLevel.UNSPECIFIED)

    @property
    def cause(self) -> str:
        """The reasons of the highest level, in one line."""
        level = self.level
        return "; ".join(e.reason for e in self.emergencies.values() if e.level is level)


def advance(
    state: EmergencyState, event: EmergencyEvent, budgets: BudgetSettings, step: int, unix_s: float
) -> EmergencyState:
    """The state after one event."""
    match event:
        case WindowMeasured():
            return _after_window(state, event, budgets, step, unix_s)
        case LossAnomaly():
            return _after_anomaly(state, event, step, unix_s)
        case PolicyChanged(is_present, detail):
            if is_present:
                return _without(state, "policy")
            reason = f"no policy steers: {detail}"
            return _with(state, "policy", EmergencyLevel.CONSERVATIVE, reason, "policy", step, unix_s)
        case BreakerChanged(name, breaker_state, detail):
            key = f"breaker:{name}"
            if breaker_state not in _BREAKER_LEVELS:
                return _without(state, key)
            reason = f"breaker {name} is {breaker_state.name}: {detail}"
            return _with(state, key, _BREAKER_LEVELS[breaker_state], reason, key, step, unix_s)
        case OperatorRaised(emergency_id, level, principal, detail):
            return _with(state, emergency_id, level, detail or "raised by hand", principal, step, unix_s)
        case Cleared(emergency_id):
            return _reset_counts(_without(state, emergency_id), emergency_id)


_BREAKER_LEVELS = {BreakerState.OPEN: EmergencyLevel.CONSERVATIVE, BreakerState.HALF_OPEN: EmergencyLevel.ELEVATED}


def _after_window(
    state: EmergencyState, event: WindowMeasured, budgets: BudgetSettings, step: int, unix_s: float
) -> EmergencyState:
    state = replace(
        state,
        slow_in_row=state.slow_in_row + 1 if event.is_slow else 0,
        fast_in_row=0 if event.is_slow else state.fast_in_row + 1,
        sound_in_row=state.sound_in_row + 1 if event.is_loss_sound else 0,
    )
    raised = state.emergencies.get("budget")
    if event.is_slow:
        elevated = state.slow_in_row >= budgets.misses_to_elevate
        level = EmergencyLevel.ELEVATED if elevated else EmergencyLevel.NOTICE
        if raised is None or level > raised.level:
            state = _with(state, "budget", level, event.detail, "budget", step, unix_s)
    elif raised is not None and state.fast_in_row >= budgets.healthy_windows_to_clear:
        state = replace(state, fast_in_row=0)
        if raised.level is EmergencyLevel.ELEVATED:
            state = _with(state, "budget", EmergencyLevel.NOTICE, "recovering", "budget", step, unix_s)
        else:
            state = _without(state, "budget")
    loss = state.emergencies.get("loss")
    healed = state.sound_in_row >= budgets.healthy_windows_to_clear
    if healed and loss is not None and loss.level < EmergencyLevel.HALT:
        state = _without(state, "loss")
    return state


def _after_anomaly(state: EmergencyState, event: LossAnomaly, step: int, unix_s: float) -> EmergencyState:
    state = replace(state, sound_in_row=0)
    if event.non_finite_in_row >= NON_FINITE_TO_HALT:
        level = EmergencyLevel.HALT
    elif event.non_finite_in_row > 0 or event.in_row >= ANOMALIES_IN_ROW:
        level = EmergencyLevel.CONSERVATIVE
    else:
        return state
    raised = state.emergencies.get("loss")
    if raised is not None and raised.level >= level:
        return state
    return _with(state, "loss", level, event.detail, "loss", step, unix_s)


def _with(
    state: EmergencyState, key: str, level: EmergencyLevel, reason: str, origin: str, step: int, unix_s: float
) -> EmergencyState:
    view = EmergencyView(key, level, reason, origin, step, unix_s)
    return replace(state, emergencies=MappingProxyType({**state.emergencies, key: view}))


def _without(state: EmergencyState, key: str) -> EmergencyState:
    if key not in state.emergencies:
        return state
    rest = {name: view for name, view in state.emergencies.items() if name != key}
    return replace(state, emergencies=MappingProxyType(rest))


def _reset_counts(state: EmergencyState, key: str) -> EmergencyState:
    return replace(state, slow_in_row=0) if key == "budget" else state
