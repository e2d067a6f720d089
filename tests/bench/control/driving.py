"""Runs loads for some rounds, from a thread beside the loop that serves them."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import LoadProcess, Tally


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of load, and where it goes."""

    address: str
    key_file: Path
    kind: str


async def drive(address: str, key_file: Path, kind: str, rounds: int, seconds: float) -> list[Tally]:
    """What one kind of load did in each round."""
    return (await drive_in_turns({kind: Target(address, key_file, kind)}, rounds, seconds))[kind]


async def drive_in_turns(targets: Mapping[str, Target], rounds: int, seconds: float) -> dict[str, list[Tally]]:
    """What each load did in each round; they take turns, so that whatever else the machine does meets all alike."""
    return await asyncio.to_thread(_drive, targets, rounds, seconds)


def _drive(targets: Mapping[str, Target], rounds: int, seconds: float) -> dict[str, list[Tally]]:
    tallies: dict[str, list[Tally]] = {name: [] for name in targets}
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(LoadProcess(target.kind, target.address, target.key_file))
            for name, target in targets.items()
        }
        for _ in range(rounds):
            for name, process in processes.items():
                process.on()
                time.sleep(seconds)
                process.begin_off()
                tallies[name].append(process.result())
    return tallies
