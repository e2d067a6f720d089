"""Views as frozen values: what the training thread lets the rest of the daemon see.

The training thread builds a `Snapshot` when something changed or at a log step and swaps it into the bridge
by reference; readers on the event loop hold it as long as they like. Plain values only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from esperd.leyline.kernels import KernelVariant
from esperd.leyline.vocabulary import (
    BlendMode,
    BlueprintTier,
    BreakerState,
    CheckpointKind,
    EmergencyLevel,
    Gate,
    Isolation,
    Stage,
    TrainerPhase,
    TrainingMode,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measurement a gate looked at."""

    name: str
    value: float
    threshold: float
    sense: str
    """`at_most`, `at_least`, `below`, `above` or `equal`: how value must stand to threshold."""
    passed: bool
    num_samples: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate found, with its evidence, at one step."""

    gate: Gate
    verdict: Verdict
    global_step: int
    evidence: tuple[Evidence, ...] = ()
    purpose: str = ""
    """`commit` for G4 evaluated again before FOSSILIZED, else empty."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a seed is worth: paired loss differences without minus with the seed (positive: it helps)."""

    kind: str
    """`pre_blend_gain` (host not adapted to it, close to causal) or `dependence` (overstates it 2 to 4x)."""
    mean: float
    lower: float
    upper: float
    """Anytime-valid bounds at `level` each."""
    num_samples: int
    level: float
    std: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a seed of one blueprint costs at one site, computed at the site's real shape."""

    num_parameters: int
    forward_flops: int
    """For one sample."""
    backward_flops: int
    activation_bytes: int
    """For one sample."""
    step_ms: float = 0.0
    """Measured; 0 while not measured."""


@dataclass(frozen=True, slots=True)
class SeedView:
    """One seed as seen from outside."""

    seed_id: int
    site: str
    blueprint_id: str
    stage: Stage
    stage_entered_step: int
    germinated_step: int
    alpha: float
    alpha_target: float
    blend_mode: BlendMode
    training_mode: TrainingMode
    isolation: Isolation
    auto_advance: bool
    cost: Cost
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    """L2 norm over the seed's parameters at the last log step."""
    output_ratio: float = 0.0
    """rms(delta)/rms(activation) at the last log step."""
    seed_loss: float = 0.0
    """The seed's own training loss at the last log step."""
    first_order_gain: float = 0.0
    """-<g, d> on held-out data: a screen, not a gate."""
    contributions: tuple[Contribution, ...] = ()
    gates: tuple[GateResult, ...] = ()
    """The latest result of each gate."""
    num_isolation_violations: int = 0
    requested_by: str = ""
    """Principal of the GERMINATE."""
    note: str = ""
    """Why it was culled, or what it waits for."""
    variant: KernelVariant | None = None
    """Which kernels fit it; None where it has no module."""
    kernel_artifact_id: str = ""
    """The kernel that it computes by; empty while it runs its eager module."""
    kernel_note: str = ""
    """Why it runs eager, always or where its kernel does not fit; empty otherwise."""
    refuses_kernels: bool = False
    """A command put it back to its eager module: the daemon swaps no kernel in by itself."""
    prewarm_ms: float = 0.0
    """Milliseconds that warming its kernel up took, off the training thread."""


@dataclass(frozen=True, slots=True)
class ParameterBounds:
    """What values a blueprint parameter may take, both ends included."""

    minimum: float
    maximum: float
    default: float
    is_integer: bool


@dataclass(frozen=True, slots=True)
class BlueprintOffer:
    """One blueprint that may be germinated at a site, with its true cost there."""

    blueprint_id: str
    tier: BlueprintTier
    risk: float
    cost: Cost
    name: str = ""
    description: str = ""
    bounds: Mapping[str, ParameterBounds] = field(default_factory=dict)
    """The blueprint's own parameters."""
    variant: KernelVariant | None = None
    """Which kernels fit it there, with its default parameters."""


@dataclass(frozen=True, slots=True)
class SiteView:
    """One place of the host where seeds may grow."""

    site: str
    module_type: str
    activation_shape: tuple[int, ...]
    """Shape of the activation at the site with batch size first, as last seen."""
    dtype: str
    vacant: bool
    num_fossils: int
    live_seed_ids: tuple[int, ...]
    embargoed_until_step: int
    embargoed_until_unix_s: float
    offers: tuple[BlueprintOffer, ...] = ()
    autocast_dtype: str = ""
    """Dtype of the autocast under which the host computes it; empty without."""
    batch_size: int = 0
    """Batch size of its activation in training; 0 before the first step."""


@dataclass(frozen=True, slots=True)
class OptimizerGroupView:
    """One parameter group of one optimizer."""

    owner: str
    """`host` or `seed:<id>`."""
    optimizer_type: str
    num_parameters: int
    num_tensors: int
    hyperparameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmergencyView:
    """One raised emergency."""

    emergency_id: str
    level: EmergencyLevel
    reason: str
    origin: str
    """`budget`, `loss`, `rollback`, `epochs`, `executor`, `memory`, `checkpoint`, `policy`, `breaker:<name>` or a
    principal."""
    raised_step: int
    raised_unix_s: float


