"""What the demo measured, as values: one result per run, arms over random seeds, paired differences.

Pure; knows nothing of processes. Differences are paired: the same random seed gives the same first weights and the
same order of batches in every arm.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ARMS = ("host", "host_equal_flops", "random", "tamiyo", "scratch", "static")
"""In the order of the table."""


@dataclass(frozen=True, slots=True)
class Grown:
    """One seed that was kept: what it is and where."""

    site: str
    blueprint_id: str
    parameters: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of one arm."""

    val_loss: float
    val_accuracy: float
    """NaN when the task reports none."""
    params: int
    train_flops: float
    steps: int


@dataclass(frozen=True, slots=True)
class GrownRun:
    """One run of a daemon that a policy steered."""

    result: RunResult
    fossils: tuple[Grown, ...]
    num_culled: int
    daemon_pid: int
    policy_pid: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation over the random seeds; 0 spread for one."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm over all random seeds; counts are means, rounded."""

    val_loss: Spread
    val_accuracy: Spread
    params: int
    train_flops: float
    steps: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean difference of the validation loss (negative: the first arm is better) with a two-sided paired t-test."""

    delta: float
    p: float | None
    """None with fewer than two random seeds, or when every difference is the same."""


def summarise(runs: Sequence[RunResult]) -> ArmSummary:
    """Put the runs of one arm together."""
    return ArmSummary(
        val_loss=_spread([run.val_loss for run in runs]),
        val_accuracy=_spread([run.val_accuracy for run in runs]),
        params=round(statistics.fmean(run.params for run in runs)),
        train_flops=statistics.fmean(run.train_flops for run in runs),
        steps=round(statistics.fmean(run.steps for run in runs)),
    )


def compare(first: Sequence[RunResult], second: Sequence[RunResult]) -> PairedDifference:
    """Validation loss of `first` minus `second`, random seed by random seed."""
    differences = [a.val_loss - b.val_loss for a, b in zip(first, second, strict=True)]
    return PairedDifference(statistics.fmean(differences), _p_value(differences))


def paired_differences(runs: Mapping[str, Sequence[RunResult]]) -> dict[str, PairedDifference]:
    """Tamiyo's arm against every other, as `tamiyo_vs_<arm>`."""
    return {f"tamiyo_vs_{arm}": compare(runs["tamiyo"], runs[arm]) for arm in ARMS if arm != "tamiyo"}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def _p_value(differences: Sequence[float]) -> float | None:
    if len(differences) < 2 or not all(map(math.isfinite, differences)) or len(set(differences)) == 1:
        return None
    from scipy import stats  # half a second to import, needed once and at the end

    return float(stats.ttest_1samp(differences, 0.0).pvalue)
