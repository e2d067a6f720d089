"""One calm line that says where the demo is: redrawn on a terminal, else a new line every few seconds.

Event loop of the demo. Writes to stderr when the result goes to stdout as JSON.
"""

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from esper.leyline.v1.state_pb2 import Run, SeedState
from esper.leyline.v1.vocabulary_pb2 import SeedLifecycleStage
from rich.console import Console
from rich.status import Status

PIPED_INTERVAL_S = 5.0
PREFIX = "SEED_STAGE_"


class LiveLine:
    """Context manager around the part of the demo that takes time."""

    def __init__(self, console: Console, num_runs: int) -> None:
        self._console = console
        self._num_runs = num_runs
        self._status = Status("starting", console=console, spinner="dots", refresh_per_second=4)
        self._shown_s = -math.inf
        self._progress = f"0/{num_runs} runs"
        self._shown_run = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def set_progress(self, num_done: int) -> None:
        """How many runs of the whole demo are done."""
        self._progress = f"{num_done}/{self._num_runs} runs"
        if not self._shown_run:
            self._print("training the arms that need no daemon")

    def show(self, run_name: str, text: str) -> None:
        """Say where a run is; of several at once the line stays with one until that is over."""
        self._shown_run = self._shown_run or run_name
        if run_name == self._shown_run:
            self._print(text)

    def leave(self, run_name: str) -> None:
        """The run is over: the line is free for another."""
        if run_name == self._shown_run:
            self._shown_run = ""

    def _print(self, text: str) -> None:
        line = f"{self._progress}  {text}"
        if self._console.is_terminal:
            self._status.update(line)
            return
        now_s = time.monotonic()
        if now_s - self._shown_s >= PIPED_INTERVAL_S:
            self._shown_s = now_s
            self._console.print(line, highlight=False, soft_wrap=True)


def describe_run(name: str, run: Run, seeds: Sequence[SeedState]) -> str:
    """`name  step 400/1500  loss 0.512  accuracy 84.2 %  block1: residual_conv TRAINING` ..."""
    parts = [name, f"step {run.global_step}/{run.num_steps_total}"]
    if math.isfinite(run.train_loss):
        parts.append(f"loss {run.train_loss:.3f}")
    accuracy = run.metrics.get("accuracy", math.nan)
    if math.isfinite(accuracy):
        parts.append(f"accuracy {100 * accuracy:.1f} %")
    if run.stall:
        parts.append(f"({run.stall})")
    parts += [_describe_seed(seed) for seed in seeds]
    return "  ".join(parts)


def _describe_seed(seed: SeedState) -> str:
    stage = SeedLifecycleStage.Name(seed.stage).removeprefix(PREFIX).lower()
    alpha = f" {seed.alpha:.2f}" if 0.0 < seed.alpha < 1.0 else ""
    return f"{seed.site}:{seed.blueprint_id} {stage}{alpha}"
