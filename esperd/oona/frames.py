"""Telemetry fan-out: samples collected into frames, each serialised once for everybody who asked for the same.

Used on the event loop only; time comes in through `tick(now_s)`. Knows neither what a sample is nor how it is
serialised: both come in as functions. A slow subscriber loses its oldest frames, and the number of samples it
lost travels beside the shared bytes of its next frame, never inside them.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

SampleT = TypeVar("SampleT")
FilterT = TypeVar("FilterT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class FramePlan(Generic[FilterT]):
    """What a subscriber wants; all subscribers with an equal plan share their frames."""

    filter: FilterT
    frame_interval_s: float
    latest_only: bool = False
    """Keep only the newest sample of each key in a frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One serialised frame."""

    data: bytes
    """The same object for every subscriber of the plan; empty if only a loss is to be told."""
    num_samples: int
    num_conflated: int
    """Samples that newer ones of their key replaced (`latest_only`)."""


@dataclass(frozen=True, slots=True)
class FrameDelivery:
    """One frame, and what this one subscriber lost before it."""

    frame: Frame
    num_dropped: int
    """Samples dropped since this subscriber's last delivery."""
    num_frames_dropped: int = 0
    """Whole frames among them, which this subscriber was too slow to read."""


class TelemetryHub(Generic[SampleT, FilterT]):
    """Collects samples and turns them into frames at each tick."""

    def __init__(
        self,
        serialise: Callable[[Sequence[SampleT]], bytes],
        matches: Callable[[FilterT, SampleT], bool],
        key: Callable[[SampleT], Hashable],
        max_frame_samples: int = 65_536,
    ) -> None:
        """Make a hub.

        Args:
            serialise: makes the bytes of one frame of samples; called once per plan and frame.
            matches: whether a filter lets a sample through.
            key: what `latest_only` keeps one sample of, for instance the metric's name.
            max_frame_samples: samples that may wait for one frame; the oldest are dropped, and counted.
        """
        self._serialise = serialise
        self._matches = matches
        self._key = key
        self._max_frame_samples = max_frame_samples
        self._groups: dict[FramePlan[FilterT], _Group[SampleT, FilterT]] = {}

    @property
    def num_subscriptions(self) -> int:
        """Subscribers that have not left."""
        return sum(len(group.members) for group in self._groups.values())

    def add(self, samples: Sequence[SampleT]) -> None:
        """Take new samples; they leave with the next frame of each plan that lets them through."""
        for group in self._groups.values():
            matches, wanted = self._matches, group.plan.filter
            group.collect([sample for sample in samples if matches(wanted, sample)])

    def add_dropped(self, num_samples: int) -> None:
        """Tell every subscriber that so many samples were lost before they reached the hub."""
        for group in self._groups.values():
            group.drop(num_samples)

    def tick(self, now_s: float) -> None:
        """Send a frame to each plan whose interval has passed; `now_s` is monotonic time."""
        for group in self._groups.values():
            if now_s >= group.due_s:
                group.schedule(now_s)
                group.emit(self._serialise)

    def cut(self) -> None:
        """Send what has been collected, due or not: what comes next does not belong into the same frame."""
        for group in self._groups.values():
            group.emit(self._serialise)

    def subscribe(
        self, plan: FramePlan[FilterT], max_frames: int = 64, max_bytes: int = 4 * 1024 * 1024
    ) -> "FrameSubscription":
        """Get the frames of a plan, from its next one on.

        Args:
            plan: filter, interval and conflation.
            max_frames: frames that may wait for the subscriber.
            max_bytes: bytes that may wait for the subscriber.
        """
        group = self._groups.get(plan)
        if group is None:
            group = self._groups[plan] = _Group(plan, self._key, self._max_frame_samples)
        subscription = FrameSubscription(max_frames, max_bytes, lambda: self._leave(plan, subscription))
        group.members[subscription] = None
        return subscription

    def close(self) -> None:
        """Send what has been collected, then let every subscription end once it is read."""
        self.cut()
        for group in self._groups.values():
            for member in group.members:
                member.end()
        self._groups.clear()

    def _leave(self, plan: FramePlan[FilterT], subscription: "FrameSubscription") -> None:
        group = self._groups.get(plan)
        if group is None:
            return
        group.members.pop(subscription, None)
        if not group.members:
            del self._groups[plan]


