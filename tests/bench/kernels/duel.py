"""Several ways to take a seed's step, side by side in one thread of one process, block by block.

Every figure is a ratio of neighbouring blocks, so that all ways meet the same machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Step = Callable[[], None]
BLOCK_S = 0.02
"""Long enough for the clock, short enough that neighbours meet the same machine."""


def step_ms(step: Step) -> float:
    """About how long a step takes."""
    return min(_timed(step, 3) for _ in range(5)) / 3 * 1e3


def ratios(steps: Mapping[str, Step], base: str, num_rounds: int) -> dict[str, list[float]]:
    """For each way, how long its block took over that of `base`, round by round; who begins changes with the round."""
    names = list(steps)
    num_steps = {name: max(1, round(BLOCK_S * 1e3 / step_ms(steps[name]))) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names if name != base}
    for number in range(num_rounds):
        first = number % len(names)
        turn = [*names[first:], *names[:first]]
        took_s = {name: _timed(steps[name], num_steps[name]) / num_steps[name] for name in turn}
        for name, values in found.items():
            values.append(took_s[name] / took_s[base])
    return found


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def _timed(step: Step, num_steps: int) -> float:
    began_s = time.perf_counter()
    for _ in range(num_steps):
        step()
    return time.perf_counter() - began_s
