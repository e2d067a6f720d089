"""How often a useless seed is committed when one looks after every probe: a simulation of the sequential rule.

Paired loss differences with mean zero and nearly the shape of real probes (skew -1.4, kurtosis 14); looks every 32
units up to 1,024. Goal: at most 5 % wrong commits. A plain z-test at every look stands beside it, and our rule on
differences of a far worse shape (skew -6.5, kurtosis 100), where the asymptotics arrive late.
"""

import math
import random
from dataclasses import dataclass

from esperd.kasmina.judgement import Judgement
from tests.bench.report import Row

UNITS_PER_LOOK = 32
MAX_UNITS = 1024
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """Differences that are mostly small, and rarely a disaster."""

    disaster_share: float
    disaster_size: float
    small: float

    def draw(self, stream: random.Random) -> float:
        """One difference; the mean is zero."""
        mean_loss = self.disaster_share * self.disaster_size
        if stream.random() < self.disaster_share:
            return mean_loss + stream.gauss(0.0, self.small) - self.disaster_size * stream.expovariate(1.0)
        return mean_loss + stream.gauss(0.0, self.small) * math.exp(stream.gauss(0.0, 0.4))


REAL = Shape(disaster_share=0.04, disaster_size=1.0, small=0.4)
EXTREME = Shape(disaster_share=0.02, disaster_size=2.0, small=0.3)


def run(num_runs: int) -> list[Row]:
    """Shares of runs in which a seed worth nothing is said to help."""
    ours, peeking = _wrong_commits(REAL, num_runs)
    extreme, _ = _wrong_commits(EXTREME, num_runs)
    return [
        _share_row("simulation.wrong_commits", ours, num_runs, LEVEL),
        _share_row("simulation.wrong_commits_z_test", peeking, num_runs, None),
        _share_row("simulation.wrong_commits_extreme_shape", extreme, num_runs, None),
    ]


def _wrong_commits(shape: Shape, num_runs: int) -> tuple[int, int]:
    """(by our rule, by a z-test at every look of ours)."""
    stream = random.Random(0)
    ours = peeking = 0
    for _ in range(num_runs):
        judgement, is_fooled = Judgement(LEVEL, wanted=0.0), False
        sequence = judgement.sequence
        while not (judgement.proven or judgement.refuted) and judgement.num_units < MAX_UNITS:
            judgement.take([shape.draw(stream) for _ in range(UNITS_PER_LOOK)], [0.0] * UNITS_PER_LOOK)
            is_fooled = is_fooled or sequence.mean > 1.645 * sequence.std / math.sqrt(sequence.num_samples)
        ours += judgement.proven
        peeking += is_fooled
    return ours, peeking


def _share_row(name: str, count: int, total: int, goal: float | None) -> Row:
    share = count / total
    reach = 1.96 * math.sqrt(max(share * (1 - share), 1 / total) / total)
    return Row(name, share, max(0.0, share - reach), share + reach, "1", goal)
