"""Latencies beside a real trainer whose steps take about 3 ms."""

import asyncio
import threading

import torch

from esperd.bridge.bridge import Bridge
from tests.bench.control.driving import drive
from tests.bench.overhead.workload import calibrate, make_trainer
from tests.bench.report import Row, median_row
from tests.bench.stage import new_bridge, open_stage

STEP_MS = 3.0
KINDS = (
    ("one-read", "read while training"),
    ("steady", "100 commands/s while training"),
    ("stream-64", "stream of 64 while training"),
)


async def rows(rounds: int, seconds: float) -> list[Row]:
    """p50 and p99 of calls, and what a stream gets through."""
    found: list[Row] = []
    bridge = new_bridge()
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=_train, args=(bridge, stop, ready), name="training")
    async with open_stage(bridge) as stage:
        thread.start()
        try:
            await asyncio.to_thread(ready.wait)
            for kind, name in KINDS:
                tallies = await drive(stage.address, stage.key_file, kind, rounds, seconds)
                if kind == "stream-64":
                    found.append(median_row(name, [tally.per_s for tally in tallies], "1/s"))
                else:
                    found.append(median_row(f"{name}, p50", [tally.p50_ms for tally in tallies], "ms"))
                    found.append(median_row(f"{name}, p99", [tally.p99_ms for tally in tallies], "ms"))
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)
    return found


def _train(bridge: Bridge, stop: threading.Event, ready: threading.Event) -> None:
    torch.set_num_threads(1)
    trainer = make_trainer(calibrate(STEP_MS).width, bridge)
    ready.set()
    while not stop.is_set():
        trainer.step()
    bridge.close("STOPPING")
