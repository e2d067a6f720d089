"""When compiling is left alone for a while."""

import math

from esper.tezzeret.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, MAX_PAUSE_S, Breaker


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    assert [breaker.failed() for _ in range(FAILURES_TO_OPEN)] == [False] * (FAILURES_TO_OPEN - 1) + [True]
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """A success between them begins the count anew."""
    breaker = Breaker(Clock())
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            assert not breaker.failed()
        breaker.succeeded()
    assert breaker.wait_s() == 0


def test_one_attempt_decides() -> None:
    """After its pause one attempt may begin, and no second one beside it; its success closes the breaker."""
    clock = Clock()
    breaker = opened(clock)
    assert breaker.wait_s() == FIRST_PAUSE_S
    clock.now_s += FIRST_PAUSE_S
    assert breaker.wait_s() == 0
    breaker.began()
    assert breaker.wait_s() == math.inf
    breaker.succeeded()
    assert breaker.wait_s() == 0
    assert not breaker.is_open


def test_an_interrupted_attempt_decides_nothing() -> None:
    """Another one may begin in its place."""
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += FIRST_PAUSE_S
    breaker.began()
    breaker.interrupted()
    assert breaker.wait_s() == 0
    assert breaker.is_open


def test_pauses_grow_up_to_a_limit() -> None:
    """Each failed attempt doubles the pause."""
    clock = Clock()
    breaker = opened(clock)
    pauses = []
    for _ in range(6):
        clock.now_s += breaker.wait_s()
        breaker.began()
        assert breaker.failed()
        pauses.append(breaker.wait_s())
    assert pauses == [120.0, 240.0, 480.0, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]
