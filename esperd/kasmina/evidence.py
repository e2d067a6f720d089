"""Whether a seed helps, decided from paired loss differences in a way that stays honest however often one looks.

Runs on any thread; plain Python numbers, no torch. Knows no seed and draws no sample: it is fed the differences
"loss without the seed minus loss with it" (positive: it helps), one for each unit (a sample; for language models a
sequence), all from held-out data and a frozen seed.

A z-test at every look waves through a third of useless seeds. Two rules that do not: the asymptotic confidence
sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021), good from 64 units on, and in strict mode a betting
e-process (Waudby-Smith and Ramdas 2023), exact for capped losses and about twice as slow. Design 03, Measuring.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

MIN_SAMPLES: Final = 64
TIGHTEST_AT: Final = 256
"""Sample count at which the sequence is tightest; our good seeds are decided between 100 and 250."""
DEFAULT_LEVEL: Final = 0.05
LARGEST_BET: Final = 0.75
"""Share of the wealth that a single worst outcome may cost."""


class EvidenceError(ValueError):
    """A measurement or a setting that no statistic can be made of."""


def level_for(germination: int, total: float = DEFAULT_LEVEL) -> float:
    """The error level of the k-th germination, `total * 6 / (pi^2 k^2)`, so that all together spend `total`.

    Without this the k-th useless seed gets through by luck.
    """
    if germination < 1:
        raise EvidenceError(f"germinations are counted from 1, got {germination}")
    _check_level(total)
    return total * 6.0 / (math.pi**2 * germination**2)


class ConfidenceSequence:
    """Bounds on a mean, one-sided at `level` each, that hold at all sample counts at once.

    `radius = sd * sqrt(2 (n rho2 + 1) / (n^2 rho2) * log(1 + sqrt(n rho2 + 1) / (2 level)))`
    with `rho2 = (-2 log(2 level) + log(1 - 2 log(2 level))) / 256`.

    Streaming (Welford), so memory does not grow. Start a new one at each stage and whenever the seed moves.

    Raises:
        EvidenceError: a level outside (0, 0.5), or a value that is not finite.
    """

    def __init__(self, level: float = DEFAULT_LEVEL) -> None:
        _check_level(level)
        self.level = level
        self.num_samples = 0
        self._mean = 0.0
        self._squares = 0.0
        log_term = -2.0 * math.log(2.0 * level)
        self._rho2 = (log_term + math.log(log_term + 1.0)) / TIGHTEST_AT

    def update(self, differences: Iterable[float]) -> None:
        """Take in the differences of one probe batch; looking after each batch costs nothing in error rate."""
        for difference in _checked(differences):
            self.num_samples += 1
            gap = difference - self._mean
            self._mean += gap / self.num_samples
            self._squares += gap * (difference - self._mean)

    @property
    def mean(self) -> float:
        """Mean difference so far, 0 while there is none."""
        return self._mean

    @property
    def std(self) -> float:
        """Sample standard deviation of the differences."""
        return math.sqrt(self._squares / (self.num_samples - 1)) if self.num_samples > 1 else 0.0

    @property
    def radius(self) -> float:
        """Distance of each bound from the mean; infinite below 64 samples, where the asymptotics do not hold."""
        n = self.num_samples
        if n < MIN_SAMPLES:
            return math.inf
        spread = n * self._rho2 + 1.0
        log_term = math.log1p(math.sqrt(spread) / (2.0 * self.level))
        return self.std * math.sqrt(2.0 * spread / (n * n * self._rho2) * log_term)

    @property
    def lower(self) -> float:
        """The mean is above this, but for `level` of all runs."""
        return self._mean - self.radius

    @property
    def upper(self) -> float:
        """The mean is below this, but for `level` of all runs."""
        return self._mean + self.radius

    def state(self) -> dict[str, float]:
        """Everything needed to go on, as plain values."""
        return {
            "level": self.level,
            "num_samples": self.num_samples,
            "mean": self._mean,
            "squares": self._squares,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> "ConfidenceSequence":
        """The sequence whose `state()` this is."""
        sequence = cls(state["level"])
        sequence.num_samples = int(state["num_samples"])
        sequence._mean = state["mean"]
        sequence._squares = state["squares"]
        return sequence


class BettingEProcess:
    """Wealth of a gambler who bets that a seed gains more than `null_gain`; at `1 / level` the claim is proven.

    Exact at every sample count for losses within 0 and `loss_cap` (4 log(classes) is a good cap). The losses are
    capped, never the differences, else a rare disaster would be hidden. Bets by aGRAPA, at most `LARGEST_BET`.

    Raises:
        EvidenceError: a level, cap or gain outside its limits, lists of unequal length, a loss that is NaN.
    """

    def __init__(self, level: float, loss_cap: float, null_gain: float = 0.0) -> None:
        _check_level(level)
        if not (loss_cap > 0.0 and math.isfinite(loss_cap) and abs(null_gain) < loss_cap):
            raise EvidenceError(f"need 0 <= |null_gain| < loss_cap, got {null_gain} and {loss_cap}")
        self.level = level
        self.loss_cap = loss_cap
        self.null_gain = null_gain
        self.num_samples = 0
        self._null = (null_gain + loss_cap) / (2.0 * loss_cap)
        self._sum = 0.5
        self._squares = 0.25
        self._log_wealth = 0.0
        self._log_wealth_max = 0.0

    def update(self, losses_without: Iterable[float], losses_with: Iterable[float]) -> None:
        """Take in the paired losses of one probe batch; an infinite loss counts as the cap."""
        for without, with_seed in _pairs(losses_without, losses_with):
            difference = self._capped(without) - self._capped(with_seed)
            self._bet((difference + self.loss_cap) / (2.0 * self.loss_cap))

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth now; it starts at 0."""
        return self._log_wealth

    @property
    def p_value(self) -> float:
        """Anytime-valid p-value of "gains at most `null_gain`"."""
        return math.exp(-self._log_wealth_max)

    @property
    def proven(self) -> bool:
        """Whether the wealth has ever reached `1 / level`."""
        return self._log_wealth_max >= -math.log(self.level)

    def state(self) -> dict[str, float]:
        """Everything needed to go on, as plain values."""
        return {
            "level": self.level,
            "loss_cap": self.loss_cap,
            "null_gain": self.null_gain,
            "num_samples": self.num_samples,
            "sum": self._sum,
            "squares": self._squares,
            "log_wealth": self._log_wealth,
            "log_wealth_max": self._log_wealth_max,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> "BettingEProcess":
        """The process whose `state()` this is."""
        process = cls(state["level"], state["loss_cap"], state["null_gain"])
        process.num_samples = int(state["num_samples"])
        process._sum = state["sum"]
        process._squares = state["squares"]
        process._log_wealth = state["log_wealth"]
        process._log_wealth_max = state["log_wealth_max"]
        return process

    def _bet(self, outcome: float) -> None:
        """One round: the stake is fixed by the past alone, then the outcome in [0, 1] is looked at."""
        count = self.num_samples + 1
        edge = self._sum / count - self._null
        variance = self._squares / count
        stake = min(max(edge / (variance + edge * edge), 0.0), LARGEST_BET / self._null)
        self._log_wealth += math.log1p(stake * (outcome - self._null))
        self._log_wealth_max = max(self._log_wealth_max, self._log_wealth)
        self.num_samples = count
        self._sum += outcome
        self._squares += (outcome - self._sum / (count + 1)) ** 2

    def _capped(self, loss: float) -> float:
        return min(max(loss, 0.0), self.loss_cap)


def _check_level(level: float) -> None:
    if not 0.0 < level < 0.5:
        raise EvidenceError(f"an error level must be within 0 and 0.5, got {level}")


def _checked(values: Iterable[float]) -> list[float]:
    """All values, refused together, so that a bad batch leaves nothing half counted."""
    batch = [float(value) for value in values]
    if not all(map(math.isfinite, batch)):
        raise EvidenceError("a loss difference is not finite; a seed that causes one is to be culled, not measured")
    return batch


def _pairs(losses_without: Iterable[float], losses_with: Iterable[float]) -> list[tuple[float, float]]:
    """All pairs, refused together, so that a bad batch leaves nothing half counted."""
    without, with_seed = [float(loss) for loss in losses_without], [float(loss) for loss in losses_with]
    if len(without) != len(with_seed):
        raise EvidenceError(f"losses must be paired, got {len(without)} without and {len(with_seed)} with the seed")
    if any(map(math.isnan, without + with_seed)):
        raise EvidenceError("a loss is NaN; a seed that causes one is to be culled, not measured")
    return list(zip(without, with_seed, strict=True))
