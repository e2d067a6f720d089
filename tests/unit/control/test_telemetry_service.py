"""Telemetry frames never mix timelines; what nobody watched can be looked up afterwards."""

import asyncio

from esper.leyline.v1 import telemetry_service_pb2

from esperd.bridge.bridge import Bridge
from esperd.control.call import Call
from esperd.control.pacing import CallMeter, Pacer
from esperd.control.telemetry_service import TelemetryService
from esperd.leyline.metrics import TIMELINE, Sample
from tests.integration.control.stage import first_snapshot

LOSS = "tolaria.step.loss"


def log_step(timeline: int, step: int) -> list[Sample]:
    return [(TIMELINE, 0, step, float(timeline), 0), (LOSS, 0, step, 0.5, 0)]


class Watching:
    """A service over a real bridge, and one reader of it."""

    def __init__(self, capacity: int = 100) -> None:
        self.bridge = Bridge(first_snapshot=first_snapshot(), box_capacity=4, ring_capacity=capacity)
        self.now_s = 0.0
        pacer = Pacer(
            share=0.1,
            meter=CallMeter(lambda: self.now_s),
            is_training=lambda: False,
            monotonic=lambda: self.now_s,
            sleep=asyncio.sleep,
            max_waiting=1,
        )
        self.service = TelemetryService(
            port=self.bridge, pacer=pacer, frame_interval_s=0.1, monotonic=lambda: self.now_s
        )

    async def frames(self, *ticks: list[Sample]) -> list[tuple[int, list[int]]]:
        """(timeline, steps of the loss) of each frame that the ticks bring."""
        seen: list[telemetry_service_pb2.TelemetryFrame] = []

        async def send(data: bytes) -> None:
            seen.append(telemetry_service_pb2.StreamTelemetryResponse.FromString(data).frame)

        request = telemetry_service_pb2.StreamTelemetryRequest(metrics=[LOSS])
        reader = asyncio.create_task(self.service.stream_telemetry(Call("m", "p"), request, send))
        await asyncio.sleep(0)
        for samples in ticks:
            for sample in samples:
                self.bridge.emit(sample)
            self.now_s += 1.0
            self.service.tick()
        self.service.drain()
        await reader
        return [(frame.timeline, list(frame.series[0].global_steps)) for frame in seen if frame.series]


async def test_a_frame_ends_where_the_timeline_changes() -> None:
    """Steps 1 to 3, then back to step 2 on timeline 2: two frames of one tick, each with its timeline."""
    first, second = [*log_step(1, 1), *log_step(1, 3)], [*log_step(2, 2), *log_step(2, 4)]
    assert await Watching().frames([*first, *second], log_step(2, 6)) == [(1, [1, 3]), (2, [2, 4]), (2, [6])]


async def test_the_timeline_is_known_from_the_state() -> None:
    """What comes before the first sample that names a timeline lies on the one of the snapshot."""
    assert await Watching().frames([(LOSS, 0, 5, 0.5, 0)]) == [(1, [5])]


async def test_after_a_loss_the_timeline_is_open() -> None:
    """When the ring has dropped samples, the one that told of a new timeline may be among them: 0 until the next."""
    assert await Watching(capacity=3).frames([*log_step(1, 1), *log_step(1, 3)], log_step(1, 5)) == [
        (0, [1]),
        (1, [3]),
        (1, [5]),
    ]


async def test_what_nobody_watched_can_be_looked_up() -> None:
    """Samples are kept by timeline, also without any reader, and what was lost before is counted."""
    watching = Watching(capacity=4)
    for samples in ([*log_step(1, 1), *log_step(1, 3)], [*log_step(2, 2), *log_step(2, 4)], log_step(2, 6) * 3):
        for sample in samples:
            watching.bridge.emit(sample)
        watching.service.tick()
    request = telemetry_service_pb2.QueryTelemetryRequest(metrics=[LOSS])
    answer = await watching.service.query_telemetry(Call("m", "p"), request)
    told = [(one.timeline, [bucket.first_step for bucket in one.buckets]) for one in answer.series]
    assert told == [(1, [1, 3]), (2, [2, 4, 6])]
    assert (answer.oldest_step, answer.num_dropped) == (1, 2)
