"""TelemetryService: samples and events in frames, serialised once for all who asked for the same; samples looked up.

Event loop only. Frames leave at the daemon's rate or slower; a slow reader loses its oldest frames and is told
how many. A frame ends where the run's timeline changes, so that all its samples lie on one timeline.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from esper.leyline.v1 import telemetry_service_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control import shown
from esperd.control.call import Call, Route, Send, Shape
from esperd.control.pacing import Pacer
from esperd.control.telemetry_window import Lookup, TelemetryWindow
from esperd.leyline.errors import EsperdError
from esperd.leyline.metrics import METRICS, TIMELINE, Sample
from esperd.leyline.views import NoticeEvent
from esperd.oona.frames import FrameDelivery, FramePlan, TelemetryHub

_SERVICE = "/esper.leyline.v1.TelemetryService/"
DEFAULT_BUCKETS = 100
MAX_BUCKETS = 20_000
"""Buckets of one answer, all series together: 1 MB on the wire."""
BUCKET_UNITS = 0.1
"""Putting one bucket together, relative to a unary call (8 to 15 us)."""
_NO_END = 1 << 63
"""Above every step."""
_LEVELS = {"info": 0, "warning": 1, "error": 2, "critical": 3, "none": 4}

Item = Sample | NoticeEvent
"""What goes into frames."""


@dataclass(frozen=True, slots=True)
class TelemetryFilter:
    """What one kind of reader wants to see."""

    names: frozenset[str]
    """Metrics; empty means all."""
    min_level: int
    """Least level of events, as in `_LEVELS`."""


class TelemetryService:
    """Serves telemetry."""

    def __init__(
        self, *, port: TrainerPort, pacer: Pacer, frame_interval_s: float, monotonic: Callable[[], float]
    ) -> None:
        self._port = port
        self._pacer = pacer
        self._window = TelemetryWindow()
        self._frame_interval_s = frame_interval_s
        self._monotonic = monotonic
        self._frame_numbers = itertools.count(1)
        self._num_ring_dropped = 0
        self._timeline = port.snapshot().run.timeline
        self._hub: TelemetryHub[Item, TelemetryFilter] = TelemetryHub(self._serialise, _matches, _key)
        self._is_draining = False

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = telemetry_service_pb2
        yield Route(_SERVICE + "ListMetrics", Shape.UNARY, pb.ListMetricsRequest, self.list_metrics)
        yield Route(_SERVICE + "QueryTelemetry", Shape.UNARY, pb.QueryTelemetryRequest, self.query_telemetry)
        yield Route(_SERVICE + "StreamTelemetry", Shape.STREAM, pb.StreamTelemetryRequest, self.stream_telemetry)

    async def list_metrics(
        self, _: Call, __: telemetry_service_pb2.ListMetricsRequest
    ) -> telemetry_service_pb2.ListMetricsResponse:
        """Every metric there is."""
        return telemetry_service_pb2.ListMetricsResponse(metrics=shown.metric_descriptors())

    async def query_telemetry(
        self, _: Call, request: telemetry_service_pb2.QueryTelemetryRequest
    ) -> telemetry_service_pb2.QueryTelemetryResponse:
        """What is kept, in buckets: one series after another, so that other calls have their turn between them."""
        names = {name for pattern in request.metrics for name in _expand(pattern)}
        slot = request.slot if request.HasField("slot") else None
        num_buckets = request.max_buckets or DEFAULT_BUCKETS
        lookup = Lookup(names, slot, request.first_step, request.last_step or _NO_END, num_buckets)
        keys = self._window.keys(lookup)
        steps = self._window.steps(keys, lookup)
        lookup = replace(lookup, num_buckets=max(1, min(num_buckets, MAX_BUCKETS // max(1, len(keys)))))
        response = telemetry_service_pb2.QueryTelemetryResponse(
            oldest_step=self._window.oldest_step(lookup), num_dropped=self._window.num_dropped
        )
        for key in keys:
            series = self._window.series(key, lookup, steps)
            if series.buckets:
                response.series.append(shown.telemetry_series(series))
            await self._pacer.admit(BUCKET_UNITS * len(series.buckets), in_bunch=False)
            await asyncio.sleep(0)
        return response

    async def stream_telemetry(
        self, _: Call, request: telemetry_service_pb2.StreamTelemetryRequest, send: Send
    ) -> None:
        """Frames from now on."""
        plan = self._plan(request)
        if not self._is_draining:
            with self._hub.subscribe(plan) as frames:
                async for delivery in frames:
                    await send(_response(delivery))
        await send(telemetry_service_pb2.StreamTelemetryResponse(draining=True).SerializeToString())

    def event(self, event: NoticeEvent) -> None:
        """Take an event for the next frame."""
        self._hub.add([event])

    def tick(self) -> None:
        """Empty the trainer's ring into the window and into frames, and send those that are due."""
        samples, num_dropped = self._port.take_samples()
        if num_dropped:
            self._change_timeline(0)  # the sample that told it may be among those that are lost
            self._window.num_dropped += num_dropped
        if self._hub.num_subscriptions:
            self._num_ring_dropped += num_dropped
            self._hub.add_dropped(num_dropped)
        start = 0
        for index, sample in enumerate(samples):
            if sample[0] == TIMELINE and sample[3] != self._timeline:
                self._take(samples[start:index])
                self._change_timeline(int(sample[3]))
                start = index
        self._take(samples[start:] if start else samples)
        self._hub.tick(self._monotonic())

    def _take(self, samples: Sequence[Sample]) -> None:
        """Samples of one timeline."""
        self._hub.add(samples)
        self._window.add(samples, self._timeline)

    def _change_timeline(self, timeline: int) -> None:
        if timeline != self._timeline:
            self._hub.cut()
            self._timeline = timeline

    def drain(self) -> None:
        """Send what there is and let every stream end."""
        self._is_draining = True
        self._hub.close()

    def _plan(self, request: telemetry_service_pb2.StreamTelemetryRequest) -> FramePlan[TelemetryFilter]:
        names = frozenset(name for pattern in request.metrics for name in _expand(pattern))
        wanted = TelemetryFilter(names, _LEVELS[request.min_event_level or "info"])
        return FramePlan(wanted, self._interval_s(request.max_frames_per_s), request.latest_only)

    def _interval_s(self, rate: float) -> float:
        """Frames leave with the daemon's ticks: 0 takes every tick, and half a tick is allowed for their jitter."""
        tick_s = self._frame_interval_s
        return 0.0 if rate <= 0.0 or 1.0 / rate <= tick_s else math.ceil(1.0 / rate / tick_s) * tick_s - tick_s / 2

    def _serialise(self, items: Sequence[Item]) -> bytes:
        frame = telemetry_service_pb2.TelemetryFrame(
            frame_number=next(self._frame_numbers),
            series=shown.metric_series([item for item in items if _is_sample(item)]),
            events=[shown.telemetry_event(item) for item in items if isinstance(item, NoticeEvent)],
            num_ring_dropped=self._num_ring_dropped,
            timeline=self._timeline,
        )
        # A response with nothing but the frame: what one reader lost is put behind it.
        return telemetry_service_pb2.StreamTelemetryResponse(frame=frame).SerializeToString()


def _response(delivery: FrameDelivery) -> bytes:
    data = delivery.frame.data
    if not delivery.num_frames_dropped:
        return data
    lost = telemetry_service_pb2.StreamTelemetryResponse(num_frames_dropped=delivery.num_frames_dropped)
    return data + lost.SerializeToString()


def _expand(pattern: str) -> list[str]:
    """The metrics that a pattern names. Raises METRIC_UNKNOWN when there are none."""
    if pattern in METRICS:
        return [pattern]
    names = [name for name in METRICS if pattern.endswith(".*") and name.startswith(pattern[:-1])]
    if not names:
        raise EsperdError("METRIC_UNKNOWN", name=pattern[:128])
    return names


def _is_sample(item: Item) -> TypeGuard[Sample]:
    return isinstance(item, tuple)


def _matches(wanted: TelemetryFilter, item: Item) -> bool:
    if isinstance(item, NoticeEvent):
        return _LEVELS.get(item.level, 0) >= wanted.min_level
    return not wanted.names or item[0] in wanted.names


def _key(item: Item) -> Hashable:
    return id(item) if isinstance(item, NoticeEvent) else item[:2]
