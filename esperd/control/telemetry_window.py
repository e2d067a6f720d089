"""The samples of the last minutes, kept so that somebody who comes later can look them up.

Event loop only, without I/O. Each metric has for each slot and timeline two columns, its steps and its values: the
newest samples of every metric stay, so that what is told once an epoch is not pushed out by what is told at each step.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from esperd.leyline.metrics import Sample

KEPT_SAMPLES = 4096
"""Newest samples of each series that are kept at least; up to twice as many are there between two clearings."""
MAX_SERIES = 512
"""Series that are kept; the oldest timeline's go first. With `KEPT_SAMPLES` of 16 bytes each: 64 MiB if every one of
them were full, 2 MiB for a run with a dozen metrics and a few seeds."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Samples of one series that lie together."""

    first_step: int
    last_step: int
    num_samples: int
    """Finite ones; without any, minimum, maximum and mean are 0."""
    minimum: float
    maximum: float
    mean: float
    num_not_finite: int


@dataclass(frozen=True, slots=True)
class Series:
    """One metric at one slot on one timeline."""

    name: str
    slot: int
    timeline: int
    """0 where samples had been lost and it was not known."""
    buckets: tuple[Bucket, ...]
    """In order of steps; none is empty."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is looked up."""

    names: Collection[str]
    slot: int | None
    """None means every slot."""
    first_step: int
    last_step: int
    """The last one wanted, itself included."""
    num_buckets: int
    """Buckets of each series at most."""


class _Columns:
    """The samples of one series, in order of steps."""

    __slots__ = ("steps", "values")

    def __init__(self) -> None:
        self.steps = array("Q")
        self.values = array("d")

    def add(self, step: int, value: float) -> None:
        steps = self.steps
        if steps and step < steps[-1]:
            # Told again from an earlier step on: what it told of the steps after that is no longer so.
            self._cut(bisect_left(steps, step), len(steps))
        steps.append(step)
        self.values.append(value)
        if len(steps) >= 2 * KEPT_SAMPLES:
            self._cut(0, KEPT_SAMPLES)

    def _cut(self, start: int, end: int) -> None:
        del self.steps[start:end]
        del self.values[start:end]


_Key = tuple[str, int, int]
"""Metric, slot, timeline."""


class TelemetryWindow:
    """The newest samples of every series."""

    def __init__(self) -> None:
        self._series: dict[_Key, _Columns] = {}
        self.num_dropped = 0
        """Samples that were lost before they came here."""

    def add(self, samples: Sequence[Sample], timeline: int) -> None:
        """Keep samples, all of one timeline."""
        series = self._series
        for name, slot, step, value, _ in samples:
            columns = series.get((name, slot, timeline))
            if columns is None:
                columns = self._begin((name, slot, timeline))
            columns.add(step, value)

    def keys(self, lookup: Lookup) -> list[_Key]:
        """The series with samples in what is looked up, in order of names, slots and timelines."""
        return sorted(key for key in self._series if _is_wanted(key, lookup) and self._span(key, lookup) is not None)

    def steps(self, keys: Sequence[_Key], lookup: Lookup) -> tuple[int, int]:
        """The first and the last step of these series within what is looked up."""
        spans = [span for key in keys if (span := self._span(key, lookup)) is not None]
        return min((first for first, _ in spans), default=0), max((last for _, last in spans), default=0)

    def oldest_step(self, lookup: Lookup) -> int:
        """The oldest step that is kept of the metrics and slots that are looked up; 0 when nothing is."""
        found = (columns.steps[0] for key, columns in self._series.items() if _is_wanted(key, lookup))
        return min(found, default=0)

    def series(self, key: _Key, lookup: Lookup, steps: tuple[int, int]) -> Series:
        """One series in buckets of equally many steps; `steps` is where the first begins and the last ends.

        Equal for all series of a lookup, so that their buckets can be laid side by side.
        """
        name, slot, timeline = key
        columns = self._series.get(key)
        if columns is None:  # pushed out since the keys were asked for
            return Series(name, slot, timeline, ())
        first, last = steps
        width = max(1, -(-(last - first + 1) // lookup.num_buckets))
        buckets = []
        position = bisect_left(columns.steps, first)
        end = bisect_right(columns.steps, last)
        while position < end:
            edge = first + ((columns.steps[position] - first) // width + 1) * width
            following = min(end, bisect_left(columns.steps, edge, position))
            buckets.append(_bucket(columns, position, following))
            position = following
        return Series(name, slot, timeline, tuple(buckets))

    def _begin(self, key: _Key) -> _Columns:
        if len(self._series) >= MAX_SERIES:
            # Of the oldest timeline that which has been silent for longest.
            oldest = min(self._series, key=lambda known: (known[2], self._series[known].steps[-1]))
            del self._series[oldest]
        columns = self._series[key] = _Columns()
        return columns

    def _span(self, key: _Key, lookup: Lookup) -> tuple[int, int] | None:
        steps = self._series[key].steps
        start, end = bisect_left(steps, lookup.first_step), bisect_right(steps, lookup.last_step)
        return (steps[start], steps[end - 1]) if start < end else None


def _is_wanted(key: _Key, lookup: Lookup) -> bool:
    return key[0] in lookup.names and lookup.slot in (None, key[1])


def _bucket(columns: _Columns, start: int, end: int) -> Bucket:
    steps, values = columns.steps, columns.values[start:end]
    finite: Sequence[float] = values
    mean = sum(values) / len(values)
    if not math.isfinite(mean):  # one of them is not finite, or together they are too large to be added up
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return Bucket(steps[start], steps[end - 1], 0, 0.0, 0.0, 0.0, end - start)
        mean = math.fsum(value / len(finite) for value in finite)
    low, high = min(finite), max(finite)
    # Rounding must not take the mean out of their range.
    mean = min(max(mean, low), high)
    return Bucket(steps[start], steps[end - 1], len(finite), low, high, mean, end - start - len(finite))
