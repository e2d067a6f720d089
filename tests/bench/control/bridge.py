"""What the way up costs the training thread, and how many frames a second reach sixteen readers.

No torch: the training thread's end of the bridge is called as the trainer calls it.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from esperd.bridge.bridge import Bridge
from esperd.leyline.views import NoticeEvent
from tests.bench.control.driving import drive
from tests.bench.report import AT_LEAST, Row, median_row
from tests.bench.stage import new_bridge, open_stage

NUM_CALLS = 20_000
EMIT_NS = 290.0
"""A deque drained by another thread: 140 to 290 ns an event (research/ceilings.md)."""
FAN_OUT_SAMPLES_PER_S = 812_000.0
"""Samples a second delivered to 16 readers, in frames (research/ceilings.md)."""
SAMPLES_PER_S = 60_000


def rows(rounds: int) -> list[Row]:
    """Nanoseconds of one emit, record and publish."""
    bridge = new_bridge()
    sample = ("tolaria.step.loss", 0, 1, 0.5, 1)
    event = NoticeEvent("bench", "", "info", 1, 1, 0.0)
    snapshot = bridge.snapshot()

    def publish() -> None:
        bridge.publish(snapshot)

    def record() -> None:
        bridge.record(event)

    def emit() -> None:
        bridge.emit(sample)

    return [
        median_row("emit a sample", _ns(emit, bridge, rounds), "ns", EMIT_NS),
        median_row("record an event", _ns(record, bridge, rounds), "ns"),
        median_row("publish a snapshot", _ns(publish, bridge, rounds), "ns"),
    ]


async def fan_out(rounds: int, seconds: float) -> list[Row]:
    """A thread emits sixty thousand samples a second; sixteen readers get them all, ten frames a second."""
    bridge = new_bridge()
    stop: list[bool] = []
    thread = threading.Thread(target=_emit, args=(bridge, stop), name="emitting")
    async with open_stage(bridge) as stage:
        thread.start()
        try:
            tallies = await drive(stage.address, stage.key_file, "subscribers", rounds, max(1.0, seconds))
        finally:
            stop.append(True)
            await asyncio.to_thread(thread.join)
            bridge.close("STOPPING")
    frames = [tally.per_s for tally in tallies]
    samples = [tally.num_items / tally.seconds for tally in tallies]
    return [
        median_row("frames to 16 readers", frames, "1/s"),
        median_row("samples to 16 readers", samples, "1/s", FAN_OUT_SAMPLES_PER_S, AT_LEAST),
    ]


def _emit(bridge: Bridge, stop: list[bool]) -> None:
    step = 0
    while not stop:
        step += 1
        for _ in range(SAMPLES_PER_S // 100):
            bridge.emit(("tolaria.step.loss", 0, step, 0.5, step))
        bridge.publish(replace(bridge.snapshot()))
        time.sleep(0.01)


def _ns(work: Callable[[], None], bridge: Bridge, rounds: int) -> list[float]:
    found: list[float] = []
    for _ in range(rounds):
        began_ns = time.thread_time_ns()
        for _ in range(NUM_CALLS):
            work()
        found.append((time.thread_time_ns() - began_ns) / NUM_CALLS)
        bridge.take_samples()
        bridge.take_events(NUM_CALLS)
    return found
