"""Telemetry frames: serialised once, sent on time, dropped with a count."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from esperd.oona.frames import FrameDelivery, FramePlan, FrameSubscription, TelemetryHub


@dataclass(frozen=True, slots=True)
class Reading:
    metric: str
    value: int


class Serialiser:
    """Joins values, and counts how often it had to."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, samples: Sequence[Reading]) -> bytes:
        self.num_calls += 1
        return ",".join(f"{sample.metric}{sample.value}" for sample in samples).encode()


@pytest.fixture
def serialise() -> Serialiser:
    return Serialiser()


@pytest.fixture
def hub(serialise: Serialiser) -> TelemetryHub[Reading, str]:
    """A hub whose filter is the metric's name, empty for all."""
    return TelemetryHub(
        serialise, lambda wanted, sample: wanted in ("", sample.metric), lambda sample: sample.metric, 100
    )


def plan(wanted: str = "", interval_s: float = 0.1, latest_only: bool = False) -> FramePlan[str]:
    return FramePlan(wanted, interval_s, latest_only)


def readings(*values: int, metric: str = "a") -> list[Reading]:
    return [Reading(metric, value) for value in values]


def drain(subscription: FrameSubscription) -> list[FrameDelivery]:
    taken = []
    while (delivery := subscription.take()) is not None:
        taken.append(delivery)
    return taken


def test_a_frame_is_serialised_once_for_equal_plans(hub: TelemetryHub[Reading, str], serialise: Serialiser) -> None:
    """Sixteen subscribers of one plan share one bytes object."""
    subscriptions = [hub.subscribe(plan()) for _ in range(16)]
    hub.add(readings(1, 2))
    hub.tick(0.0)
    frames = [drain(subscription)[0].frame for subscription in subscriptions]
    assert serialise.num_calls == 1
    assert all(frame.data is frames[0].data for frame in frames)
    assert (frames[0].data, frames[0].num_samples) == (b"a1,a2", 2)


def test_a_filter_lets_through_what_it_names(hub: TelemetryHub[Reading, str]) -> None:
    """Each plan gets the samples of its filter, in the order they came."""
    only_b, everything = hub.subscribe(plan("b")), hub.subscribe(plan())
    hub.add([*readings(1), *readings(2, metric="b")])
    hub.add(readings(3))
    hub.tick(0.0)
    assert [one.frame.data for one in drain(only_b)] == [b"b2"]
    assert [one.frame.data for one in drain(everything)] == [b"a1,b2,a3"]


def test_each_plan_has_its_own_pace(hub: TelemetryHub[Reading, str]) -> None:
    """A slower plan gets the same samples in fewer frames."""
    quick, slow = hub.subscribe(plan(interval_s=0.25)), hub.subscribe(plan(interval_s=0.75))
    for tick in range(4):
        hub.add(readings(tick))
        hub.tick(tick / 4)
    assert [one.frame.data for one in drain(quick)] == [b"a0", b"a1", b"a2", b"a3"]
    assert [one.frame.data for one in drain(slow)] == [b"a0", b"a1,a2,a3"]


def test_late_ticks_do_not_slow_the_frames_down(hub: TelemetryHub[Reading, str]) -> None:
    """A tick that comes late now and then does not move the ones after it; after a long pause the grid starts anew."""
    subscription = hub.subscribe(plan(interval_s=1.0))
    for tick, now_s in enumerate((10.0, 11.5, 12.0, 13.25, 14.0, 20.0, 20.5, 21.0)):
        hub.add(readings(tick))
        hub.tick(now_s)
    assert [one.frame.data for one in drain(subscription)] == [b"a0", b"a1", b"a2", b"a3", b"a4", b"a5", b"a6,a7"]


def test_no_samples_no_frame(hub: TelemetryHub[Reading, str], serialise: Serialiser) -> None:
    """Silence costs nothing."""
    subscription = hub.subscribe(plan())
    hub.tick(0.0)
    hub.tick(1.0)
    assert drain(subscription) == []
    assert serialise.num_calls == 0


@pytest.mark.parametrize("limits", [{"max_frames": 2}, {"max_bytes": 5}])
def test_a_slow_subscriber_loses_the_oldest_and_is_told_how_many(
    hub: TelemetryHub[Reading, str], limits: dict[str, int]
) -> None:
    """The count of lost samples comes with its next frame; one who keeps up loses nothing."""
    slow, quick = hub.subscribe(plan(), **limits), hub.subscribe(plan(), **limits)
    quick_saw = []
    for tick in range(5):
        hub.add(readings(tick, tick))
        hub.tick(float(tick))
        quick_saw += drain(quick)
    deliveries = drain(slow)
    assert [one.num_dropped for one in quick_saw] == [0] * 5
    assert deliveries[-1].frame.data == b"a4,a4"
    assert deliveries[0].num_dropped == 10 - 2 * len(deliveries)
    assert [one.num_dropped for one in deliveries[1:]] == [0] * (len(deliveries) - 1)


