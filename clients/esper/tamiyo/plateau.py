"""Whether a loss has stopped falling.

Pure functions over the history of an observation. The slope is a least-squares fit, so that a single noisy probe
neither starts nor prevents growth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from esper.tamiyo.observation import Point

MIN_POINTS = 4
"""Fewer points say nothing about a slope."""
MIN_COVERED = 0.75
"""Share of the window that the points must span."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How one loss moved over the last window."""

    series: str
    """`probe loss`, `validation loss` or `training loss`."""
    improvement: float
    """Fall of the fitted line over the window as a share of the mean loss; negative when it rose."""
    num_points: int


_SERIES: tuple[tuple[str, Callable[[Point], float]], ...] = (
    ("probe loss", lambda point: point.probe_loss),
    ("validation loss", lambda point: point.validation_loss),
    ("training loss", lambda point: point.training_loss),
)


def trend(history: Sequence[Point], window_steps: float) -> Trend | None:
    """The trend of the best loss that was measured often enough in the window; None if none was."""
    if not history or window_steps <= 0:
        return None
    since = history[-1].step - window_steps
    for name, read in _SERIES:
        points = [(point.step, read(point)) for point in history if point.step >= since]
        finite = [(step, loss) for step, loss in points if math.isfinite(loss)]
        if len(finite) >= MIN_POINTS and finite[-1][0] - finite[0][0] >= MIN_COVERED * window_steps:
            return Trend(name, _improvement(finite, window_steps), len(finite))
    return None


def _improvement(points: Sequence[tuple[int, float]], window_steps: float) -> float:
    mean_step = math.fsum(step for step, _ in points) / len(points)
    mean_loss = math.fsum(loss for _, loss in points) / len(points)
    spread = math.fsum((step - mean_step) ** 2 for step, _ in points)
    slope = math.fsum((step - mean_step) * (loss - mean_loss) for step, loss in points) / spread
    scale = abs(mean_loss)
    return -slope * window_steps / scale if scale > 0.0 else 0.0
