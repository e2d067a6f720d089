"""When and what the heuristic grows."""

import random
from dataclasses import replace

import pytest
from esper.tamiyo.decision import Germinate
from esper.tamiyo.heuristic import HeuristicPolicy, HeuristicSettings
from esper.tamiyo.observation import Attempt, Ending, Offer
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tamiyo.moments import falling, flat, moment, pre_blend, seed, site

PHASES = st.sampled_from(["", "warmup", "stable", "decay"])


def policy(**settings: object) -> HeuristicPolicy:
    return HeuristicPolicy(HeuristicSettings(**settings), random.Random(0))  # type: ignore[arg-type]


def germinations(decision: object) -> list[Germinate]:
    return [command for command in decision.commands if isinstance(command, Germinate)]  # type: ignore[attr-defined]


def test_plateau_starts_candidates_at_every_vacant_site() -> None:
    """`budget: flops` grows when the loss stands still: several candidates side by side at each vacant site."""
    grown = germinations(policy().decide(moment()))
    assert [(g.site, g.blueprint_id) for g in grown] == [
        (name, blueprint) for name in ("conv1", "conv2") for blueprint in ("residual_conv", "conv1x1", "depthwise")
    ]
    assert all(g.until == "TRAINING" for g in grown)


def test_falling_loss_waits() -> None:
    """`budget: flops` waits while the loss still improves by 1 % of itself or more over 5 % of the run."""
    decision = policy().decide(moment(history=falling(500, 0.001)))
    assert decision.commands == ()
    assert "improved by" in decision.rationale


def test_plateau_needs_a_history() -> None:
    """A few losses are no plateau."""
    decision = policy().decide(moment(history=flat(500, since=475)))
    assert decision.commands == ()
    assert "too few losses" in decision.rationale


@given(phase=PHASES, step=st.integers(1, 1499), budget=st.sampled_from(["flops", "steps"]))
def test_grows_in_the_stable_phase_only(phase: str, step: int, budget: str) -> None:
    """Never in warm-up and never in decay, whatever the losses say."""
    decision = policy(budget=budget).decide(moment(step, lr_phase=phase))
    if phase != "stable":
        assert not germinations(decision)


@given(step=st.integers(1, 1499))
def test_steps_budget_grows_within_its_window(step: int) -> None:
    """`budget: steps` does not wait for a plateau: it begins at its share of the run."""
    observation = moment(step, history=falling(step, 0.01))
    grown = germinations(policy(budget="steps").decide(observation))
    assert bool(grown) == (step / 1500 >= 0.27)


def test_steps_budget_begins_no_further_round_after_the_window() -> None:
    """`budget: steps`: after 30 % of the run a second round does not begin."""
    attempt = Attempt("r", "GERMINATE", 405, "conv1", "1", "residual_conv", state="APPLIED")
    ending = Ending("1", "conv1", "residual_conv", "CULLED", "TRAINING", 600)
    decision = policy(budget="steps").decide(moment(700, attempts=(attempt,), endings=(ending,)))
    assert decision.commands == ()
    assert "no round begins after 30%" in decision.rationale


def test_one_round_in_five_percent_of_the_run() -> None:
    """Germinations come at most once in 5 % of the run, refused ones counted."""
    attempt = Attempt("r", "GERMINATE", 450, "conv1", state="REJECTED", reason="SEED_LIMIT")
    assert policy().decide(moment(500, attempts=(attempt,))).commands == ()
    assert germinations(policy().decide(moment(525, attempts=(attempt,), history=flat(525))))


def test_pending_round_is_waited_for() -> None:
    """A round that has not been answered is not asked for again."""
    attempt = Attempt("r", "GERMINATE", 300, "conv1")
    assert policy().decide(moment(500, attempts=(attempt,))).commands == ()


def test_refused_blueprint_is_not_tried_again_at_that_site() -> None:
    """G0's no is final for the site; other sites may still try the blueprint."""
    attempt = Attempt("r", "GERMINATE", 300, "conv1", "", "residual_conv", state="REJECTED", reason="GATE_FAILED")
    grown = germinations(policy().decide(moment(500, attempts=(attempt,))))
    assert ("conv1", "residual_conv") not in {(g.site, g.blueprint_id) for g in grown}
    assert ("conv2", "residual_conv") in {(g.site, g.blueprint_id) for g in grown}


def test_three_culls_in_a_row_end_growth() -> None:
    """After three rounds in a row that kept nothing, growth is over."""
    endings = tuple(Ending(str(n), "conv1", "residual_conv", "CULLED", "BLENDING", 100 * n) for n in range(1, 4))
    decision = policy().decide(moment(500, endings=endings))
    assert decision.commands == ()
    assert "growth is over" in decision.rationale


def test_a_kept_seed_breaks_the_row_of_culls() -> None:
    """Culls before the last fossil do not count."""
    stages = ["CULLED", "CULLED", "FOSSILIZED", "CULLED", "CULLED"]
    endings = tuple(
        Ending(str(n), "conv1", "residual_conv", stage, "BLENDING", 10 * n) for n, stage in enumerate(stages)
    )
    assert germinations(policy().decide(moment(500, endings=endings)))


