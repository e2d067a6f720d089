"""The risk engine: what must be true before a policy's decision may leave, as a table.

Any thread; pure functions over values, the clock is passed in. It stands between every policy and the wire: a rule that
speaks takes the growth out of a decision or softens it, never the culls, for removing a seed is always safe. Each
verdict travels with the commands.
"""

import enum
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from esper.tamiyo.decision import (
    Decision,
    Germinate,
    PauseRun,
    PolicyCommand,
    SetSeedLearningRate,
    StartGrafting,
)
from esper.tamiyo.observation import Observation, Point

SPIKE_WINDOW = 5
"""Earlier validation losses whose median is the reference of a spike."""
CONSERVATIVE = 3
"""Emergency level from which the daemon itself refuses new seeds."""


class Action(enum.IntEnum):
    """What a rule does to a decision, mildest first."""

    ALLOW = 0
    WARN = 1
    """The decision goes out; the log says why one might worry."""
    DOWNGRADE = 2
    """Growth becomes an adjustment of the seed's optimizer, or waits."""
    PAUSE = 3
    """Nothing that grows goes out."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at; NaN where not measured, and then the rule does not speak."""

    policy_risk: float = math.nan
    conservative: float = math.nan
    """1 while the engine or the daemon is conservative, else 0."""
    inference_share: float = math.nan
    """Share of the decision's time that the policy took."""
    missing_offers: float = math.nan
    """Blueprints of the decision whose cost and risk are unknown."""
    blueprint_risk: float = math.nan
    """The riskiest blueprint of the decision; 1 for one in quarantine."""
    loss_spike: float = math.nan
    """Validation loss over the median of the last ones, minus 1."""
    isolation_violations: float = math.nan
    memory_used: float = math.nan
    coverage: float = math.nan
    """Share of the features that the observation really holds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    name: str
    measure: Callable[[Evidence], float]
    threshold: float
    action: Action
    below: bool = False
    """Speaks below the threshold instead of at or above it."""
    strict: bool = False
    """Speaks only beyond the threshold, not at it."""

    def speaks(self, value: float) -> bool:
        """Whether the rule objects to this value."""
        if self.below:
            return value < self.threshold
        return value > self.threshold if self.strict else value >= self.threshold


RULES: tuple[Rule, ...] = (
    Rule("policy_risk", lambda e: e.policy_risk, 0.98, Action.PAUSE),
    Rule("policy_risk", lambda e: e.policy_risk, 0.85, Action.DOWNGRADE),
    Rule("conservative_mode", lambda e: e.conservative, 1.0, Action.PAUSE),
    Rule("inference_timeout", lambda e: e.inference_share, 1.0, Action.PAUSE),
    Rule("metadata_missing", lambda e: e.missing_offers, 1.0, Action.PAUSE),
    Rule("blueprint_risk", lambda e: e.blueprint_risk, 0.8, Action.PAUSE),
    Rule("blueprint_risk", lambda e: e.blueprint_risk, 0.5, Action.DOWNGRADE),
    Rule("loss_spike", lambda e: e.loss_spike, 0.15, Action.PAUSE, strict=True),
    Rule("loss_spike", lambda e: e.loss_spike, 0.075, Action.DOWNGRADE, strict=True),
    Rule("isolation_violations", lambda e: e.isolation_violations, 0.0, Action.PAUSE, strict=True),
    Rule("memory_used", lambda e: e.memory_used, 0.95, Action.PAUSE, strict=True),
    Rule("feature_coverage", lambda e: e.coverage, 0.1, Action.PAUSE, below=True),
    Rule("feature_coverage", lambda e: e.coverage, 0.3, Action.WARN, below=True),
)
"""In order; of the lines with one name the first that speaks is the verdict (design 04, Risk engine)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule said, with its evidence."""

    rule: str
    action: Action
    value: float
    threshold: float


def judge(evidence: Evidence, rules: Sequence[Rule] = RULES) -> tuple[Verdict, ...]:
    """One verdict for every rule name that has a measurement."""
    verdicts: dict[str, Verdict] = {}
    for rule in rules:
        value = rule.measure(evidence)
        if math.isnan(value):
            continue
        told = verdicts.get(rule.name)
        if told is not None and told.action is not Action.ALLOW:
            continue
        if rule.speaks(value):
            verdicts[rule.name] = Verdict(rule.name, rule.action, value, rule.threshold)
        elif told is None:
            verdicts[rule.name] = Verdict(rule.name, Action.ALLOW, value, rule.threshold)
    return tuple(verdicts.values())


def gather(observation: Observation, decision: Decision, *, inference_share: float, conservative: bool) -> Evidence:
    """The evidence on one decision."""
    blueprints = _blueprints(observation, decision)
    known = [risk for risk in blueprints if not math.isnan(risk)]
    violations = [seed.num_isolation_violations for seed in observation.seeds if observation.owns(seed)]
    return Evidence(
        policy_risk=decision.risk,
        conservative=float(conservative or observation.emergency_level >= CONSERVATIVE),
        inference_share=inference_share,
        missing_offers=float(len(blueprints) - len(known)),
        blueprint_risk=max(known, default=math.nan),
        loss_spike=loss_spike(observation.history),
        isolation_violations=float(max(violations, default=0)),
        memory_used=observation.memory_used,
        coverage=observation.coverage,
    )


def loss_spike(history: Sequence[Point]) -> float:
    """The newest validation loss over the median of those before it, minus 1; NaN before there are two.

    A packet repeats the last validation until there is a new one, so equal neighbours count once. A loss that is not
    finite any more is an endless spike.
    """
    losses: list[float] = []
    for point in history:
        loss = point.validation_loss
        if not losses and not math.isfinite(loss):
            continue
        if not losses or loss != losses[-1]:
            losses.append(loss)
    if losses and not math.isfinite(losses[-1]):
        return math.inf
    before = [loss for loss in losses[:-1] if math.isfinite(loss)][-SPIKE_WINDOW:]
    reference = statistics.median(before) if before else 0.0
    return losses[-1] / reference - 1.0 if reference > 0.0 else math.nan


@dataclass(frozen=True, slots=True)
class RiskSettings:
    """How verdicts act."""

    on_pause: Literal["growth", "run"] = "growth"
    """PAUSE holds back growth only, or also asks the daemon to hold training until somebody resumes it."""
    lr_factor: float = 0.5
    """DOWNGRADE: the learning rate of a seed that was to blend, times this."""


def soften(
    decision: Decision, verdicts: Sequence[Verdict], observation: Observation, settings: RiskSettings
) -> Decision:
    """The decision that may leave."""
    worst = max(verdicts, key=lambda verdict: verdict.action, default=None)
    grows = any(isinstance(command, Germinate | StartGrafting) for command in decision.commands)
    if worst is None or worst.action < Action.DOWNGRADE or not grows:
        return decision
    because = f"{worst.rule} {worst.value:.3g} against {worst.threshold:.3g}"
    kept: list[PolicyCommand] = []
    for command in decision.commands:
        if not isinstance(command, Germinate | StartGrafting):
            kept.append(command)
        elif worst.action is Action.DOWNGRADE and isinstance(command, StartGrafting):
            kept += _slower(command.seed_id, observation, settings, because)
    if worst.action is Action.PAUSE and settings.on_pause == "run":
        kept.append(PauseRun(f"risk engine: {because}"))
    rationale = f"{decision.rationale}; risk engine {worst.action.name.lower()}s growth: {because}"
    return replace(decision, commands=tuple(kept), rationale=rationale)


def _slower(seed_id: str, observation: Observation, settings: RiskSettings, because: str) -> list[SetSeedLearningRate]:
    seed = next((seed for seed in observation.seeds if seed.seed_id == seed_id), None)
    if seed is None or seed.learning_rate <= 0.0:
        return []
    return [SetSeedLearningRate(seed_id, seed.learning_rate * settings.lr_factor, f"downgraded: {because}")]


def _blueprints(observation: Observation, decision: Decision) -> list[float]:
    """Risks of what the decision would grow, NaN where the daemon has not told."""
    sites = {site.site: site for site in observation.sites}
    seeds = {seed.seed_id: seed for seed in observation.seeds}
    risks = []
    for command in decision.commands:
        if isinstance(command, Germinate):
            site = sites.get(command.site)
            offer = site.offer(command.blueprint_id) if site is not None else None
            quarantined = offer is not None and offer.tier == "HIGH_RISK"
            risks.append(math.nan if offer is None else 1.0 if quarantined else offer.risk)
        elif isinstance(command, StartGrafting):
            seed = seeds.get(command.seed_id)
            risks.append(math.nan if seed is None else seed.risk)
    return risks


@dataclass(frozen=True, slots=True)
class Breaker:
    """Counts internal failures; open means conservative. Frozen: each event makes a new one.

    After the cool-down one success heals it and one failure opens it again.
    """

    failure_times_s: tuple[float, ...] = ()
    opened_at_s: float | None = None
    max_failures: int = 3
    window_s: float = 30.0
    cooldown_s: float = 30.0

    def failed(self, now_s: float) -> "Breaker":
        """After one more failure; opens at `max_failures` within `window_s`."""
        recent = (*(time_s for time_s in self.failure_times_s if now_s - time_s < self.window_s), now_s)
        if self.opened_at_s is None and len(recent) < self.max_failures:
            return replace(self, failure_times_s=recent)
        return replace(self, failure_times_s=(), opened_at_s=now_s)

    def succeeded(self, now_s: float) -> "Breaker":
        """After a decision that went well."""
        if self.opened_at_s is None or self.is_open(now_s):
            return self
        return replace(self, opened_at_s=None)

    def is_open(self, now_s: float) -> bool:
        """Whether only culls may leave."""
        return self.opened_at_s is not None and now_s - self.opened_at_s < self.cooldown_s


class RiskEngine:
    """Judges every decision of one policy; conservative while its breaker is open, and healed by time and success."""

    def __init__(self, settings: RiskSettings, breaker: Breaker | None = None) -> None:
        self._settings = settings
        self._breaker = breaker or Breaker()

    def review(
        self, observation: Observation, decision: Decision, *, inference_share: float, now_s: float
    ) -> tuple[Decision, tuple[Verdict, ...]]:
        """What may leave, and every verdict."""
        if inference_share >= 1.0:
            self.failed(now_s)
        conservative = self._breaker.is_open(now_s)
        evidence = gather(observation, decision, inference_share=inference_share, conservative=conservative)
        verdicts = judge(evidence)
        if inference_share < 1.0:
            self._breaker = self._breaker.succeeded(now_s)
        return soften(decision, verdicts, observation, self._settings), verdicts

    def failed(self, now_s: float) -> None:
        """The policy itself failed: it raised, or it took longer than there was."""
        self._breaker = self._breaker.failed(now_s)

    def conservative(self, now_s: float) -> bool:
        """Whether only culls may leave now."""
        return self._breaker.is_open(now_s)
