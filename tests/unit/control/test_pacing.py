"""Admission control by training share, with clocks of our own."""

import asyncio

import pytest

from esperd.control.pacing import BUNCH_S, DEAREST_COST_S, CallMeter, Pacer
from esperd.leyline.errors import EsperdError


class World:
    """Wall and processor time that pass when told, and sleeping that makes wall time pass."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.wall_s += seconds

    def pacer(self, *, share: float = 0.1, training: bool = True, max_waiting: int = 10) -> Pacer:
        self.meter = CallMeter(lambda: self.cpu_s, first_cost_s=0.001)
        return Pacer(
            share=share,
            meter=self.meter,
            is_training=lambda: training,
            monotonic=lambda: self.wall_s,
            sleep=self.sleep,
            max_waiting=max_waiting,
            burst_s=0.01,
        )


async def test_a_flood_takes_its_share_and_no_more() -> None:
    """1,000 calls at a share of 10 % take ten times what they cost training, less the burst; none is lost."""
    world = World()
    pacer = world.pacer()
    for _ in range(1000):
        await pacer.admit()
    assert world.wall_s == pytest.approx((1000 * world.meter.price_s - 0.01) / 0.1, abs=BUNCH_S)
    assert pacer.num_refused == 0


async def test_single_calls_pass_at_once() -> None:
    """A call now and then does not wait."""
    world = World()
    pacer = world.pacer()
    for _ in range(100):
        world.wall_s += 1.0
        await pacer.admit()
    assert world.slept_s == []


async def test_calls_close_together_are_let_in_together() -> None:
    """The first passes at once, those right behind it at one and the same moment; messages of a stream never wait."""
    world = World()
    world.wall_s = 0.01
    pacer = world.pacer(share=1.0)
    times_s = []
    for _ in range(3):
        await pacer.admit()
        times_s.append(world.wall_s)
        world.wall_s = 0.02
    assert times_s == pytest.approx([0.01, BUNCH_S, BUNCH_S])
    await pacer.admit(0.4, in_bunch=False)
    assert world.wall_s == 0.02


async def test_nothing_is_paced_while_nothing_trains() -> None:
    """Paused or finished, the daemon answers as fast as it can."""
    world = World()
    pacer = world.pacer(training=False)
    for _ in range(10_000):
        await pacer.admit()
    assert world.slept_s == []


async def test_too_many_waiting_are_refused_late() -> None:
    """The waiting queue is bounded; a refusal comes with RetryInfo, and not before its time."""
    world = World()
    pacer = world.pacer(max_waiting=0)
    with pytest.raises(EsperdError) as refused:
        await pacer.admit()
    assert refused.value.reason == "PACED_OUT"
    assert float(refused.value.metadata["retry_after_s"]) > 0
    assert world.slept_s[0] >= 1.0


async def test_a_caller_that_leaves_gives_its_place_back() -> None:
    """Cancellation while waiting leaves no trace in the count of those who wait."""
    world = World()
    pacer = world.pacer()
    pacer.reserve(1000.0)
    forever = asyncio.get_running_loop().create_future()

    async def sleep(_: float) -> None:
        await forever

    pacer._sleep = sleep
    call = asyncio.ensure_future(pacer.admit())
    await asyncio.sleep(0)
    assert pacer.num_waiting == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pacer.num_waiting == 0


def test_the_meter_learns_what_a_call_costs() -> None:
    """The loop's processor time over the calls of a window, smoothed."""
    world = World()
    world.pacer()
    meter = world.meter
    meter.close_window()
    for _ in range(50):
        meter.count(100)
        world.cpu_s += 100 * 0.0005
        meter.close_window()
    assert meter.unit_cost_s == pytest.approx(0.0005, rel=1e-3)


def test_the_daemons_own_work_is_not_charged_to_calls() -> None:
    """Frames and the event pump cost what they cost, but callers do not pay for them."""
    world = World()
    world.pacer()
    meter = world.meter
    meter.close_window()

    def work() -> None:
        world.cpu_s += 5.0

    meter.own_work(work)
    meter.count(100)
    world.cpu_s += 0.1
    meter.close_window()
    assert meter.unit_cost_s == pytest.approx(0.001)


def test_windows_without_calls_teach_nothing_and_the_cost_is_bounded() -> None:
    """One slow window cannot make calls unaffordable."""
    world = World()
    world.pacer()
    meter = world.meter
    meter.close_window()
    world.cpu_s += 10.0
    meter.close_window()
    assert meter.unit_cost_s == pytest.approx(0.001)
    for _ in range(100):
        meter.count(10)
        world.cpu_s += 10.0
        meter.close_window()
    assert meter.unit_cost_s <= DEAREST_COST_S