def test_a_frame_larger_than_the_limit_still_arrives(hub: TelemetryHub[Reading, str]) -> None:
    """The newest frame is never dropped, or one large frame would mean silence for ever."""
    subscription = hub.subscribe(plan(), max_bytes=1)
    hub.add(readings(1, 2, 3))
    hub.tick(0.0)
    assert [(one.frame.num_samples, one.num_dropped) for one in drain(subscription)] == [(3, 0)]


def test_latest_only_keeps_one_sample_of_each_metric(hub: TelemetryHub[Reading, str]) -> None:
    """Replaced samples are counted in the frame."""
    subscription = hub.subscribe(plan(latest_only=True))
    hub.add(readings(1, 2, 3))
    hub.add([*readings(4), *readings(5, metric="b")])
    hub.tick(0.0)
    hub.add(readings(6))
    hub.tick(1.0)
    frames = [one.frame for one in drain(subscription)]
    assert [(frame.data, frame.num_samples, frame.num_conflated) for frame in frames] == [
        (b"a4,b5", 2, 3),
        (b"a6", 1, 0),
    ]


def test_what_a_dropped_frame_had_replaced_is_counted_too(hub: TelemetryHub[Reading, str]) -> None:
    """Every sample is delivered, counted as replaced, or counted as dropped."""
    subscription = hub.subscribe(plan(latest_only=True), max_frames=1)
    for tick in range(3):
        hub.add(readings(1, 2, 3))
        hub.tick(float(tick))
    (delivery,) = drain(subscription)
    assert (delivery.frame.num_samples, delivery.frame.num_conflated, delivery.num_dropped) == (1, 2, 6)


def test_too_many_samples_for_one_frame_are_dropped_with_a_count(hub: TelemetryHub[Reading, str]) -> None:
    """A frame holds at most max_frame_samples, the newest."""
    subscription = hub.subscribe(plan())
    hub.add(readings(*range(250)))
    hub.tick(0.0)
    (delivery,) = drain(subscription)
    assert (delivery.frame.num_samples, delivery.num_dropped) == (100, 150)
    assert delivery.frame.data.startswith(b"a150,")


def test_what_was_lost_before_the_hub_is_told_too(hub: TelemetryHub[Reading, str]) -> None:
    """Drops of the telemetry ring reach every subscriber, even if no sample came with them."""
    first, second = hub.subscribe(plan()), hub.subscribe(plan("b"))
    hub.add_dropped(7)
    hub.tick(0.0)
    for subscription in (first, second):
        (delivery,) = drain(subscription)
        assert (delivery.frame.data, delivery.frame.num_samples, delivery.num_dropped) == (b"", 0, 7)


def test_nothing_is_collected_before_the_first_subscriber(hub: TelemetryHub[Reading, str]) -> None:
    """Samples and losses of a plan count from its first subscriber on."""
    hub.add(readings(1))
    hub.add_dropped(3)
    subscription = hub.subscribe(plan())
    hub.add(readings(2))
    hub.tick(0.0)
    assert [(one.frame.data, one.num_dropped) for one in drain(subscription)] == [(b"a2", 0)]


def test_one_who_left_costs_nothing(hub: TelemetryHub[Reading, str], serialise: Serialiser) -> None:
    """With the last subscriber its plan is gone."""
    with hub.subscribe(plan()):
        assert hub.num_subscriptions == 1
    hub.add(readings(1))
    hub.tick(0.0)
    assert (hub.num_subscriptions, serialise.num_calls) == (0, 0)


async def test_close_sends_the_rest_and_ends(hub: TelemetryHub[Reading, str]) -> None:
    """What was collected leaves before the streams end, also for one who waits."""
    subscription, waiting = hub.subscribe(plan(interval_s=60)), hub.subscribe(plan("b"))
    hub.tick(0.0)
    hub.add(readings(1))
    ended = asyncio.ensure_future(anext(waiting, None))
    await asyncio.sleep(0)
    hub.close()
    assert [one.frame.data async for one in subscription] == [b"a1"]
    assert await ended is None


def test_frames_leave_at_their_interval_however_often_the_hub_ticks(hub: TelemetryHub[Reading, str]) -> None:
    """Half of the ticks find nothing due."""
    subscription = hub.subscribe(plan(interval_s=1.0))
    for tick in range(1, 6):
        hub.add(readings(tick))
        hub.tick(tick * 0.5)
    assert [delivery.frame.data for delivery in drain(subscription)] == [b"a1", b"a2,a3", b"a4,a5"]


def test_a_cut_sends_what_is_there(hub: TelemetryHub[Reading, str]) -> None:
    """What came before a cut and what came after it are never in one frame, whatever the plan's interval."""
    every, latest = hub.subscribe(plan(interval_s=10.0)), hub.subscribe(plan(interval_s=10.0, latest_only=True))
    hub.tick(0.0)
    hub.add(readings(1, 2))
    hub.cut()
    hub.cut()
    hub.add(readings(3))
    hub.tick(11.0)
    assert [delivery.frame.data for delivery in drain(every)] == [b"a1,a2", b"a3"]
    assert [delivery.frame.data for delivery in drain(latest)] == [b"a2", b"a3"]
