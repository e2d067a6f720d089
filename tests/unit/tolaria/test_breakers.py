"""Circuit breakers: closed, open, half-open, and the way back, counted in steps."""

from esperd.leyline.vocabulary import BreakerState
from esperd.tolaria.breakers import Breaker, BreakerRule, failed, forced, probing, succeeded, ticked, went_back

RULE = BreakerRule(failures_to_open=2, memory_steps=100, open_steps=50, calm_steps=30)
NEW = Breaker("test", RULE)


def test_failures_close_together_open_it():
    """Failures that lie further apart than the memory do not add up."""
    assert failed(failed(NEW, 1, "a"), 200, "b").state is BreakerState.CLOSED
    opened = failed(failed(NEW, 1, "a"), 50, "b")
    assert opened.state is BreakerState.OPEN
    assert opened.view().detail == "b"


def test_it_heals_by_way_of_half_open():
    """After its time it tries again, and closes when that stays calm."""
    opened = failed(failed(NEW, 1, "a"), 2, "b")
    assert ticked(opened, 51).state is BreakerState.OPEN
    trying = ticked(opened, 52)
    assert trying.state is BreakerState.HALF_OPEN
    assert ticked(trying, 81).state is BreakerState.HALF_OPEN
    healed = ticked(trying, 82)
    assert healed.state is BreakerState.CLOSED
    assert healed.view().num_failures == 0


def test_a_failure_while_half_open_opens_it_at_once():
    """One is enough, and the time starts anew."""
    trying = ticked(failed(failed(NEW, 1, "a"), 2, "b"), 52)
    again = failed(trying, 60, "c")
    assert again.state is BreakerState.OPEN
    assert ticked(again, 109).state is BreakerState.OPEN
    assert ticked(again, 110).state is BreakerState.HALF_OPEN


def test_opened_by_hand_it_stays_open_until_closed_by_hand():
    """An operator's word outlasts the steps; after closing, the rule goes on as usual."""
    held = forced(NEW, BreakerState.OPEN, 5, "by alice")
    assert ticked(held, 10_000).state is BreakerState.OPEN
    released = forced(held, BreakerState.CLOSED, 6, "by alice")
    assert released.state is BreakerState.CLOSED
    assert failed(failed(released, 7, "a"), 8, "b").state is BreakerState.OPEN


def test_what_is_tried_seldom_heals_by_success_alone():
    """Steps do nothing; the next try is let through half-open, and closes it or opens it again."""
    seldom = Breaker("seldom", BreakerRule(failures_to_open=2, heals_by_success=True))
    opened = failed(failed(seldom, 1, "a"), 90_000, "b")
    assert opened.state is BreakerState.OPEN
    assert ticked(opened, 900_000) == opened
    trying = probing(opened, 900_000)
    assert trying.state is BreakerState.HALF_OPEN
    assert failed(trying, 900_001, "c").state is BreakerState.OPEN
    healed = succeeded(trying, 900_001)
    assert (healed.state, healed.failure_steps, healed.detail) == (BreakerState.CLOSED, (), "")


def test_a_rollback_brings_its_dates_back_and_forgets_no_failure():
    """An open breaker waits its time from the step that the run has gone back to."""
    opened = went_back(failed(failed(NEW, 100, "a"), 120, "b"), 110)
    assert opened.failure_steps == (100, 110)
    assert ticked(opened, 159).state is BreakerState.OPEN
    assert ticked(opened, 160).state is BreakerState.HALF_OPEN
