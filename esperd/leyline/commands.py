"""Commands as frozen values: what may be asked of a run, and what came of it.

They cross from the event loop to the training thread, so they hold plain values only: no protobuf, no tensor.
`esperd/control/translate.py` makes them from the wire; `esperd/tolaria/dispatch.py` carries them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from esperd.leyline.vocabulary import (
    AlphaCurve,
    BlendMode,
    BreakerState,
    CommandState,
    EmergencyLevel,
    Isolation,
    Operation,
    RollbackTier,
    TrainingMode,
)


@dataclass(frozen=True, slots=True)
class AlphaSchedule:
    """How alpha goes from where it is to its target, step by step."""

    curve: AlphaCurve = AlphaCurve.COSINE
    num_steps: int = 150
    target: float = 1.0
    steepness: float = 12.0
    """Only read by the sigmoid curve."""


@dataclass(frozen=True, slots=True)
class SeedCommand:
    """Ask something of one seed, or for a new seed at a site."""

    operation: Operation
    site: str = ""
    """Module path of the site; GERMINATE needs it."""
    seed_id: int = 0
    """The seed; every operation but GERMINATE needs it."""
    blueprint_id: str = ""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """The blueprint's own parameters, within the bounds of its descriptor."""
    alpha: AlphaSchedule | None = None
    """None means the run's default."""
    blend_mode: BlendMode = BlendMode.UNSPECIFIED
    training_mode: TrainingMode = TrainingMode.UNSPECIFIED
    isolation: Isolation = Isolation.UNSPECIFIED
    auto_advance: bool = False
    """The daemon advances the seed as soon as each gate passes."""
    auto_advance_until: str = ""
    """Name of the stage at which auto_advance stops; empty means FOSSILIZED."""


@dataclass(frozen=True, slots=True)
class HyperparameterCommand:
    """Set hyper-parameters of the host's optimizer, of one seed's, or of all."""

    target: str
    """`host`, `seed` or `all`."""
    values: Mapping[str, float]
    """For instance `{"lr": 3e-4, "weight_decay": 0.01}`."""
    seed_id: int = 0


@dataclass(frozen=True, slots=True)
class ResetOptimizerCommand:
    """Forget the running statistics (momentum, second moments) of an optimizer."""

    target: str
    seed_id: int = 0


@dataclass(frozen=True, slots=True)
class PauseCommand:
    """Hold training at the safe point until a ResumeCommand."""


@dataclass(frozen=True, slots=True)
class ResumeCommand:
    """Go on after a pause, or after a halt that an operator has cleared."""


@dataclass(frozen=True, slots=True)
class StopCommand:
    """End the run at the safe point: final validation, final state, daemon stays up."""


@dataclass(frozen=True, slots=True)
class CheckpointCommand:
    """Write a checkpoint of this safe point; APPLIED once it is durable on disk."""

    note: str = ""
    """Words for people, kept in the checkpoint's manifest."""


@dataclass(frozen=True, slots=True)
class RollbackCommand:
    """Go back to an earlier state of the run; opens a new timeline. Exactly one of the three targets is given."""

    checkpoint_id: str = ""
    """To this checkpoint, of whatever timeline."""
    global_step: int = -1
    """To the newest good state of this timeline at or before this step; -1 means not by step."""
    before_seed_id: int = 0
    """To the newest good state before this seed germinated; 0 means not by seed."""
    tier: RollbackTier = RollbackTier.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class KernelSwapCommand:
    """Have a seed compute by a kernel from the safe point on, or by its eager module."""

    seed_id: int
    artifact_id: str = ""
    """Empty means the eager module."""


@dataclass(frozen=True, slots=True)
class BreakerCommand:
    """Open or close a named circuit breaker by hand."""

    name: str
    desired_state: BreakerState


@dataclass(frozen=True, slots=True)
class EmergencyCommand:
    """Raise the emergency level, or clear it; overtakes every other command."""

    level: EmergencyLevel
    """The level to raise; UNSPECIFIED clears the named emergency."""
    emergency_id: str


@dataclass(frozen=True, slots=True)
class PolicyPresence:
    """Tell the trainer that the steering policy came, or was lost; made by the daemon, never by a client."""

    present: bool
    detail: str
    packet_every_steps: int = 0
    """Besides each epoch's end the policy wants a packet every so many steps; 0 leaves it to the configuration."""
    num_missed: int = 0
    """Decisions it missed in a row, unusable ones among them, when these are why it was lost; else 0."""


Payload = (
    SeedCommand
    | HyperparameterCommand
    | ResetOptimizerCommand
    | PauseCommand
    | ResumeCommand
    | StopCommand
    | CheckpointCommand
    | RollbackCommand
    | KernelSwapCommand
    | BreakerCommand
    | EmergencyCommand
    | PolicyPresence
)


@dataclass(frozen=True, slots=True)
class ApplyAt:
    """When a command takes effect: the next safe point unless a field is set."""

    global_step: int = 0
    """Apply at the first safe point at or after this step; 0 means at once."""
    epoch_boundary: bool = False
    """Apply at the next epoch boundary."""


@dataclass(frozen=True, slots=True)
class Command:
    """One accepted request for a change, on its way to the trainer."""

    command_id: str
    payload: Payload
    principal: str
    reason: str = ""
    expected_revision: int = 0
    """The state revision it was decided on; 0 means any."""
    apply_at: ApplyAt = ApplyAt()
    expire_time_unix_s: float = 0.0
    """Wall time after which it must not be applied; 0 means never."""
    decision_id: str = ""
    """The policy decision that it answers, if any."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command came to nothing, in the words of the error catalogue."""

    reason: str
    """The catalogue's reason, e.g. `SEED_NOT_BLENDING`."""
    message: str
    """What happened and what to do next."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one final answer to a command."""

    command_id: str
    state: CommandState
    global_step: int
    revision: int
    refusal: Refusal | None = None
    seed_id: int = 0
    """The seed that the command made or touched, 0 if none."""
    timeline: int = 1
    """The timeline of `global_step`."""
    sequence: int = 0
    """Number among the outcomes that the trainer gave, over all starts of the run; 0 when it did not give this one."""
