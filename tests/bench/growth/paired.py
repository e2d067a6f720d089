"""Small statistics of paired runs: the same random seed under two arms.

Pure functions over plain numbers; scipy does the tests.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True, slots=True)
class Paired:
    """Mean difference of two arms over the same random seeds, with a two-sided paired t-test."""

    mean: float
    low: float
    high: float
    p_value: float
    num_pairs: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """`first - second`, with a 95 % interval. Raises ValueError for fewer than two pairs or unequal lengths."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        raise ValueError("a paired test needs two pairs")
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = float(stats.t.ppf(0.975, len(differences) - 1)) * spread
    p_value = float(stats.ttest_rel(first, second).pvalue) if spread > 0 else 1.0 if mean == 0 else 0.0
    return Paired(mean, mean - reach, mean + reach, p_value, len(differences))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation."""
    return float(stats.spearmanr(first, second).statistic)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
