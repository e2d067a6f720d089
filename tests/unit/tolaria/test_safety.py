"""Emergencies and breakers together: what each failure does to the level, what it holds, and the whole way back."""

import json
from typing import Any

import pytest

from esperd.config.settings import BudgetSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel
from esperd.tolaria.emergency import (
    CheckpointWritten,
    EmergencyEvent,
    ExecutorFailed,
    LossAnomaly,
    MemoryExhausted,
    OperatorRaised,
    PolicyChanged,
    RollbackFailed,
    WindowMeasured,
)
from esperd.tolaria.safety import TICK_STEPS, Safety

CLEAR, NOTICE, ELEVATED, CONSERVATIVE, HALT = EmergencyLevel
_, CLOSED, OPEN, HALF_OPEN = BreakerState
FULL = CheckpointWritten(False, "no space left")
WRITTEN = CheckpointWritten(True)


class Held:
    """What the executor is told."""

    def __init__(self) -> None:
        self.cause = ""
        self.candidates = False

    def hold(self, cause: str, *, candidates: bool) -> None:
        self.cause, self.candidates = cause, candidates

    def release(self) -> None:
        self.cause, self.candidates = "", False


class Stand:
    """A safety with what it tells."""

    def __init__(self, **budgets: Any) -> None:
        self.executor = Held()
        self.told: list[NoticeEvent] = []
        settings = BudgetSettings(healthy_windows_to_clear=2, **budgets)
        self.safety = Safety(settings, self.executor, self.told.append, lambda: 7.0)

    def levels(self, *events: EmergencyEvent, step: int = 0) -> list[EmergencyLevel]:
        """The level after each event, one step apart."""
        found = []
        for number, event in enumerate(events):
            self.safety.handle(event, step + number)
            found.append(self.safety.level)
        return found

    def breaker(self, name: str) -> BreakerState:
        return self.safety.breakers[name].state


def test_checkpoints_that_fail_open_their_breaker_and_the_next_one_is_the_probe():
    """L1, L1, then L3 with the breaker open; the next scheduled one probes under L2; a written one clears it all."""
    stand = Stand()
    safety = stand.safety
    assert stand.levels(FULL, FULL, FULL) == [NOTICE, NOTICE, CONSERVATIVE]
    assert stand.breaker("checkpoint") is OPEN
    assert safety.admits_checkpoint(500)
    assert (stand.breaker("checkpoint"), safety.level) == (HALF_OPEN, ELEVATED)
    assert stand.levels(FULL) == [CONSERVATIVE]
    assert safety.admits_checkpoint(1000)
    assert stand.levels(WRITTEN) == [CLEAR]
    assert stand.breaker("checkpoint") is CLOSED


def test_failures_of_checkpoints_add_up_until_one_is_written_however_far_apart():
    """They are tried too seldom to be counted in steps."""
    stand = Stand()
    for step in (500, 50_000):
        stand.safety.handle(FULL, step)
    assert stand.breaker("checkpoint") is CLOSED
    stand.safety.handle(WRITTEN, 60_000)
    assert stand.safety.level is CLEAR
    for step in (70_000, 80_000):
        stand.safety.handle(FULL, step)
    assert stand.breaker("checkpoint") is CLOSED


def test_an_operator_who_holds_the_breaker_open_stops_scheduled_checkpoints():
    """No probe, and no success of another checkpoint, closes it; his closing does."""
    safety = (stand := Stand()).safety
    safety.set_breaker("checkpoint", OPEN, 10, "alice")
    assert not safety.admits_checkpoint(500)
    assert stand.levels(WRITTEN) == [CONSERVATIVE]
    safety.set_breaker("checkpoint", CLOSED, 600, "alice")
    assert safety.admits_checkpoint(1000)
    assert safety.level is CLEAR


def test_trouble_with_storage_bars_new_seeds_and_nothing_else():
    """When a write fails is no function of the step, so it may not decide what live seeds do, nor ask for a write."""
    stand = Stand()
    stand.levels(FULL, FULL, FULL)
    assert "breaker checkpoint is OPEN" in stand.executor.cause
    assert not stand.executor.candidates
    assert not stand.safety.take_checkpoint_wish()
    stand.levels(LossAnomaly(1, 1, "nan"))
    assert stand.executor.candidates
    assert stand.safety.take_checkpoint_wish()


@pytest.mark.parametrize(
    ("name", "failure"),
    [("executor", ExecutorFailed("KeyError")), ("policy", PolicyChanged(False, "missed deadlines", 3))],
)
def test_a_breaker_opens_turns_half_open_and_closes_by_steps(name: str, failure: EmergencyEvent):
    """Three failures open it; it heals at multiples of the tick only; one failure while half-open opens it again."""
    stand = Stand()
    safety = stand.safety
    stand.levels(failure, failure, step=101)
    assert stand.breaker(name) is CLOSED
    stand.levels(failure, step=103)
    assert (stand.breaker(name), safety.level) == (OPEN, CONSERVATIVE)
    assert safety.tick_due_step == 110

    def when(state: BreakerState, step: int) -> int:
        while stand.breaker(name) is not state:
            step += 1
            safety.tick(step)
        return step

    assert when(HALF_OPEN, 103) == 310
    stand.levels(failure, step=400)
    assert stand.breaker(name) is OPEN
    assert when(HALF_OPEN, 400) == 600
    assert when(CLOSED, 600) == 800
    assert safety.tick_due_step > 10**9