def test_losers_of_a_contest_are_no_failures() -> None:
    """A round counts once, and as good when its winner was kept."""
    attempts = tuple(
        Attempt(f"r{n}{i}", "GERMINATE", 50 * n, "conv1", f"{n}{i}", "residual_conv", state="APPLIED")
        for n in range(1, 4)
        for i in range(3)
    )
    endings = tuple(
        Ending(a.seed_id, "conv1", a.blueprint_id, "FOSSILIZED" if a.seed_id[1] == "0" else "CULLED", "TRAINING", 300)
        for a in attempts
    )
    assert germinations(policy().decide(moment(500, attempts=attempts, endings=endings)))


def test_one_site_after_the_other() -> None:
    """Without parallel sites a round grows at one site only."""
    grown = germinations(policy(parallel_sites=False).decide(moment()))
    assert {g.site for g in grown} == {"conv1"}


def test_candidates_fit_what_the_daemon_admits() -> None:
    """All candidates of a round together stay within the number of live seeds."""
    observation = moment(sites=tuple(site(f"conv{n}") for n in range(5)))
    grown = germinations(policy(max_seeds_per_round=8).decide(observation))
    assert len(grown) == 5


def test_risky_blueprints_are_not_chosen() -> None:
    """A blueprint at or above the risk limit, or in quarantine, is no candidate."""
    offers = (
        Offer("residual_conv", site().offers[0].cost, 0.6),
        Offer("conv1x1", site().offers[1].cost, 0.1, "HIGH_RISK"),
    )
    assert policy().decide(moment(sites=(site(offers=offers),))).commands == ()


def test_embargoed_site_is_left_alone() -> None:
    """After a cull a site is blocked until its step."""
    blocked = replace(site(), embargoed_until_step=501)
    assert policy().decide(moment(500, sites=(blocked,))).commands == ()
    assert germinations(policy().decide(moment(501, sites=(blocked,), history=flat(501))))


def test_conservative_run_gets_nothing_new() -> None:
    """From emergency level 3 on nothing is germinated."""
    assert policy().decide(moment(emergency_level=3)).commands == ()


def test_language_site_gets_whole_layers_first() -> None:
    """At a sequence site the first candidate is a stack of transformer layers."""
    offers = (Offer("lora", site().offers[3].cost), Offer("transformer_block", site().offers[2].cost, 0.4))
    grown = germinations(policy().decide(moment(sites=(site(rank=3, offers=offers),))))
    assert grown[0].blueprint_id == "transformer_block"
    assert grown[0].parameters == {"num_layers": 3}


def test_hold_out_turns_a_round_into_waiting() -> None:
    """With hold-out the wanted round is skipped at random, and the chance is logged."""
    decision = policy(hold_out=1.0).decide(moment())
    assert decision.held_out
    assert decision.propensity == 1.0
    assert not germinations(decision)


def test_a_finished_run_is_left_as_it_is() -> None:
    """Nothing is asked of a run that is over."""
    grown = seed("1", stage_steps=5_000, gains=pre_blend(-0.3, -0.4, -0.2))
    assert policy().decide(moment(1_500, reason="run_finished", seeds=(grown,))).commands == ()


def test_rounds_wait_for_the_seeds_of_the_last_one() -> None:
    """No second round begins while seeds of the first still grow."""
    observation = moment(seeds=(seed("1", "BLENDING", stage_steps=10),))
    assert policy().decide(observation).commands == ()


@given(
    step=st.integers(1, 1499),
    phase=PHASES,
    level=st.integers(0, 4),
    stages=st.lists(
        st.sampled_from(["GERMINATED", "TRAINING", "BLENDING", "SHADOWING", "PROBATIONARY", "FOSSILIZED", "CULLED"]),
        max_size=5,
    ),
    bounds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    dwell=st.integers(0, 2000),
)
def test_decisions_are_pure_and_legal(
    step: int, phase: str, level: int, stages: list[str], bounds: tuple[float, float], dwell: int
) -> None:
    """The same observation gives the same decision, and every command fits the stage of its seed."""
    low, high = sorted(bounds)
    seeds = tuple(
        seed(str(n), stage, stage_steps=dwell, gains=pre_blend((low + high) / 2, low, high))
        for n, stage in enumerate(stages, 1)
    )
    observation = moment(step, lr_phase=phase, emergency_level=level, seeds=seeds)
    decision = policy().decide(observation)
    assert decision == policy().decide(observation)
    by_id = {s.seed_id: s for s in seeds}
    for command in decision.commands:
        if isinstance(command, Germinate):
            assert not observation.at(command.site)
        else:
            stage = by_id[command.seed_id].stage  # type: ignore[union-attr]
            assert stage not in ("FOSSILIZED", "CULLED")
            assert type(command).__name__ != "StartGrafting" or stage == "TRAINING"


def test_seeds_of_others_are_left_alone() -> None:
    """What an operator germinated is the operator's to decide about."""
    theirs = seed("1", gains=pre_blend(-1, -1, -0.5), requested_by="operator", stage_steps=5_000)
    assert policy().decide(moment(seeds=(theirs,), sites=(replace(site(), vacant=False),))).commands == ()


@pytest.mark.parametrize("total", [0, 1500])
def test_endless_run_uses_steps(total: int) -> None:
    """An endless run measures its plateau and its rounds in steps."""
    observation = moment(2_000, num_steps_total=total, history=flat(2_000))
    assert germinations(policy(budget="steps" if not total else "flops").decide(observation))
