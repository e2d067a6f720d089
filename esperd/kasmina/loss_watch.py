"""The arithmetic of the guard that watches a run while a seed blends: which loss is suspicious, and who caused it.

Runs on the training thread; plain Python numbers, no torch. Knows no seed and acts on nothing: the guard asks, and
culls. Three rules (design 03, Guard while blending; all measured there): a batch loss beyond mean + 6 sd of a window
of 50 is *suspicious*; it is *confirmed* only if the same batch without the seed is better by more than 3 standard
errors, else the host itself made the jump; and small paired probes catch slow harm.

The window ends ten steps back: a loss that doubles every two steps would otherwise raise its own limit faster than it
grows (seen with a seed that climbs its gradient), and by then the host has learned to lean on what harms it.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

WINDOW: Final = 50
LAG: Final = 10
"""The newest losses, which say nothing yet about what is normal."""
MIN_LOSSES: Final = 10
"""Below this count a standard deviation says too little to call anything suspicious."""
SUSPICION_SDS: Final = 6.0
SUSPICION_FLOOR: Final = 0.05
"""Added to the limit, so that a run whose loss hardly moves does not trip over noise (nats)."""
CONFIRMATION_SES: Final = 3.0
PROBE_WINDOW: Final = 4
PROBE_Z: Final = 2.3263478740408408
"""One-sided 99 % point of the normal distribution."""


class LossWatch:
    """The host's losses up to ten steps back, and whether a new one lies outside what they lead one to expect.

    `observe` is what each step pays (an append); the statistics are made over the window when asked for.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW + LAG)
        for loss in losses:
            self.observe(loss)

    def observe(self, loss: float) -> None:
        """Take in the loss of a step that was carried out; a loss that is not finite is left out."""
        if math.isfinite(loss):
            self._losses.append(loss)

    @property
    def num_losses(self) -> int:
        """How many losses are kept."""
        return len(self._losses)

    @property
    def mean(self) -> float:
        """Mean of the window, NaN while it is empty."""
        window = self._window()
        return math.fsum(window) / len(window) if window else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation of the window, 0 below two losses."""
        return _mean_and_std(self._window())[1]

    @property
    def limit(self) -> float:
        """The highest loss that is not suspicious: mean + 6 sd + 0.05; infinite below 10 losses."""
        window = self._window()
        if len(window) < MIN_LOSSES:
            return math.inf
        mean, std = _mean_and_std(window)
        return mean + SUSPICION_SDS * std + SUSPICION_FLOOR

    def _window(self) -> list[float]:
        """All but the newest ten, once there are enough without them."""
        losses = list(self._losses)
        return losses[:-LAG] if len(losses) >= MIN_LOSSES + LAG else losses

    def is_suspicious(self, loss: float) -> bool:
        """Whether this loss, not yet observed, calls for the counterfactual; one that is not finite always does."""
        return not math.isfinite(loss) or loss > self.limit

    def state(self) -> list[float]:
        """The window, oldest loss first; `LossWatch(state)` goes on from it."""
        return list(self._losses)


class ProbeWatch:
    """Slow harm: the paired differences (without minus with the seed) of the last four small probes.

    Feed it one probe every ten steps, 64 samples each.
    """

    def __init__(self, probes: Iterable[Sequence[float]] = ()) -> None:
        self._probes: deque[tuple[float, ...]] = deque(maxlen=PROBE_WINDOW)
        for probe in probes:
            self.observe(probe)

    def observe(self, differences: Sequence[float]) -> None:
        """Take in the differences of one probe."""
        self._probes.append(tuple(float(difference) for difference in differences))

    @property
    def upper(self) -> float:
        """99 % upper bound on what the seed is worth now; infinite without two differences, -inf if one is not finite.

        A plain z bound over a short window: it guards, it does not measure (see `evidence` for that).
        """
        values = [difference for probe in self._probes for difference in probe]
        if not all(map(math.isfinite, values)):
            return -math.inf
        if len(values) < 2:
            return math.inf
        mean, std = _mean_and_std(values)
        return mean + PROBE_Z * std / math.sqrt(len(values))

    def state(self) -> list[list[float]]:
        """The window, oldest probe first; `ProbeWatch(state)` goes on from it."""
        return [list(probe) for probe in self._probes]


def confirms_harm(losses_with: Sequence[float], losses_without: Sequence[float]) -> bool:
    """Whether the seed, not the batch, made the losses of this batch high.

    True if the mean of `with - without` is more than 3 standard errors above 0, or if only the losses with the seed
    are not finite. If the losses without it are not finite either, the seed is not to blame.

    Raises:
        ValueError: the two do not have the same length of at least two.
    """
    if len(losses_with) != len(losses_without) or len(losses_with) < 2:
        raise ValueError(f"need paired losses, at least two: got {len(losses_with)} and {len(losses_without)}")
    if not all(map(math.isfinite, losses_without)):
        return False
    if not all(map(math.isfinite, losses_with)):
        return True
    differences = [a - b for a, b in zip(losses_with, losses_without, strict=True)]
    mean, std = _mean_and_std(differences)
    return mean > CONFIRMATION_SES * std / math.sqrt(len(differences))


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    count = len(values)
    if count < 2:
        return (values[0] if count else math.nan), 0.0
    mean = math.fsum(values) / count
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (count - 1))