@dataclass(frozen=True, slots=True)
class BreakerView:
    """One circuit breaker."""

    name: str
    state: BreakerState
    num_failures: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """The run as a whole."""

    run_id: str
    task: str
    phase: TrainerPhase
    global_step: int
    epoch: int
    num_steps_total: int
    """Steps the run is configured for; 0 when it is endless."""
    train_loss: float
    val_loss: float
    """NaN before the first validation."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Validation metrics by name, e.g. `accuracy`."""
    learning_rate: float = 0.0
    lr_phase: str = "stable"
    """`warmup`, `stable` or `decay`: what the learning-rate schedule is doing."""
    samples_per_s: float = 0.0
    step_ms: float = 0.0
    baseline_step_ms: float = 0.0
    num_host_parameters: int = 0
    num_grown_parameters: int = 0
    train_flops: float = 0.0
    """Floating-point operations spent on training so far, shadow passes and probes included."""
    host_step_flops: float = 0.0
    device: str = ""
    emergency_level: EmergencyLevel = EmergencyLevel.UNSPECIFIED
    started_unix_s: float = 0.0
    stall: str = ""
    """The cause of a stall, empty when there is none."""
    failure: str = ""
    """Why the run failed, empty when it did not."""
    timeline: int = 1
    """The branch of the run's history on which it is now; a rollback opens a new one."""
    resumed_from: str = ""
    """Id of the checkpoint from which this start of the daemon went on, empty when it began the run."""
    catch_up_step: int = 0
    """While CATCHING_UP: the step up to which an earlier start's work is done again."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A state of the run to which a rollback can go."""

    global_step: int
    timeline: int
    checkpoint_id: str
    """Empty while the state is in memory only."""
    in_memory: bool
    is_good: bool
    """The steps that followed it stayed healthy."""
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TimelineView:
    """One branch of the run's history."""

    timeline: int
    parent: int
    """0 for the first."""
    fork_step: int
    """The step of the parent's state from which it goes on."""
    cause: str = ""
    """A command id, or the rule that rolled back, e.g. `loss_anomaly`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything visible at one revision; immutable, swapped by reference."""

    revision: int
    """Grows by at least one with every change that a watcher must see."""
    run: RunView
    seeds: tuple[SeedView, ...] = ()
    sites: tuple[SiteView, ...] = ()
    optimizers: tuple[OptimizerGroupView, ...] = ()
    emergencies: tuple[EmergencyView, ...] = ()
    breakers: tuple[BreakerView, ...] = ()
    restore_points: tuple[RestorePoint, ...] = ()
    """Oldest first; of very many only the newest (`restore_points.newest`)."""
    timelines: tuple[TimelineView, ...] = (TimelineView(1, 0, 0),)
    """Every timeline of the run, oldest first; the last one is the current one."""


@dataclass(frozen=True, slots=True)
class TransitionEvent:
    """A seed went from one stage to another; goes to the journal and to watchers."""

    seed_id: int
    site: str
    blueprint_id: str
    source: Stage
    target: Stage
    global_step: int
    revision: int
    cause: str
    """A command id, `auto`, or the rule that acted, e.g. `guard:non_finite`."""
    gate: GateResult | None
    unix_s: float
    timeline: int = 1


@dataclass(frozen=True, slots=True)
class NoticeEvent:
    """Something worth a line in the journal: a fallback, a tripped guard, an emergency raised or cleared."""

    kind: str
    """Dotted name, e.g. `emergency.raised`, `guard.tripped`, `gate.evaluated`."""
    message: str
    level: str
    """`info`, `warning`, `error` or `critical`."""
    global_step: int
    revision: int
    unix_s: float
    attributes: Mapping[str, str] = field(default_factory=dict)
    timeline: int = 1


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """A checkpoint is durable on disk; goes to the journal."""

    checkpoint_id: str
    kind: CheckpointKind
    global_step: int
    timeline: int
    num_bytes: int
    pause_ms: float
    """For how long the training thread stood still."""
    write_ms: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """A rollback has opened a new timeline; goes to the journal. Seeds that the rollback removed or brought back are
    told by `removed_seed_ids` and `restored_seed_ids`, not by transitions.
    """

    timeline: int
    parent: int
    fork_step: int
    """The step that the run has gone back to."""
    left_step: int
    """The step that the parent had reached."""
    checkpoint_id: str
    """Where the state came from; empty when it came from memory."""
    cause: str
    """A command id, or the rule that rolled back, e.g. `loss_anomaly`."""
    removed_seed_ids: tuple[int, ...]
    restored_seed_ids: tuple[int, ...]
    revision: int
    unix_s: float


@dataclass(frozen=True, slots=True)
class RunResumed:
    """A later start of the daemon has picked the run up; recorded by the trainer once the state is restored."""

    run_id: str
    checkpoint_id: str
    """Empty when the run went on from its very beginning."""
    timeline: int
    global_step: int
    """The step of the restored state."""
    revision: int
    """The first public revision of this start."""
    revision_offset: int
    """Added to a revision of the start before, it is the same state's revision in this start."""
    unix_s: float


@dataclass(frozen=True, slots=True)
class StatePacket:
    """What a policy decides on: a snapshot at an epoch end or every N steps, with the probe losses so far."""

    snapshot: Snapshot
    packet_number: int
    reason: str
    """`epoch_end`, `interval`, `event` or `run_finished`."""
    probe_loss: float
    """Loss on the held-out probe set at this step, NaN if not measured."""
    unix_s: float
