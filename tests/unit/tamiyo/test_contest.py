"""Which candidate goes on."""

import random

from esper.tamiyo.contest import ContestSettings, settle_contests
from esper.tamiyo.decision import Cull, StartGrafting, Withdraw
from esper.tamiyo.heuristic import HeuristicPolicy, HeuristicSettings
from esper.tamiyo.observation import Attempt, Cost, Gain

from tests.unit.tamiyo.moments import moment, pre_blend, seed, site

RENT = 0.01


def settle(*seeds: object, rank: int = 4, **changes: object) -> tuple[list[object], list[str]]:
    observation = moment(seeds=seeds, sites=(site(vacant=False, rank=rank),), **changes)
    return settle_contests(observation, ContestSettings(), RENT)  # type: ignore[return-value]


def ids(commands: list[object], kind: type) -> list[str]:
    return [command.seed_id for command in commands if isinstance(command, kind)]  # type: ignore[attr-defined]


def test_waits_until_every_candidate_has_dwelt() -> None:
    """Nobody is judged before all candidates of the site have trained for the dwell."""
    commands, _ = settle(seed("1"), seed("2", stage_steps=149))
    assert commands == []
    commands, _ = settle(seed("1"), seed("2", "GERMINATED", stage_steps=500))
    assert commands == []


def test_language_candidates_dwell_less() -> None:
    """50 steps at a sequence site, 150 elsewhere."""
    young = seed("1", stage_steps=60, gains=pre_blend(0.3, 0.2, 0.4))
    assert ids(settle(young, rank=3)[0], StartGrafting) == ["1"]
    assert settle(young)[0] == []


def test_evidence_decides_where_it_separates() -> None:
    """A candidate whose lower bound is above every other upper bound wins, whatever the prior says."""
    strong = seed("1", blueprint_id="depthwise", gains=pre_blend(0.3, 0.25, 0.35), cost=Cost(1, 2_000, 4_000))
    weak = seed("2", gains=pre_blend(0.05, 0.03, 0.07))
    commands, why = settle(strong, weak)
    assert ids(commands, StartGrafting) == ["1"]
    assert "best lower bound" in why[0]


def test_prior_decides_where_evidence_does_not() -> None:
    """Among candidates whose bounds overlap the blueprint that is expected to bring most goes on."""
    cheap = seed("1", blueprint_id="depthwise", gains=pre_blend(0.06, 0.02, 0.10), cost=Cost(1, 2_000, 4_000))
    strong = seed("2", gains=pre_blend(0.05, 0.015, 0.09))
    commands, why = settle(cheap, strong)
    assert ids(commands, StartGrafting) == ["2"]
    assert "not separated" in why[0]


def test_unmeasured_candidates_are_screened_by_first_order_gain() -> None:
    """Without any measured contribution the first-order gain chooses, and the rationale says so."""
    commands, why = settle(
        seed("1", first_order_gain=0.1, stage_steps=300), seed("2", first_order_gain=0.3, stage_steps=300)
    )
    assert ids(commands, StartGrafting) == ["2"]
    assert "not measured" in why[0]


def test_contest_waits_for_measurements_but_not_for_ever() -> None:
    """Candidates are measured by the daemon; after two dwells without that the prior chooses."""
    cheap, strong = {"blueprint_id": "depthwise"}, {"blueprint_id": "residual_conv"}
    commands, why = settle(seed("1", **strong), seed("2", **cheap))
    assert (commands, why) == ([], ["conv1: no candidate is measured yet"])
    late, _ = settle(seed("1", stage_steps=300, **strong), seed("2", stage_steps=300, **cheap))
    assert ids(late, StartGrafting) == ["1"]


def test_candidate_whose_gate_failed_is_not_asked() -> None:
    """It trains on and is looked at again; meanwhile another may go on."""
    failed = seed("1", gains=pre_blend(0.3, 0.2, 0.4), gate_failed=True)
    assert settle(failed)[0] == []
    assert ids(settle(failed, seed("2", gains=pre_blend(0.1, 0.05, 0.2)))[0], StartGrafting) == ["2"]


def test_losers_are_withdrawn_once_the_winner_blends() -> None:
    """The others stay until the winner's gate has let it in, then they go without an embargo."""
    first, _ = settle(seed("1", gains=pre_blend(0.3, 0.2, 0.4)), seed("2", gains=pre_blend(0.01, 0, 0.02)))
    assert ids(first, Withdraw) == []
    second, _ = settle(seed("1", "BLENDING", stage_steps=1), seed("2"))
    assert ids(second, Withdraw) == ["2"]
    assert ids(second, StartGrafting) == []


def test_refused_winner_makes_room_for_the_next() -> None:
    """A candidate that G2 refused is culled and the next best is asked."""
    refused = Attempt("r", "START_GRAFTING", 480, "conv1", "1", state="REJECTED", reason="GATE_FAILED")
    commands, _ = settle(
        seed("1", gains=pre_blend(0.3, 0.2, 0.4)), seed("2", gains=pre_blend(0.1, 0.05, 0.2)), attempts=(refused,)
    )
    assert ids(commands, Cull) == ["1"]
    assert ids(commands, StartGrafting) == ["2"]


def test_unmeasured_gate_is_asked_again() -> None:
    """A gate that had no measurement yet refuses nothing for good."""
    asked = Attempt("r", "START_GRAFTING", 480, "conv1", "1", state="REJECTED", reason="GATE_UNMEASURED")
    measured = seed("1", gains=pre_blend(0.3, 0.2, 0.4))
    assert ids(settle(measured, attempts=(asked,))[0], StartGrafting) == ["1"]


def test_harmful_candidate_is_culled() -> None:
    """A candidate whose upper bound is below zero does not pay."""
    commands, _ = settle(seed("1", gains=pre_blend(-0.2, -0.3, -0.1)))
    assert ids(commands, Cull) == ["1"]
    assert ids(commands, StartGrafting) == []


def test_impatience() -> None:
    """A candidate that never gets to blend is given up after five dwells."""
    assert ids(settle(seed("1", stage_steps=751))[0], Cull) == ["1"]


def test_harmful_graft_is_culled() -> None:
    """A grafted seed without which the model is better goes, if enough samples say so."""
    harm = (Gain("dependence", -0.2, -0.3, -0.1, 128),)
    assert ids(settle(seed("1", "SHADOWING", gains=harm))[0], Cull) == ["1"]
    few = (Gain("dependence", -0.2, -0.3, -0.1, 32),)
    assert settle(seed("1", "SHADOWING", gains=few))[0] == []


def test_pending_commands_are_waited_for() -> None:
    """A site with an unanswered command is left alone."""
    asked = Attempt("r", "START_GRAFTING", 480, "conv1", "1")
    assert settle(seed("1"), attempts=(asked,))[0] == []


def test_contests_are_settled_in_the_decay_phase_too() -> None:
    """Only new rounds need the stable phase: what has begun is finished."""
    policy = HeuristicPolicy(HeuristicSettings(), random.Random(0))
    observation = moment(1_200, lr_phase="decay", seeds=(seed("1", stage_steps=400),), sites=(site(vacant=False),))
    assert ids(list(policy.decide(observation).commands), StartGrafting) == ["1"]
