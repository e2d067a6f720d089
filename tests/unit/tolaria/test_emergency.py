"""Every emergency level's way up and way down, as pure functions."""

import json

import pytest

from esperd.config.settings import BudgetSettings
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel
from esperd.tolaria.emergency import (
    BreakerChanged,
    CheckpointWritten,
    Cleared,
    EmergencyEvent,
    EmergencyState,
    EpochEnded,
    ExecutorFailed,
    LossAnomaly,
    MemoryExhausted,
    OperatorRaised,
    PolicyChanged,
    RollbackFailed,
    WeightsPoisoned,
    WindowMeasured,
    advance,
    from_plain,
    to_plain,
    wants_emergency_checkpoint,
)

BUDGETS = BudgetSettings(misses_to_elevate=3, healthy_windows_to_clear=2)
SLOW = WindowMeasured(True, True, "slow")
FINE = WindowMeasured(False, True)
UNSOUND = WindowMeasured(False, False)
CLEAR, NOTICE, ELEVATED, CONSERVATIVE, HALT = EmergencyLevel


def after(*events: EmergencyEvent, state: EmergencyState | None = None) -> EmergencyState:
    state = EmergencyState() if state is None else state
    for step, event in enumerate(events):
        state = advance(state, event, BUDGETS, step, 0.0)
    return state


def levels(*events: EmergencyEvent) -> list[EmergencyLevel]:
    """The level after each event."""
    return [after(*events[: i + 1]).level for i in range(len(events))]


def test_slow_windows_raise_notice_then_elevated_and_healthy_ones_lower_step_by_step():
    """L1 on the first miss, L2 on the third in a row; two healthy windows lower by one level."""
    assert levels(SLOW, SLOW, SLOW) == [NOTICE, NOTICE, ELEVATED]
    assert levels(SLOW, SLOW, SLOW, FINE, FINE, FINE, FINE)[3:] == [ELEVATED, NOTICE, NOTICE, CLEAR]


def test_a_slow_window_between_healthy_ones_starts_the_count_again():
    """Only healthy windows in a row lower a level, only slow ones in a row raise it."""
    assert levels(SLOW, FINE, SLOW, FINE, SLOW) == [NOTICE] * 5
    assert after(SLOW, FINE, SLOW, FINE, FINE).level is CLEAR


def test_three_anomalous_losses_in_a_row_make_the_run_conservative_and_sound_windows_heal_it():
    """L3 by the loss rule, down after healthy windows."""
    anomalies = [LossAnomaly(n, 0, "high") for n in (1, 2, 3)]
    assert levels(*anomalies) == [CLEAR, CLEAR, CONSERVATIVE]
    assert levels(*anomalies, UNSOUND, FINE, FINE)[3:] == [CONSERVATIVE, CONSERVATIVE, CLEAR]


def test_one_non_finite_loss_makes_the_run_conservative_at_once():
    """And weights that are not finite as well, whatever the loss is."""
    for event in (LossAnomaly(1, 1, "nan"), WeightsPoisoned("inf")):
        raised = after(event)
        assert raised.level is CONSERVATIVE
        assert after(FINE, FINE, state=raised).level is CLEAR


@pytest.mark.parametrize(
    ("key", "event"),
    [
        ("rollback", RollbackFailed("3 rollbacks did not cure it")),
        ("memory", MemoryExhausted("out of memory")),
    ],
)
def test_what_nothing_cures_halts_until_an_operator_clears_it(key: str, event: EmergencyEvent):
    """Neither healthy windows nor a healthy epoch lower a halt."""
    halted = after(event)
    assert halted.level is HALT
    assert after(*[FINE] * 10, EpochEnded(False), state=halted).level is HALT
    assert after(Cleared(key), state=halted).level is CLEAR


def test_failed_epochs_in_a_row_halt_and_a_sound_one_ends_the_row():
    """An epoch in which the run had to go back is a failed one; after the clear the count begins anew."""
    failed, sound = EpochEnded(True), EpochEnded(False)
    assert levels(failed, failed, sound, failed, failed, failed) == [CLEAR] * 5 + [HALT]
    cleared = after(Cleared("epochs"), state=after(failed, failed, failed))
    assert cleared.level is CLEAR
    assert after(failed, failed, state=cleared).level is CLEAR


def test_a_fault_of_the_executor_elevates_and_windows_without_one_lower_it():
    """A fault in between starts the count anew."""
    fault = ExecutorFailed("KeyError")
    assert levels(fault, FINE, fault, FINE, FINE) == [ELEVATED] * 4 + [CLEAR]


def test_a_checkpoint_that_was_not_written_is_a_notice_until_one_is():
    """Time alone does not lower it."""
    raised = after(CheckpointWritten(False, "disk full"))
    assert raised.level is NOTICE
    assert after(*[FINE] * 10, state=raised).level is NOTICE
    assert after(CheckpointWritten(True), state=raised).level is CLEAR


def test_only_a_rise_to_conservative_or_halt_asks_for_a_checkpoint():
    """Once for each rise, never on the way down."""
    wishes = [(a, b) for a in EmergencyLevel for b in EmergencyLevel if wants_emergency_checkpoint(a, b)]
    assert wishes == [(a, b) for a in EmergencyLevel for b in (CONSERVATIVE, HALT) if b > a]


def test_a_state_survives_as_plain_values():
    """Every emergency and every count comes back from JSON."""
    state = after(SLOW, SLOW, FINE, EpochEnded(True), OperatorRaised("drill", ELEVATED, "alice", "x"), SLOW)
    assert from_plain(json.loads(json.dumps(to_plain(state)))) == state


def test_a_lost_policy_holds_until_a_policy_returns():
    """Time alone does not bring it back."""
    lost = after(PolicyChanged(False, "lease lost"))
    assert lost.level is CONSERVATIVE
    assert "lease lost" in lost.cause
    assert after(*[FINE] * 10, state=lost).level is CONSERVATIVE
    assert after(PolicyChanged(True, ""), state=lost).level is CLEAR


def test_a_breaker_goes_down_by_way_of_half_open():
    """Open is conservative, half-open elevated, closed clear."""
    states = [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
    assert levels(*(BreakerChanged("isolation", s, "") for s in states)) == [CONSERVATIVE, ELEVATED, CLEAR]


@pytest.mark.parametrize("level", [NOTICE, ELEVATED, CONSERVATIVE, HALT])
def test_an_operator_raises_and_clears_any_level(level: EmergencyLevel):
    """It stays until it is cleared by its id."""
    raised = after(OperatorRaised("drill", level, "alice", ""))
    assert raised.level is level
    assert after(*[FINE] * 10, state=raised).level is level
    assert after(Cleared("drill"), state=raised).level is CLEAR


def test_the_level_is_the_highest_of_all_and_causes_are_told():
    """Clearing one leaves the others."""
    state = after(PolicyChanged(False, "gone"), OperatorRaised("drill", HALT, "alice", "fire drill"), SLOW)
    assert state.level is HALT
    assert state.cause == "fire drill"
    assert after(Cleared("drill"), state=state).level is CONSERVATIVE