def test_a_policy_that_merely_leaves_does_not_count_against_its_breaker():
    """A restart is no fault; only decisions that did not come or could not be used are."""
    stand = Stand()
    stand.levels(*[PolicyChanged(False, "left"), PolicyChanged(True, "back")] * 5)
    assert stand.breaker("policy") is CLOSED
    assert stand.safety.level is CLEAR


def test_a_fault_of_the_executor_elevates_at_once():
    """L2 by the first, down by windows without one."""
    fine = WindowMeasured(False, True)
    assert Stand().levels(ExecutorFailed("KeyError"), fine, fine) == [ELEVATED, ELEVATED, CLEAR]


def test_each_rise_asks_for_one_checkpoint():
    """To L3, then to L4; not again on the way down, nor while it stays."""
    safety = (stand := Stand()).safety
    wishes = []
    for event in (
        PolicyChanged(False, "gone"),
        LossAnomaly(1, 1, "nan"),
        RollbackFailed("not cured"),
        MemoryExhausted("full"),
    ):
        stand.levels(event)
        wishes.append(safety.take_checkpoint_wish())
    assert wishes == [True, False, True, False]
    safety.clear("memory", 5)
    safety.clear("rollback", 5)
    assert not safety.take_checkpoint_wish()


def test_everything_raised_and_cleared_is_told_with_its_level():
    """One notice each, in words and as attributes."""
    stand = Stand()
    stand.levels(RollbackFailed("not cured"))
    stand.safety.clear("rollback", 9)
    raised, cleared = stand.told
    assert (raised.kind, raised.level, raised.message) == ("emergency.raised", "critical", "HALT: not cured")
    assert (cleared.kind, cleared.level, cleared.global_step) == ("emergency.cleared", "info", 9)
    with pytest.raises(EsperdError, match="E-RUN-004"):
        stand.safety.clear("rollback", 9)


def test_a_rollback_forgets_nothing_and_leaves_no_date_in_the_future():
    """The executor, restored as it was, is held again; open breakers heal in as many steps as before."""
    stand = Stand()
    stand.levels(*[ExecutorFailed("KeyError")] * 3, step=500)
    stand.executor.release()
    stand.safety.went_back(100)
    assert stand.executor.cause
    assert stand.safety.level is CONSERVATIVE
    assert stand.safety.tick_due_step == 100 + TICK_STEPS
    stand.safety.tick(300)
    assert stand.breaker("executor") is HALF_OPEN


def test_a_resumed_safety_goes_on_exactly():
    """Levels, counts, breakers, dates and what is held come back through JSON."""
    before = Stand()
    before.levels(*[ExecutorFailed("KeyError")] * 3, PolicyChanged(False, "left"), WindowMeasured(False, True), step=95)
    before.safety.set_breaker("isolation", OPEN, 99, "alice")
    after = Stand()
    after.safety.load_state_dict(json.loads(json.dumps(before.safety.state_dict())), 99)
    assert after.safety.state == before.safety.state
    assert after.safety.breakers == before.safety.breakers
    assert after.safety.breaker_views == before.safety.breaker_views
    assert after.safety.tick_due_step == before.safety.tick_due_step
    assert after.executor.cause == before.executor.cause
    assert after.told == []
    assert not after.safety.take_checkpoint_wish()
    after.safety.tick(300)
    assert after.breaker("isolation") is OPEN


def test_a_state_that_could_be_read_was_written():
    """What had been raised because checkpoints failed does not come back; what else had been raised does."""
    before = Stand()
    before.levels(FULL, FULL, FULL, OperatorRaised("drill", NOTICE, "alice", ""))
    after = Stand()
    after.safety.load_state_dict(before.safety.state_dict(), 10)
    assert after.safety.level is NOTICE
    assert after.breaker("checkpoint") is CLOSED
    assert after.executor.cause == ""


def test_kernels_that_fail_never_hold_the_run():
    """The breaker opens with a NOTICE, is quiet while it tries again, and closes: running eager is always right."""
    stand = Stand()
    for step in (1, 2, 3):
        stand.safety.note_failure("kernel", step, "it could not be opened")
    breaker = stand.safety.breakers["kernel"]
    assert (breaker.state, stand.safety.level, stand.executor.cause) == (OPEN, NOTICE, "")
    assert stand.told[-1].attributes["emergency_id"] == "breaker:kernel"
    stand.safety.tick(breaker.rule.open_steps + TICK_STEPS)
    assert (stand.safety.breakers["kernel"].state, stand.safety.level) == (HALF_OPEN, CLEAR)
    stand.safety.note_failure("kernel", 400, "nor now")
    assert (stand.safety.breakers["kernel"].state, stand.safety.level) == (OPEN, NOTICE)
