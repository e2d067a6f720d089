"""How often a useless seed is committed when one looks after every probe: a simulation of the sequential rule.

Paired loss differences with mean zero, heavy tails and a skew like those of real probes; looks every 32 units up to
1,024. Goal: at most 5 % wrong commits. A plain z-test at every look stands beside it.
"""

import math
import random

from esperd.kasmina.evidence import ConfidenceSequence, Decision, decide
from tests.bench.report import Row

UNITS_PER_LOOK = 32
MAX_UNITS = 1024
LEVEL = 0.05


def run(num_runs: int) -> list[Row]:
    """Shares of runs in which a seed worth nothing is said to help."""
    stream = random.Random(0)
    ours = peeking = 0
    for _ in range(num_runs):
        sequence, fooled = ConfidenceSequence(LEVEL), False
        decision = Decision.UNDECIDED
        while decision is Decision.UNDECIDED:
            sequence.update(_useless_seed(stream) for _ in range(UNITS_PER_LOOK))
            decision = decide(sequence, max_samples=MAX_UNITS)
            fooled = fooled or sequence.mean > 1.645 * sequence.std / math.sqrt(sequence.num_samples)
        ours += decision is Decision.HELPS
        peeking += fooled
    return [
        _share_row("simulation.wrong_commits", ours, num_runs, LEVEL),
        _share_row("simulation.wrong_commits_z_test", peeking, num_runs, None),
    ]


def _useless_seed(stream: random.Random) -> float:
    """Mostly a small gain, now and then a large loss; mean zero, kurtosis about 30."""
    if stream.random() < 0.02:
        return -2.0 * stream.expovariate(1.0)
    return 0.04 / 0.98 + stream.gauss(0.0, 0.35)


def _share_row(name: str, count: int, total: int, goal: float | None) -> Row:
    share = count / total
    reach = 1.96 * math.sqrt(max(share * (1 - share), 1 / total) / total)
    return Row(name, share, max(0.0, share - reach), share + reach, "1", goal)
