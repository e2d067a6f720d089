"""Circuit breakers: closed, open, half-open, and the way back, counted in steps."""

from esperd.leyline.vocabulary import BreakerState
from esperd.tolaria.breakers import Breaker, BreakerRule, failed, forced, ticked

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
