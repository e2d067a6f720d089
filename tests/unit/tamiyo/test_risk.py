"""What must be true before a decision may leave."""

import math
from dataclasses import replace

import pytest
from esper.tamiyo.decision import Cull, Decision, Germinate, PauseRun, SetSeedLearningRate, StartGrafting
from esper.tamiyo.observation import Offer, Point
from esper.tamiyo.risk import (
    RULES,
    Action,
    Breaker,
    Evidence,
    RiskEngine,
    RiskSettings,
    gather,
    judge,
    loss_spike,
    soften,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tamiyo.moments import moment, seed, site

GROWTH = Decision((Germinate("conv1", "residual_conv"), Cull("1")), "grow")


def history(*losses: float) -> tuple[Point, ...]:
    return tuple(Point(25 * n, loss, loss, loss, "stable") for n, loss in enumerate(losses))


def verdict(**evidence: float) -> Action:
    return max((v.action for v in judge(Evidence(**evidence))), default=Action.ALLOW)


@pytest.mark.parametrize(
    ("field", "value", "action"),
    [
        ("policy_risk", 0.98, Action.PAUSE),
        ("policy_risk", 0.85, Action.DOWNGRADE),
        ("policy_risk", 0.84, Action.ALLOW),
        ("conservative", 1.0, Action.PAUSE),
        ("inference_share", 1.0, Action.PAUSE),
        ("inference_share", 0.99, Action.ALLOW),
        ("missing_offers", 1.0, Action.PAUSE),
        ("blueprint_risk", 0.8, Action.PAUSE),
        ("blueprint_risk", 0.5, Action.DOWNGRADE),
        ("blueprint_risk", 0.49, Action.ALLOW),
        ("loss_spike", 0.151, Action.PAUSE),
        ("loss_spike", 0.15, Action.DOWNGRADE),
        ("loss_spike", 0.075, Action.ALLOW),
        ("isolation_violations", 1.0, Action.PAUSE),
        ("memory_used", 0.951, Action.PAUSE),
        ("coverage", 0.09, Action.PAUSE),
        ("coverage", 0.29, Action.WARN),
        ("coverage", 0.3, Action.ALLOW),
    ],
)
def test_table(field: str, value: float, action: Action) -> None:
    """Each threshold of the design, on both sides."""
    assert verdict(**{field: value}) is action


def test_what_is_not_measured_does_not_speak() -> None:
    """A rule without a measurement gives no verdict."""
    assert judge(Evidence()) == ()


@given(st.builds(Evidence, *[st.floats(0, 2) | st.just(math.nan)] * 9))
def test_one_verdict_for_each_measured_rule(evidence: Evidence) -> None:
    """Every rule name with a measurement gives exactly one verdict: that of its first line that speaks."""
    verdicts = judge(evidence)
    names = [rule.name for rule in RULES if not math.isnan(rule.measure(evidence))]
    assert [v.rule for v in verdicts] == list(dict.fromkeys(names))
    for told in verdicts:
        lines = [rule for rule in RULES if rule.name == told.rule]
        spoken = [rule.action for rule in lines if rule.speaks(told.value)]
        assert told.action is (spoken[0] if spoken else Action.ALLOW)


def test_spike_is_relative_to_the_median_of_the_last_validations() -> None:
    """Repeated packets of one validation count once."""
    assert loss_spike(history(0.5, 0.5, 0.5, 0.6)) == pytest.approx(0.2)
    assert loss_spike(history(9.0, 0.9, 1.0, 1.1, 0.95, 1.05, 1.2)) == pytest.approx(0.2)
    assert math.isnan(loss_spike(history(0.5)))
    assert math.isnan(loss_spike(history(math.nan, 0.5)))
    assert loss_spike(history(0.5, math.nan)) == math.inf


def test_pause_holds_back_growth_and_lets_culls_through() -> None:
    """A paused decision keeps its culls: removing is always safe."""
    observation = moment(history=history(0.5, 0.7), seeds=(seed("1"),))
    engine = RiskEngine(RiskSettings())
    reviewed, verdicts = engine.review(observation, GROWTH, inference_share=0.0, now_s=0.0)
    assert reviewed.commands == (Cull("1"),)
    assert "pauses growth: loss_spike" in reviewed.rationale
    assert next(v for v in verdicts if v.rule == "loss_spike").action is Action.PAUSE


def test_pause_can_hold_the_run_itself() -> None:
    """Where an operator wants it, PAUSE also asks the daemon to hold training."""
    verdicts = judge(Evidence(loss_spike=0.5))
    paused = soften(GROWTH, verdicts, moment(), RiskSettings(on_pause="run"))
    assert isinstance(paused.commands[-1], PauseRun)


def test_downgrade_slows_the_seed_that_was_to_blend() -> None:
    """Downgraded: a graft becomes a lower learning rate of its seed, a germination waits."""
    decision = Decision((StartGrafting("1"), Germinate("conv2", "residual_conv")))
    observation = moment(history=history(0.5, 0.55), seeds=(seed("1", learning_rate=0.004),))
    reviewed, _ = RiskEngine(RiskSettings()).review(observation, decision, inference_share=0.0, now_s=0.0)
    [command] = reviewed.commands
    assert isinstance(command, SetSeedLearningRate)
    assert (command.seed_id, command.learning_rate) == ("1", 0.002)


def test_waiting_and_culling_need_no_leave() -> None:
    """A decision that grows nothing goes out as it is, whatever the verdicts."""
    decision = Decision((Cull("1"),), "cull")
    assert soften(decision, judge(Evidence(loss_spike=9.0)), moment(), RiskSettings()) == decision


def test_evidence_of_a_decision() -> None:
    """Unknown blueprints are missing metadata, quarantined ones count as the riskiest."""
    offers = (Offer("wild", site().offers[0].cost, 0.1, "HIGH_RISK"),)
    observation = moment(sites=(site(offers=offers),), seeds=(seed("1", num_isolation_violations=2),))
    found = gather(
        observation,
        Decision((Germinate("conv1", "wild"), Germinate("conv1", "unheard"), Germinate("nowhere", "x"))),
        inference_share=0.1,
        conservative=False,
    )
    assert (found.blueprint_risk, found.missing_offers, found.isolation_violations) == (1.0, 2.0, 2.0)


def test_feature_coverage() -> None:
    """A blind policy may not grow anything."""
    blind = replace(
        moment(lr_phase=""),
        probe_loss=math.nan,
        validation_loss=math.nan,
        training_loss=math.nan,
        sites=(),
        history=(),
        host_step_flops=0.0,
    )
    assert blind.coverage == 0.0
    assert moment().coverage == 1.0


def test_breaker_opens_after_three_failures_in_its_window_and_heals() -> None:
    """Three internal failures within 30 s make the engine conservative; after the cool-down one success heals it."""
    breaker = Breaker()
    for now_s in (0.0, 40.0, 50.0):
        breaker = breaker.failed(now_s).succeeded(now_s)
    assert not breaker.is_open(50.0)
    breaker = breaker.failed(55.0)
    assert breaker.is_open(84.9)
    assert not breaker.is_open(85.0)
    assert breaker.failed(86.0).is_open(86.0), "half open: one failure opens it again"
    healed = breaker.succeeded(86.0)
    assert not healed.failed(87.0).is_open(87.0)


def test_conservative_engine_heals_itself() -> None:
    """While its breaker is open nothing grows; later the same decision leaves."""
    engine = RiskEngine(RiskSettings())
    for _ in range(3):
        engine.failed(0.0)
    observation = moment(seeds=(seed("1"),))
    held, _ = engine.review(observation, GROWTH, inference_share=0.0, now_s=1.0)
    assert held.commands == (Cull("1"),)
    free, _ = engine.review(observation, GROWTH, inference_share=0.0, now_s=31.0)
    assert free.commands == GROWTH.commands


def test_slow_policy_opens_the_breaker() -> None:
    """A policy that took all its time pauses, and three in a row make the engine conservative."""
    engine = RiskEngine(RiskSettings())
    for now_s in range(3):
        reviewed, _ = engine.review(moment(), GROWTH, inference_share=1.5, now_s=float(now_s))
        assert reviewed.commands == (Cull("1"),)
    assert engine.conservative(3.0)
