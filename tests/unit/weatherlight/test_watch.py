"""The watchdog's rules, fed with times."""

from esperd.weatherlight.watch import LAG_S, SILENCE_S, TICK_S, Vigil


def test_a_loop_on_time_says_nothing() -> None:
    """Ticks at their interval, with a fresh heartbeat, give no line."""
    vigil = Vigil(0.0)
    assert vigil.tick(TICK_S, TICK_S, is_trainer_due=True) == []


def test_a_late_loop_is_told_each_time() -> None:
    """The lag is what goes beyond the tick."""
    vigil = Vigil(0.0)
    now_s = 2 * LAG_S + TICK_S
    assert vigil.tick(now_s, now_s, is_trainer_due=True) == [("the event loop was late", {"lag_s": 2 * LAG_S})]
    assert vigil.tick(now_s + TICK_S, now_s, is_trainer_due=True) == []


def test_a_silent_trainer_is_told_once_and_so_is_its_return() -> None:
    """One line when the heartbeat stops, none while it stays away, one when it is back."""
    vigil = Vigil(SILENCE_S)
    first = vigil.tick(SILENCE_S + TICK_S, 0.0, is_trainer_due=True)
    assert [message for message, _ in first] == ["the trainer shows no life"]
    assert vigil.tick(SILENCE_S + 2 * TICK_S, 0.0, is_trainer_due=True) == []
    back = vigil.tick(SILENCE_S + 3 * TICK_S, SILENCE_S, is_trainer_due=True)
    assert [message for message, _ in back] == ["the trainer shows life again"]


def test_a_run_that_has_ended_need_not_show_life() -> None:
    """A finished or failed trainer has no heartbeat."""
    assert Vigil(SILENCE_S).tick(SILENCE_S + TICK_S, 0.0, is_trainer_due=False) == []
