"""`python -m tests.bench.overhead`: what a step in esperd takes over a step of the bare loop.

Same model, data and fused optimizer; one process, one torch thread; the real trainer in its thread beside the real
control plane on the main thread's loop, clients in processes of their own. Blocks of both loops take turns; the bare
blocks have no load. Takes about four minutes, under 40 seconds with `--quick`; `--only idle,loads` picks.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tests.bench.load import LoadProcess
from tests.bench.overhead import duel, frameworks, seeds
from tests.bench.overhead.workload import Loop, Size, bare_loop, calibrate, make_trainer, trainer_loop
from tests.bench.report import Row, arguments, median_row, publish
from tests.bench.stage import Stage, new_bridge, on_uvloop, open_stage

PARTS = ("idle", "loads", "seeds", "frameworks")
QUICK_PARTS = ("idle", "loads", "seeds")
MAX_EXTRA_US = 15.0
IDLE_GOALS = {0.25: None, 3.0: 1.01, 20.0: 1.01}
LOADS = (
    ("16 subscribers + 100 commands/s", ("subscribers", "steady"), 1.05),
    ("1000 commands/s in batches", ("stream-steady",), 1.05),
    ("flood of signed commands", ("flood-signed", "emergencies"), 1.15),
    ("flood of unsigned reads", ("flood-unsigned", "emergencies"), 1.15),
    ("flood of forged commands", ("flood-forged", "emergencies"), 1.15),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    idle_s: float
    rounds: int
    block_s: float
    loaded_sizes: tuple[float, ...]
    seeds_s: float
    num_loads: int
    """The first so many of `LOADS`."""


FULL = Effort(idle_s=8.0, rounds=7, block_s=1.0, loaded_sizes=(0.25, 3.0), seeds_s=4.0, num_loads=len(LOADS))
QUICK = Effort(idle_s=1.5, rounds=2, block_s=0.5, loaded_sizes=(3.0,), seeds_s=1.0, num_loads=3)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(PARTS)}")
    options = parser.parse_args()
    parts = options.only.split(",") if options.only else (QUICK_PARTS if options.quick else PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    rows = on_uvloop(lambda: measure(QUICK if options.quick else FULL, parts))
    publish(rows, as_json=options.json)


async def measure(effort: Effort, parts: Sequence[str]) -> list[Row]:
    """Serve, and have the training thread measure; one stage for each size of step."""
    rows: list[Row] = []
    for target_ms in IDLE_GOALS:
        if "idle" in parts or ("loads" in parts and target_ms in effort.loaded_sizes):
            async with open_stage(new_bridge()) as stage:
                rows += await asyncio.to_thread(_measure_size, stage, target_ms, effort, parts)
    if "seeds" in parts:
        rows += await asyncio.to_thread(_in_thread, lambda: seeds.rows(effort.seeds_s))
    if "frameworks" in parts:
        rows += await asyncio.to_thread(_in_thread, frameworks.rows)
    return rows


def _in_thread(work: Callable[[], list[Row]]) -> list[Row]:
    torch.set_num_threads(1)  # holds for the calling thread only
    return work()


def _measure_size(stage: Stage, target_ms: float, effort: Effort, parts: Sequence[str]) -> list[Row]:
    """The training thread of one size: idle first, then each load."""
    torch.set_num_threads(1)
    size = calibrate(target_ms)
    bare, ours = bare_loop(size.width), trainer_loop(make_trainer(size.width, stage.bridge))
    try:
        rows = _idle_rows(size, bare, ours, target_ms, effort) if "idle" in parts else []
        if "loads" in parts and target_ms in effort.loaded_sizes:
            for name, kinds, goal in LOADS[: effort.num_loads]:
                goal_here = goal if target_ms == 3.0 else None
                rows += _loaded_rows(f"{size.name}, {name}", stage, bare, ours, kinds, goal_here, effort)
        return rows
    finally:
        stage.bridge.close("STOPPING")


def _idle_rows(size: Size, bare: Loop, ours: Loop, target_ms: float, effort: Effort) -> list[Row]:
    pairs = duel.idle(bare, ours, seconds=effort.idle_s)
    ratio = duel.interval([pair.ratio for pair in pairs])
    extra = duel.interval([pair.extra_us for pair in pairs])
    bare_ms = [pair.bare_s / pair.num_steps * 1e3 for pair in pairs]
    return [
        median_row(f"{size.name}, bare step (width {size.width})", bare_ms, "ms"),
        Row(f"{size.name}, idle", *ratio, "ratio", IDLE_GOALS[target_ms]),
        Row(f"{size.name}, idle, extra", *extra, "us", MAX_EXTRA_US),
    ]


def _loaded_rows(
    name: str, stage: Stage, bare: Loop, ours: Loop, kinds: Sequence[str], goal: float | None, effort: Effort
) -> list[Row]:
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(LoadProcess(kind, stage.address, stage.key_file)) for kind in kinds]
        pairs, tallies = duel.loaded(bare, ours, loads, rounds=effort.rounds, block_s=effort.block_s)
    rows = [median_row(name, [pair.ratio for pair in pairs], "ratio", goal)]
    rates = {kind: [tally[number].per_s for tally in tallies] for number, kind in enumerate(kinds)}
    rows.append(median_row(f"{name}: answered", rates[kinds[0]], "1/s"))
    if "emergencies" in kinds:
        slowest = [tally[kinds.index("emergencies")].p99_ms for tally in tallies]
        rows.append(median_row(f"{name}: emergency", slowest, "ms"))
    return rows


if __name__ == "__main__":
    main()
