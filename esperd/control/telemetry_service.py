"""TelemetryService: samples and events in frames, serialised once for everybody who asked for the same.

Event loop only. Frames leave at the daemon's rate or slower; a slow reader loses its oldest frames and is told
how many. A frame ends where the run's timeline changes, so that all its samples lie on one timeline.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from esper.leyline.v1 import telemetry_service_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control import shown
from esperd.control.call import Call, Route, Send, Shape
from esperd.leyline.errors import EsperdError
from esperd.leyline.metrics import METRICS, TIMELINE, Sample
from esperd.leyline.views import NoticeEvent
from esperd.oona.frames import FrameDelivery, FramePlan, TelemetryHub

_SERVICE = "/esper.leyline.v1.TelemetryService/"
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

    def __init__(self, *, port: TrainerPort, frame_interval_s: float, monotonic: Callable[[], float]) -> None:
        self._port = port
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
        yield Route(_SERVICE + "StreamTelemetry", Shape.STREAM, pb.StreamTelemetryRequest, self.stream_telemetry)

    async def list_metrics(
        self, _: Call, __: telemetry_service_pb2.ListMetricsRequest
    ) -> telemetry_service_pb2.ListMetricsResponse:
        """Every metric there is."""
        return telemetry_service_pb2.ListMetricsResponse(metrics=shown.metric_descriptors())

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
        """Empty the trainer's ring into frames, and send those that are due."""
        samples, num_dropped = self._port.take_samples()
        if num_dropped:
            self._change_timeline(0)  # the sample that told it may be among those that are lost
        if self._hub.num_subscriptions:
            self._num_ring_dropped += num_dropped
            self._hub.add_dropped(num_dropped)
        start = 0
        for index, sample in enumerate(samples):
            if sample[0] == TIMELINE and sample[3] != self._timeline:
                self._hub.add(samples[start:index])
                self._change_timeline(int(sample[3]))
                start = index
        self._hub.add(samples[start:] if start else samples)
        self._hub.tick(self._monotonic())

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
