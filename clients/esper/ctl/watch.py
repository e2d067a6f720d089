"""`esperctl watch`: the run on one line that stays in its place, or as plain lines in a pipe.

Asks for run and seeds at every update: WatchState tells only of what changes the state's revision, not of each step.
Old numbers are never shown as new: when no answer has come for a while, the line says for how long.
"""

import asyncio
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from esper import numbers
from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.output import as_values, count, duration, number
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import run_service_pb2, state_pb2, state_service_pb2, vocabulary_pb2
from esper.text import plain

if TYPE_CHECKING:
    from esper.client.aio import AsyncClient

ANSWER_S = 2.0
"""How long one look may wait for its answer."""
GIVE_UP_S = 60.0
"""Silence after which the watch ends."""
STALE_S = 3.0
"""Silence after which the numbers count as old."""
LIVE = frozenset({"GERMINATED", "TRAINING", "BLENDING", "SHADOWING", "PROBATIONARY"})
ENDED = (vocabulary_pb2.TRAINER_PHASE_FINISHED, vocabulary_pb2.TRAINER_PHASE_FAILED)


@dataclass(slots=True)
class Picture:
    """The run as the watch has seen it."""

    run: state_pb2.Run = field(default_factory=state_pb2.Run)
    seeds: list[state_pb2.SeedState] = field(default_factory=list)
    revision: int = 0
    seen_s: float = -math.inf
    """When the last answer came."""

    def take(
        self, run: run_service_pb2.GetRunResponse, seeds: state_service_pb2.ListSeedsResponse, now_s: float
    ) -> None:
        """Take in a fresh look."""
        self.run = run.run
        self.seeds = list(seeds.seeds)
        self.revision = run.revision
        self.seen_s = now_s

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.run.phase in ENDED

    def silent_s(self, now_s: float) -> float:
        """Seconds since the last answer, 0 while that is short."""
        silent_s = now_s - self.seen_s
        return silent_s if silent_s >= STALE_S else 0.0


def line(picture: Picture, now_s: float) -> str:
    """The picture in one line, most important things first."""
    run = picture.run
    parts = [_progress(run), f"loss {number(run.train_loss)}", f"val {number(run.val_loss)}"]
    if "accuracy" in run.metrics:
        parts.append(f"acc {run.metrics['accuracy']:.1%}")
    parts.append(f"{count(run.samples_per_s)} samples/s")
    left = run.num_steps_total - run.global_step
    if run.num_steps_total and left > 0 and run.step_ms > 0 and not picture.over:
        parts.append(f"ETA {duration(left * run.step_ms / 1e3)}")
    phase = words.phase(run.phase)
    if run.timeline > 1:
        parts.insert(0, f"timeline {run.timeline}")
    if phase != "TRAINING":
        parts.insert(0, f"{phase} to step {run.catch_up_step}" if run.catch_up_step else phase)
    if run.emergency_level:
        parts.insert(0, f"EMERGENCY {words.level(run.emergency_level)}")
    if run.stall:
        parts.append(f"stalled: {run.stall}")
    live = [_seed(seed) for seed in picture.seeds if words.stage(seed.stage) in LIVE]
    fossils = sum(words.stage(seed.stage) == "FOSSILIZED" for seed in picture.seeds)
    parts += live
    if fossils:
        parts.append(f"{fossils} fossilized")
    silent_s = picture.silent_s(now_s)
    if silent_s:
        parts.insert(0, f"stale {silent_s:.0f} s")
    return plain(" | ".join(parts))


def values(picture: Picture, now_s: float) -> str:
    """The picture as one line of JSON."""
    found = {
        "revision": str(picture.revision),
        "staleS": round(picture.silent_s(now_s), 1),
        "run": as_values(picture.run),
        "seeds": [as_values(seed) for seed in picture.seeds],
    }
    return json.dumps(found)


@click.command()
@click.option(
    "--interval",
    "interval_s",
    type=numbers.FiniteRange(0.1, 3600),
    default=None,
    metavar="SECONDS",
    help="Time between updates.  [default: 0.5 on a terminal, 2 in a pipe]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["line", "json"]),
    default="line",
    show_default=True,
    help="One line, or JSON lines.",
)
@click.pass_obj
def watch(where: Where, interval_s: float | None, output: str) -> None:
    """Follow the run until it ends; exit 1 if it failed."""
    in_place = output == "line" and sys.stdout.isatty()
    shown = values if output == "json" else line
    run_reporting(_watch, where, interval_s or (0.5 if in_place else 2.0), shown, _in_place if in_place else click.echo)


def _watch(where: Where, interval_s: float, shown: Callable[[Picture, float], str], say: Callable[[str], None]) -> None:
    picture = Picture()
    try:
        asyncio.run(_follow(where, picture, interval_s, shown, say))
    finally:
        if say is _in_place:
            click.echo()
    if picture.run.phase == vocabulary_pb2.TRAINER_PHASE_FAILED:
        raise Failed(f"E-RUN-003: The run failed: {picture.run.failure}. Read the log for the traceback of the task.")


async def _follow(
    where: Where,
    picture: Picture,
    interval_s: float,
    shown: Callable[[Picture, float], str],
    say: Callable[[str], None],
) -> None:
    from esper.client.aio import AsyncClient

    target = where.target()
    async with AsyncClient(target.address, target.credentials, timeout_s=ANSWER_S) as client:
        while not picture.over:
            await _look(client, picture)
            say(shown(picture, time.monotonic()))
            if not picture.over:
                await asyncio.sleep(interval_s)


async def _look(client: "AsyncClient", picture: Picture) -> None:
    """Bring the picture up to date; a daemon that was there is given some time to come back."""
    from esper.client.errors import Unreachable

    try:
        picture.take(await client.run(), await client.seeds(), time.monotonic())
    except Unreachable:
        if time.monotonic() - picture.seen_s > GIVE_UP_S:
            raise


def _progress(run: state_pb2.Run) -> str:
    if not run.num_steps_total:
        return f"step {run.global_step}"
    return f"step {run.global_step}/{run.num_steps_total} {run.global_step / run.num_steps_total:.0%}"


def _seed(seed: state_pb2.SeedState) -> str:
    stage = words.stage(seed.stage)
    alpha = f" a={seed.alpha:.2f}" if seed.alpha else ""
    return f"seed {seed.seed_id} {stage}{alpha}"


def _in_place(text: str) -> None:
    """Write over the line before; cut to the terminal's width so that it never wraps."""
    width = shutil.get_terminal_size().columns
    sys.stdout.write("\r" + text[: width - 1].ljust(width - 1))
    sys.stdout.flush()
