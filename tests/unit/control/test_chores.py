"""Chores come at their intervals, and a fault in one stops none of them."""

import asyncio

import structlog

from esperd.control.chores import Chores
from esperd.control.pacing import CallMeter


async def test_a_chore_that_fails_is_done_again() -> None:
    """Beside the others, until all are stopped; nothing is left running."""
    done: list[str] = []
    has_enough = asyncio.Event()

    def broken() -> None:
        done.append("broken")
        raise ValueError("a fault")

    def sound() -> None:
        done.append("sound")
        if min(done.count("broken"), done.count("sound")) >= 3:
            has_enough.set()

    chores = Chores(CallMeter(lambda: 0.0), structlog.get_logger())
    chores.start([(0.001, broken), (0.001, sound)])
    await asyncio.wait_for(has_enough.wait(), 10)
    await chores.stop()
    num_done = len(done)
    await asyncio.sleep(0.01)
    assert len(done) == num_done


async def test_what_was_never_started_can_be_stopped() -> None:
    """As when the server could not be bound."""
    await Chores(CallMeter(lambda: 0.0), structlog.get_logger()).stop()
