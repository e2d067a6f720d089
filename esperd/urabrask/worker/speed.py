"""Trials of speed: a training step's forward and backward against the eager module's, in turns.

The validator's own process, which gives way to training: most of what it measures is somebody else's time. What others
do only ever adds, so the quick rounds of both are compared, taken in turns over the same second.
"""

import statistics
import time
from collections.abc import Callable

from torch import Tensor

from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.specimen import Specimen

WINDOW_S = 1e-3
"""Time measured in one go: short enough that some pass without anybody in between."""
BUDGET_S = 1.0
MIN_ROUNDS, MAX_ROUNDS = 10, 400
MAX_ATTEMPTS = 3


def speed(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Ratios with and without the gradient of the activation; of several attempts the best, once one is no loss."""
    for name, needs_gradient in (("step_ratio", True), ("parameter_step_ratio", False)):
        attempts: list[tuple[float, float]] = []
        while len(attempts) < MAX_ATTEMPTS and all(compiled > eager for compiled, eager in attempts):
            eager_s, compiled_s = _times(specimen, kernel, needs_gradient)
            attempts.append((_quick(compiled_s), _quick(eager_s)))
        compiled, eager = min(attempts, key=lambda pair: pair[0] / pair[1])
        detail = f"{1e3 * compiled:.3f} ms, eager {1e3 * eager:.3f} ms; attempt {len(attempts)}"
        channel.measured(name, compiled / eager, detail)


def _times(specimen: Specimen, kernel: Kernel, needs_gradient: bool) -> tuple[list[float], list[float]]:
    """Seconds of a step, eager and compiled, round by round."""
    module = specimen.module(1)
    x = specimen.activation(specimen.manifest.hint_batch, 1).requires_grad_(needs_gradient)
    steps = (_step(specimen, module, x), _step(specimen, Joined(kernel, module), x))
    for step in steps:
        _time(specimen, step, 3)
    num_steps = max(1, round(WINDOW_S / min(_time(specimen, step, 3) for step in steps)))
    found: tuple[list[float], list[float]] = ([], [])
    ends = time.monotonic() + BUDGET_S
    while len(found[0]) < MIN_ROUNDS or (len(found[0]) < MAX_ROUNDS and time.monotonic() < ends):
        # Who comes first changes, so that neither has the warmer cache every time.
        for which in (0, 1) if len(found[0]) % 2 else (1, 0):
            found[which].append(_time(specimen, steps[which], num_steps))
    return found


def _quick(times_s: list[float]) -> float:
    """The quickest tenth's upper end."""
    return statistics.quantiles(times_s, n=10)[0]


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