class FrameSubscription:
    """An async iterator of frames; leave it with `close()` or as a context manager."""

    def __init__(self, max_frames: int, max_bytes: int, leave: Callable[[], None]) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._leave = leave
        self._frames: deque[Frame] = deque()
        self._num_bytes = 0
        self._num_dropped = 0
        self._num_frames_dropped = 0
        self._ended = False
        self._wake: asyncio.Future[None] | None = None

    def __enter__(self) -> "FrameSubscription":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> "FrameSubscription":
        return self

    async def __anext__(self) -> FrameDelivery:
        """Wait for the next frame; the iteration stops when the hub was closed and all is read."""
        while True:
            delivery = self.take()
            if delivery is not None:
                return delivery
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def take(self) -> FrameDelivery | None:
        """The next frame if one waits, else None."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._num_bytes -= len(frame.data)
        delivery = FrameDelivery(frame, self._num_dropped, self._num_frames_dropped)
        self._num_dropped = self._num_frames_dropped = 0
        return delivery

    def offer(self, frame: Frame, num_dropped: int) -> None:
        """Let a frame wait, and drop the oldest ones if the limits are passed; the newest always stays."""
        self._num_dropped += num_dropped
        self._frames.append(frame)
        self._num_bytes += len(frame.data)
        while len(self._frames) > 1 and (len(self._frames) > self._max_frames or self._num_bytes > self._max_bytes):
            oldest = self._frames.popleft()
            self._num_bytes -= len(oldest.data)
            self._num_dropped += oldest.num_samples + oldest.num_conflated
        self._wake_reader()

    def end(self) -> None:
        """End the iteration once what waits has been read."""
        self._ended = True
        self._wake_reader()

    def close(self) -> None:
        """Leave the hub and forget what waits."""
        self._leave()
        self._frames.clear()
        self.end()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Group(Generic[SampleT, FilterT]):
    """The subscribers of one plan and the samples that wait for its next frame."""

    def __init__(self, plan: FramePlan[FilterT], key: Callable[[SampleT], Hashable], max_samples: int) -> None:
        self.plan = plan
        self.members: dict[FrameSubscription, None] = {}
        self.due_s = -math.inf
        self._key = key
        self._samples: deque[SampleT] = deque()
        self._newest: dict[Hashable, SampleT] = {}
        self._max_samples = max_samples
        self._num_conflated = 0
        self._num_dropped = 0

    def schedule(self, now_s: float) -> None:
        # On a grid, so that ticks which come a little late do not add up to fewer frames.
        on_grid_s = self.due_s + self.plan.frame_interval_s
        self.due_s = on_grid_s if on_grid_s > now_s else now_s + self.plan.frame_interval_s

    def collect(self, samples: Sequence[SampleT]) -> None:
        if self.plan.latest_only:
            before = len(self._newest)
            self._newest.update((self._key(sample), sample) for sample in samples)
            self._num_conflated += len(samples) - (len(self._newest) - before)
            return
        self._samples.extend(samples)
        while len(self._samples) > self._max_samples:
            self._samples.popleft()
            self._num_dropped += 1

    def drop(self, num_samples: int) -> None:
        self._num_dropped += num_samples

    def emit(self, serialise: Callable[[Sequence[SampleT]], bytes]) -> None:
        samples = list(self._newest.values()) if self.plan.latest_only else list(self._samples)
        if not samples and not self._num_dropped:
            return
        frame = Frame(serialise(samples) if samples else b"", len(samples), self._num_conflated)
        for member in self.members:
            member.offer(frame, self._num_dropped)
        self._samples.clear()
        self._newest.clear()
        self._num_conflated = self._num_dropped = 0
