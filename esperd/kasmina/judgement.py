"""The evidence on one seed in one stage: paired losses without and with it, and what they allow to say.

Any thread; plain numbers, no torch. By default an asymptotic confidence sequence decides; with `strict` the betting
e-process must agree that the seed helps. A new judgement begins at each stage, since the seed has moved.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from esperd.kasmina.evidence import BettingEProcess, ConfidenceSequence
from esperd.leyline.views import Contribution


class Judgement:
    """Paired differences "loss without minus loss with" so far; positive means the seed helps.

    Args:
        level: error level of each bound.
        wanted: the gain to prove, in the unit of the loss (negative: harm that is tolerated).
        loss_cap: cap of a loss for the betting process; 0 leaves that process out.
    """

    def __init__(self, level: float, wanted: float, loss_cap: float = 0.0) -> None:
        self.wanted = wanted
        self.sequence = ConfidenceSequence(level)
        null = max(-0.99 * loss_cap, min(wanted, 0.99 * loss_cap))
        self.bet = BettingEProcess(level, loss_cap, null) if loss_cap > 0.0 else None
        self.sum_without = 0.0
        self.broken = False
        """A loss with the seed was not finite: nothing more needs measuring."""

    def take(self, without: Sequence[float], with_seed: Sequence[float]) -> None:
        """Take in one probe. Units on which the host alone is not finite say nothing about the seed."""
        pairs = [(a, b) for a, b in zip(without, with_seed, strict=True) if math.isfinite(a)]
        if not all(math.isfinite(b) for _, b in pairs):
            self.broken = True
            return
        self.sequence.update(a - b for a, b in pairs)
        self.sum_without += math.fsum(a for a, _ in pairs)
        if self.bet is not None:
            self.bet.update([a for a, _ in pairs], [b for _, b in pairs])

    @property
    def num_units(self) -> int:
        """Units measured."""
        return self.sequence.num_samples

    @property
    def loss_without(self) -> float:
        """Mean loss without the seed."""
        return self.sum_without / self.num_units if self.num_units else 0.0

    @property
    def proven(self) -> bool:
        """Whether the gain is above `wanted`, at the level."""
        if self.broken or not self.sequence.lower > self.wanted:
            return False
        return self.bet is None or self.bet.proven

    @property
    def refuted(self) -> bool:
        """Whether the gain is below `wanted`, at the level."""
        return self.broken or self.sequence.upper < self.wanted

    def contribution(self, kind: str) -> Contribution:
        """What has been measured, for people and policies."""
        s = self.sequence
        return Contribution(kind, s.mean, s.lower, s.upper, s.num_samples, s.level, s.std)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, as plain values."""
        return {
            "wanted": self.wanted,
            "sequence": self.sequence.state(),
            "bet": self.bet.state() if self.bet is not None else None,
            "sum_without": self.sum_without,
            "broken": self.broken,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Judgement":
        """The judgement whose `state()` this is."""
        judgement = cls(float(state["sequence"]["level"]), float(state["wanted"]))
        judgement.sequence = ConfidenceSequence.from_state(state["sequence"])
        judgement.bet = BettingEProcess.from_state(state["bet"]) if state["bet"] is not None else None
        judgement.sum_without = float(state["sum_without"])
        judgement.broken = bool(state["broken"])
        return judgement
