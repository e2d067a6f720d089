"""Trials of speed: a training step's forward and backward against the eager module's, in turns.

The validator's own process, which gives way to training: only the ratio of neighbouring measurements means anything.
"""

import statistics
import time
from collections.abc import Callable

from torch import Tensor

from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.specimen import Specimen

WINDOW_S = 3e-3
"""Shortest time measured in one go."""
BUDGET_S = 1.0
MIN_ROUNDS, MAX_ROUNDS = 5, 101


def speed(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Ratios with and without the gradient of the activation."""
    for name, needs_gradient in (("step_ratio", True), ("parameter_step_ratio", False)):
        ratios, eager_ms = _ratios(specimen, kernel, needs_gradient)
        quarters = statistics.quantiles(ratios, n=4)
        detail = f"eager {eager_ms:.3f} ms; {len(ratios)} rounds, half of them {quarters[0]:.2f} to {quarters[2]:.2f}"
        channel.measured(name, statistics.median(ratios), detail)


def _ratios(specimen: Specimen, kernel: Kernel, needs_gradient: bool) -> tuple[list[float], float]:
    module = specimen.module(1)
    x = specimen.activation(specimen.manifest.hint_batch, 1).requires_grad_(needs_gradient)
    eager = _step(specimen, module, x)
    compiled = _step(specimen, Joined(kernel, module), x)
    for step in (eager, compiled):
        _time(specimen, step, 3)
    num_steps = max(1, round(WINDOW_S / min(_time(specimen, eager, 3), _time(specimen, compiled, 3))))
    ratios: list[float] = []
    eager_s: list[float] = []
    ends = time.monotonic() + BUDGET_S
    while len(ratios) < MIN_ROUNDS or (len(ratios) < MAX_ROUNDS and time.monotonic() < ends):
        # Who comes first changes, so that neither has the warmer cache every time.
        pair = (eager, compiled) if len(ratios) % 2 else (compiled, eager)
        took = {id(step): _time(specimen, step, num_steps) for step in pair}
        ratios.append(took[id(compiled)] / took[id(eager)])
        eager_s.append(took[id(eager)])
    return ratios, 1e3 * statistics.median(eager_s)


def _step(specimen: Specimen, function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    def step() -> None:
        with specimen.conditions():
            delta = function(x)
        delta.backward(delta.detach())  # type: ignore[no-untyped-call]

    return step


def _time(specimen: Specimen, step: Callable[[], None], times: int) -> float:
    """Seconds of one step."""
    specimen.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        step()
    specimen.synchronize()
    return (time.perf_counter() - began) / times
