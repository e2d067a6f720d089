"""What it costs to keep telemetry for those who come later; `python -m tests.bench.telemetry`.

A tick empties the ring with nobody watching: into the window, and in turn into nothing at all, in the same run. Then a
lookup of everything that is kept.
"""

import asyncio
import time
from collections.abc import Callable

from esper.leyline.v1.telemetry_service_pb2 import QueryTelemetryRequest

from esperd.bridge.bridge import Bridge
from esperd.control.call import Call
from esperd.control.pacing import CallMeter, Pacer
from esperd.control.telemetry_service import TelemetryService
from esperd.leyline.metrics import METRICS, TIMELINE, Sample
from tests.bench.report import Row, arguments, median_row, publish
from tests.integration.control.stage import first_snapshot

NUM_STEPS = 100
NAMES = [name for name in METRICS if name != TIMELINE]


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    publish(asyncio.run(measure(10 if options.quick else 100)), as_json=options.json)


async def measure(num_rounds: int) -> list[Row]:
    """Microseconds of a sample, and milliseconds of a lookup."""
    bridge = Bridge(first_snapshot=first_snapshot(), box_capacity=1, ring_capacity=1 << 20)
    service = TelemetryService(port=bridge, pacer=_pacer(), frame_interval_s=0.1, monotonic=time.monotonic)
    kept, emptied = list[float](), list[float]()
    for number in range(num_rounds):
        samples = _log_steps(number * NUM_STEPS)
        for took, work in ((kept, service.tick), (emptied, bridge.take_samples)):
            for sample in samples:
                bridge.emit(sample)
            took.append(_seconds(work) / len(samples) * 1e6)
    lookups = []
    for _ in range(10):
        begun = time.perf_counter()
        answer = await service.query_telemetry(Call("m", "p"), QueryTelemetryRequest(metrics=NAMES))
        lookups.append((time.perf_counter() - begun) * 1e3)
    num_buckets = sum(len(series.buckets) for series in answer.series)
    return [
        median_row("sample.kept", kept, "us"),
        median_row("sample.thrown_away", emptied, "us"),
        median_row(f"lookup.{len(answer.series)}_series.{num_buckets}_buckets", lookups, "ms"),
    ]


def _log_steps(first_step: int) -> list[Sample]:
    steps = range(first_step, first_step + NUM_STEPS)
    return [(name, 0, step, 0.5, step) for step in steps for name in NAMES]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _pacer() -> Pacer:
    return Pacer(
        share=0.1,
        meter=CallMeter(time.thread_time),
        is_training=lambda: False,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        max_waiting=1,
    )


if __name__ == "__main__":
    main()
