"""The samples that are kept for those who come later: what is kept, what goes, and what a lookup says of it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.control import telemetry_window
from esperd.control.telemetry_window import KEPT_SAMPLES, Lookup, Series, TelemetryWindow

LOSS, ALPHA = "tolaria.step.loss", "kasmina.seed.alpha"
ALWAYS = 1 << 62


def lookup(*names: str, slot: int | None = None, first: int = 0, last: int = ALWAYS, num: int = 100) -> Lookup:
    return Lookup(names or (LOSS,), slot, first, last, num)


def found(window: TelemetryWindow, wanted: Lookup) -> list[Series]:
    keys = window.keys(wanted)
    steps = window.steps(keys, wanted)
    return [window.series(key, wanted, steps) for key in keys]


def fill(window: TelemetryWindow, steps: range, name: str = LOSS, slot: int = 0, timeline: int = 1) -> None:
    window.add([(name, slot, step, float(step), 0) for step in steps], timeline)


def test_each_bucket_has_its_least_greatest_and_mean() -> None:
    """Ten steps in five buckets: two steps each, in order."""
    window = TelemetryWindow()
    fill(window, range(1, 11))
    (series,) = found(window, lookup(num=5))
    assert (series.name, series.slot, series.timeline) == (LOSS, 0, 1)
    assert [(one.first_step, one.last_step) for one in series.buckets] == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]
    first = series.buckets[0]
    assert (first.num_samples, first.minimum, first.mean, first.maximum) == (2, 1.0, 1.5, 2.0)


def test_a_lookup_can_be_narrowed() -> None:
    """To names, to one slot (0 is none), to steps from one on and up to one, both included."""
    window = TelemetryWindow()
    fill(window, range(10))
    fill(window, range(10), ALPHA, 1)
    fill(window, range(10), ALPHA, 2)
    both = (LOSS, ALPHA)
    assert [(one.name, one.slot) for one in found(window, lookup(*both))] == [(ALPHA, 1), (ALPHA, 2), (LOSS, 0)]
    assert [one.slot for one in found(window, lookup(*both, slot=2))] == [2]
    assert [one.name for one in found(window, lookup(*both, slot=0))] == [LOSS]
    (series,) = found(window, lookup(first=3, last=5))
    assert [bucket.first_step for bucket in series.buckets] == [3, 4, 5]
    assert found(window, lookup(first=10)) == []


def test_timelines_are_kept_apart() -> None:
    """After a rollback the same steps come again, on another timeline."""
    window = TelemetryWindow()
    fill(window, range(10), timeline=1)
    fill(window, range(5, 10), timeline=2)
    first, second = found(window, lookup())
    assert (first.timeline, len(first.buckets)) == (1, 10)
    assert (second.timeline, len(second.buckets)) == (2, 5)


def test_buckets_of_all_series_lie_side_by_side() -> None:
    """One grid for a whole lookup, also where a series has gaps or begins late."""
    window = TelemetryWindow()
    fill(window, range(100))
    fill(window, range(55, 100, 20), ALPHA, 1)
    alpha, loss = found(window, lookup(LOSS, ALPHA, num=10))
    assert [bucket.first_step for bucket in loss.buckets] == list(range(0, 100, 10))
    assert [(bucket.first_step // 10, bucket.num_samples) for bucket in alpha.buckets] == [(5, 1), (7, 1), (9, 1)]


def test_what_is_not_finite_is_counted_and_in_no_number() -> None:
    """NaN and infinities spoil neither least, greatest nor mean; a bucket of nothing else says so."""
    window = TelemetryWindow()
    values = (1.0, math.nan, 3.0, math.inf, -math.inf, math.nan)
    window.add([(LOSS, 0, step, value, 0) for step, value in enumerate(values)], 1)
    (series,) = found(window, lookup(num=2))
    first, second = series.buckets
    assert (first.num_samples, first.num_not_finite, first.minimum, first.mean, first.maximum) == (2, 1, 1.0, 2.0, 3.0)
    assert (second.num_samples, second.num_not_finite, second.mean) == (0, 3, 0.0)


def test_numbers_too_large_to_add_up_have_a_mean() -> None:
    """The largest floats there are."""
    window = TelemetryWindow()
    window.add([(LOSS, 0, step, 1.7e308, 0) for step in range(4)], 1)
    (series,) = found(window, lookup(num=1))
    assert series.buckets[0].mean == 1.7e308


def test_the_newest_samples_of_each_series_stay() -> None:
    """What is told at each step does not push out what is told once an epoch; memory is bounded."""
    window = TelemetryWindow()
    fill(window, range(5), ALPHA, 1)
    fill(window, range(20 * KEPT_SAMPLES))
    assert len(found(window, lookup(ALPHA))[0].buckets) == 5
    (series,) = found(window, lookup(num=1))
    assert KEPT_SAMPLES <= series.buckets[0].num_samples < 2 * KEPT_SAMPLES
    assert series.buckets[0].last_step == 20 * KEPT_SAMPLES - 1
    assert window.oldest_step(lookup()) == series.buckets[0].first_step
    assert window.oldest_step(lookup("no.such")) == 0


def test_the_oldest_timeline_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on the number of series too; a lookup that is under way finds one that has gone empty."""
    monkeypatch.setattr(telemetry_window, "MAX_SERIES", 3)
    window = TelemetryWindow()
    for timeline in (1, 2, 3):
        fill(window, range(10), timeline=timeline)
    wanted = lookup()
    keys = window.keys(wanted)
    fill(window, range(10), timeline=4)
    assert [one.timeline for one in found(window, wanted)] == [2, 3, 4]
    assert window.series(keys[0], wanted, (0, 9)).buckets == ()


def test_steps_that_are_told_again_take_the_place_of_the_first() -> None:
    """A series is always in order of steps."""
    window = TelemetryWindow()
    fill(window, range(10))
    window.add([(LOSS, 0, 4, 44.0, 0)], 1)
    (series,) = found(window, lookup())
    assert [(bucket.first_step, bucket.mean) for bucket in series.buckets][-2:] == [(3, 3.0), (4, 44.0)]


@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats()), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_a_lookup_tells_of_every_sample_once(samples: list[tuple[int, float]], num: int, first: int, last: int) -> None:
    """Whatever the steps, the bounds and the number of buckets: each sample is in one, and none is empty."""
    window = TelemetryWindow()
    samples.sort(key=lambda sample: sample[0])
    window.add([(LOSS, 0, step, value, 0) for step, value in samples], 1)
    wanted = lookup(first=first, last=last, num=num)
    inside = [value for step, value in samples if first <= step <= last]
    series = found(window, wanted)
    buckets = series[0].buckets if series else ()
    assert sum(bucket.num_samples + bucket.num_not_finite for bucket in buckets) == len(inside)
    assert sum(bucket.num_samples for bucket in buckets) == sum(map(math.isfinite, inside))
    assert len(buckets) <= num
    assert all(bucket.num_samples + bucket.num_not_finite for bucket in buckets)
    assert all(bucket.minimum <= bucket.mean <= bucket.maximum for bucket in buckets)
    assert all(before.last_step < after.first_step for before, after in itertools.pairwise(buckets))
