"""The life of a seed as a table: which operation or event leads from which stage to which, and past which gate.

Any thread; no torch, no state, no clock. The executor acts on what these functions say; the control plane asks them
before it accepts a command. An illegal step raises an error that carries the seed's story (design 03, Stages).
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Gate, Operation, Stage


class Event(enum.Enum):
    """What moves a seed without a command."""

    EMBARGO = "embargo"
    """The site is blocked after the cull."""
    RESET = "reset"
    """The embargo has elapsed."""
    VACATE = "vacate"
    """Everything of the seed is proven released."""
    RETIRE = "retire"
    """The site itself is given up."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a step leads, and which gate guards it."""

    target: Stage
    gate: Gate = Gate.UNKNOWN
    """UNKNOWN: no gate guards this step."""
    purpose: str = ""
    """`commit` for G4 asked again with the commit thresholds."""


LIVE: frozenset[Stage] = frozenset(
    {Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY}
)
"""Stages from which a seed may be culled."""
CANDIDATE: frozenset[Stage] = frozenset({Stage.GERMINATED, Stage.TRAINING})
"""Stages in which the host's forward is untouched; several seeds of a site may be here side by side."""
GRAFTED: frozenset[Stage] = frozenset({Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY})
"""Stages in which the seed is mixed into the host; one seed of a site at a time."""

_FORWARD: Mapping[Operation, tuple[Stage, Rule]] = {
    Operation.GERMINATE: (Stage.DORMANT, Rule(Stage.GERMINATED, Gate.G0_SANITY)),
    Operation.START_TRAINING: (Stage.GERMINATED, Rule(Stage.TRAINING, Gate.G1_GRADIENT_HEALTH)),
    Operation.START_GRAFTING: (Stage.TRAINING, Rule(Stage.BLENDING, Gate.G2_STABILITY)),
    Operation.STABILIZE: (Stage.BLENDING, Rule(Stage.SHADOWING, Gate.G3_INTERFACE)),
    Operation.EVALUATE: (Stage.SHADOWING, Rule(Stage.PROBATIONARY, Gate.G4_SYSTEM_IMPACT)),
    Operation.FOSSILIZE: (Stage.PROBATIONARY, Rule(Stage.FOSSILIZED, Gate.G4_SYSTEM_IMPACT, "commit")),
}
_ADVANCING = (
    Operation.START_TRAINING,
    Operation.START_GRAFTING,
    Operation.STABILIZE,
    Operation.EVALUATE,
    Operation.FOSSILIZE,
)

TABLE: Mapping[tuple[Stage, Operation | Event], Rule] = {
    **{(stage, operation): rule for operation, (stage, rule) in _FORWARD.items()},
    **{(_FORWARD[operation][0], Operation.ADVANCE): _FORWARD[operation][1] for operation in _ADVANCING},
    **{(stage, Operation.CULL): Rule(Stage.CULLED) for stage in LIVE},
    # A withdrawn candidate has not failed: it leaves no embargo behind.
    **{(stage, Operation.CANCEL): Rule(Stage.CULLED) for stage in CANDIDATE},
    (Stage.PROBATIONARY, Operation.FINE_TUNE): Rule(Stage.PROBATIONARY),
    (Stage.BLENDING, Operation.SET_ALPHA): Rule(Stage.BLENDING),
    (Stage.CULLED, Event.EMBARGO): Rule(Stage.EMBARGOED),
    (Stage.EMBARGOED, Event.RESET): Rule(Stage.RESETTING),
    (Stage.RESETTING, Event.VACATE): Rule(Stage.DORMANT, Gate.G5_RESET),
    (Stage.DORMANT, Event.RETIRE): Rule(Stage.TERMINATED),
    (Stage.FOSSILIZED, Event.RETIRE): Rule(Stage.TERMINATED),
}
"""Every legal step; what is not here is illegal."""


class IllegalTransitionError(EsperdError):
    """A step that the table does not hold; carries the seed's story (catalogue: SEED_STAGE)."""

    def __init__(self, seed_id: int, stage: Stage, step: Operation | Event, story: Sequence[str] = ()) -> None:
        needed = " or ".join(found.name for found in stages_for(step)) or "another operation"
        told = "; ".join(story)
        super().__init__(
            "SEED_STAGE",
            seed_id=seed_id,
            stage=stage.name,
            operation=step.name,
            needed=needed,
            story=f"its story: {told}." if told else "its story is in the journal.",
        )


def check_operation(stage: Stage, step: Operation | Event, *, seed_id: int = 0, story: Sequence[str] = ()) -> Rule:
    """The rule for a step from this stage.

    Raises:
        IllegalTransitionError: the table holds no such step.
        EsperdError: SEED_NOT_BLENDING for an alpha asked of a seed that does not blend.
    """
    rule = TABLE.get((stage, step))
    if rule is not None:
        return rule
    if step is Operation.SET_ALPHA:
        raise EsperdError("SEED_NOT_BLENDING", seed_id=seed_id, stage=stage.name)
    raise IllegalTransitionError(seed_id, stage, step, story)


def stages_for(step: Operation | Event) -> tuple[Stage, ...]:
    """The stages from which the table allows a step, in order."""
    return tuple(sorted(stage for stage, found in TABLE if found is step))


def next_rule(stage: Stage) -> Rule:
    """Where ADVANCE leads from a live stage."""
    return TABLE[stage, Operation.ADVANCE]


def dwell_limits(
    stage: Stage, *, min_training_steps: int, max_training_steps: int, min_dwell_steps: int, max_dwell_steps: int
) -> tuple[int, int]:
    """Least and most steps that a seed spends in a live stage."""
    if stage is Stage.TRAINING:
        return min_training_steps, max_training_steps
    return min_dwell_steps, max_dwell_steps


def may_auto_advance(stage: Stage, until: Stage) -> bool:
    """Whether auto-advance still has a step to make: it never passes `until`."""
    return stage in LIVE and next_rule(stage).target <= until
