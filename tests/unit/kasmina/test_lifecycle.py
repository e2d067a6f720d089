"""The lifecycle table holds exactly the legal steps, and says why another is not."""

import pytest

from esperd.kasmina.lifecycle import (
    LIVE,
    TABLE,
    Event,
    IllegalTransitionError,
    check_operation,
    may_auto_advance,
    next_rule,
    stages_for,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Gate, Operation, Stage

FORWARD = [
    Stage.GERMINATED,
    Stage.TRAINING,
    Stage.BLENDING,
    Stage.SHADOWING,
    Stage.PROBATIONARY,
    Stage.FOSSILIZED,
]


def test_advance_walks_the_stages_in_order() -> None:
    """ADVANCE leads from each live stage to the next, past the gate that guards it."""
    assert [next_rule(stage).target for stage in FORWARD[:-1]] == FORWARD[1:]
    assert [next_rule(stage).gate for stage in FORWARD[:-1]] == [
        Gate.G1_GRADIENT_HEALTH,
        Gate.G2_STABILITY,
        Gate.G3_INTERFACE,
        Gate.G4_SYSTEM_IMPACT,
        Gate.G4_SYSTEM_IMPACT,
    ]
    assert next_rule(Stage.PROBATIONARY).purpose == "commit"


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("step", [*Operation, *Event])
def test_what_is_not_in_the_table_is_refused_with_the_story(stage: Stage, step: Operation | Event) -> None:
    """Every pair is either in the table or an error from the catalogue that names the stage and tells the story."""
    if (stage, step) in TABLE:
        assert check_operation(stage, step) is TABLE[stage, step]
        return
    with pytest.raises(EsperdError) as caught:
        check_operation(stage, step, seed_id=4, story=["GERMINATED at step 3 (c-9)"])
    assert stage.name in caught.value.message
    if step is not Operation.SET_ALPHA:
        assert isinstance(caught.value, IllegalTransitionError)
        assert "GERMINATED at step 3 (c-9)" in caught.value.message


def test_cull_is_legal_from_every_live_stage_only() -> None:
    """Nothing can be culled twice, and a fossil cannot be culled."""
    assert set(stages_for(Operation.CULL)) == LIVE


def test_a_culled_seed_ends_dormant_through_g5() -> None:
    """CULLED, EMBARGOED, RESETTING, DORMANT; the last step is guarded."""
    stage, gates = Stage.CULLED, []
    for event in (Event.EMBARGO, Event.RESET, Event.VACATE):
        rule = check_operation(stage, event)
        stage, gates = rule.target, [*gates, rule.gate]
    assert stage is Stage.DORMANT
    assert gates[-1] is Gate.G5_RESET


def test_auto_advance_never_passes_its_end() -> None:
    """Up to and including `until`."""
    assert may_auto_advance(Stage.TRAINING, Stage.BLENDING)
    assert not may_auto_advance(Stage.BLENDING, Stage.BLENDING)
    assert not may_auto_advance(Stage.FOSSILIZED, Stage.FOSSILIZED)
