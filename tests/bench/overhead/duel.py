"""Two loops side by side, in one thread of one process, block by block: what one costs over the other.

Training thread. Every figure is a ratio or a difference of neighbouring blocks. The time in which the kernel let the
thread wait for a processor (other programs' doing) is left out where the kernel tells it; waiting for the interpreter,
which is our own doing, is in.
"""

import functools
import os
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from esperd.config.settings import TrainingSettings
from tests.bench.load import LoadProcess, Tally
from tests.bench.overhead.workload import Loop

WARM_S = 0.25
PERIOD = TrainingSettings().log_every_steps
"""Steps from one log step to the next."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two neighbouring blocks of as many steps."""

    bare_s: float
    ours_s: float
    num_steps: int

    @property
    def ratio(self) -> float:
        """How much longer ours took."""
        return self.ours_s / self.bare_s

    @property
    def extra_us(self) -> float:
        """Microseconds that ours took longer, a step."""
        return (self.ours_s - self.bare_s) / self.num_steps * 1e6


def timed(loop: Loop, num_steps: int) -> float:
    """Seconds for so many steps, without those spent in the queue for a processor."""
    queued_s = _queued_s()
    began_s = time.perf_counter()
    loop(num_steps)
    return time.perf_counter() - began_s - (_queued_s() - queued_s)


def step_s(loop: Loop) -> float:
    """About how long a step takes."""
    loop(3)
    return min(timed(loop, 3) for _ in range(5)) / 3


def idle(bare: Loop, ours: Loop, *, seconds: float) -> list[Pair]:
    """Single steps in turns, who begins changing from pair to pair; so close together that both meet the same machine.

    Pair i + PERIOD is in the same position of the log interval as pair i.
    """
    bare(PERIOD)
    ours(PERIOD)
    pairs: list[Pair] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(pairs) < 4 * PERIOD:
        if (len(pairs) // PERIOD) % 2:
            ours_s, bare_s = timed(ours, 1), timed(bare, 1)
        else:
            bare_s, ours_s = timed(bare, 1), timed(ours, 1)
        pairs.append(Pair(bare_s, ours_s, 1))
    return pairs


def loaded(
    bare: Loop, ours: Loop, loads: Sequence[LoadProcess], *, rounds: int, block_s: float
) -> tuple[list[Pair], list[list[Tally]]]:
    """Blocks of ours under load between blocks of the bare loop without; and what each load did in each round."""
    num_steps = max(5, round(block_s / step_s(bare)))
    warm_steps = max(3, round(WARM_S / step_s(bare)))
    bare_s = [timed(bare, num_steps)]
    ours_s, tallies = [], []
    for _ in range(rounds):
        for load in loads:
            load.on()
        ours(warm_steps)
        ours_s.append(timed(ours, num_steps))
        tallies.append([_off(load, ours) for load in loads])
        bare(warm_steps)
        bare_s.append(timed(bare, num_steps))
    pairs = [
        Pair((before + after) / 2, between, num_steps)
        for before, between, after in zip(bare_s, ours_s, bare_s[1:], strict=False)
    ]
    return pairs, tallies


def interval(values: Sequence[float], *, draws: int = 200) -> tuple[float, float, float]:
    """The mean over the positions of the log interval of each one's median, with a 95 % interval from resampling.

    Every tenth step logs: a plain median would not see it, a plain mean sees each hiccup of the machine.
    """
    positions = [values[first::PERIOD] for first in range(PERIOD)]
    source = random.Random(0)
    drawn = sorted(
        statistics.fmean(statistics.median(source.choices(found, k=len(found))) for found in positions)
        for _ in range(draws)
    )
    middle = statistics.fmean(statistics.median(found) for found in positions)
    return middle, drawn[int(0.025 * draws)], drawn[int(0.975 * draws) - 1]


def _queued_s() -> float:
    """Seconds for which this thread has been ready to run while no processor was free; 0 where nobody counts."""
    file = _schedule_file(threading.get_native_id())
    return 0.0 if file is None else int(os.pread(file, 96, 0).split()[1]) * 1e-9


@functools.cache
def _schedule_file(thread_id: int) -> int | None:
    try:
        return os.open(f"/proc/self/task/{thread_id}/schedstat", os.O_RDONLY)
    except OSError:
        return None


def _off(load: LoadProcess, ours: Loop) -> Tally:
    """Switch a load off; commands and emergencies on their way need safe points to be answered."""
    load.begin_off()
    while not load.is_off:
        ours(1)
    return load.result()
