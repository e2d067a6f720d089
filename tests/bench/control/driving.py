"""Runs a load for some rounds, from a thread beside the loop that serves it."""

import asyncio
import time
from pathlib import Path

from tests.bench.load import LoadProcess, Tally


async def drive(address: str, key_file: Path, kind: str, rounds: int, seconds: float) -> list[Tally]:
    """What one kind of load did in each round."""
    return await asyncio.to_thread(_drive, address, key_file, kind, rounds, seconds)


def _drive(address: str, key_file: Path, kind: str, rounds: int, seconds: float) -> list[Tally]:
    tallies: list[Tally] = []
    with LoadProcess(kind, address, key_file) as process:
        for _ in range(rounds):
            process.on()
            time.sleep(seconds)
            process.begin_off()
            tallies.append(process.result())
    return tallies
