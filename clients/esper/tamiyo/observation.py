"""What a policy looks at: one moment of the run and the moments before it, as frozen values.

Any thread. Knows no protobuf (`packets` makes these values) and no clock: everything a policy may use is in the
observation, so that a decision can be replayed from a recorded run.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CANDIDATE_STAGES = frozenset({"GERMINATED", "TRAINING"})
"""Stages in which the host's forward is untouched; several seeds of one site may be here."""
GRAFTED_STAGES = frozenset({"BLENDING", "SHADOWING", "PROBATIONARY"})
"""Stages in which a seed is mixed into the host; one seed of a site at a time."""
LIVE_STAGES = CANDIDATE_STAGES | GRAFTED_STAGES


@dataclass(frozen=True, slots=True)
class Gain:
    """A measured contribution: mean paired loss difference with anytime-valid bounds; positive, the seed helps."""

    kind: str
    """`pre_blend_gain` (close to causal) or `dependence` (overstates it)."""
    mean: float
    lower: float
    upper: float
    num_samples: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a seed costs at its site."""

    num_parameters: int = 0
    forward_flops: int = 0
    """For one sample."""
    backward_flops: int = 0
    """For one sample."""

    @property
    def flops(self) -> int:
        """Forward and backward FLOPs for one sample."""
        return self.forward_flops + self.backward_flops


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed of the run."""

    seed_id: str
    stage: str
    """Name of its stage, e.g. `TRAINING`."""
    site: str
    blueprint_id: str
    stage_steps: int = 0
    """Steps since it entered its stage."""
    germinated_step: int = 0
    alpha: float = 0.0
    learning_rate: float = 0.0
    cost: Cost = Cost()
    gains: tuple[Gain, ...] = ()
    first_order_gain: float = 0.0
    """A screen: right order, up to three times too high."""
    gate_failed: bool = False
    """The gate before its next stage was last found FAILED; it may be asked again later."""
    num_isolation_violations: int = 0
    risk: float = 0.0
    requested_by: str = ""
    """Principal who asked for it."""

    def gain(self, kind: str) -> Gain | None:
        """The contribution of this kind, if it has been measured on at least one sample."""
        return next((gain for gain in self.gains if gain.kind == kind and gain.num_samples > 0), None)


@dataclass(frozen=True, slots=True)
class Offer:
    """A blueprint that may germinate at a site."""

    blueprint_id: str
    cost: Cost
    risk: float = 0.0
    tier: str = "SAFE"


@dataclass(frozen=True, slots=True)
class Site:
    """One place where seeds may grow."""

    site: str
    vacant: bool
    activation_shape: tuple[int, ...] = ()
    """Batch size first, as last seen."""
    num_fossils: int = 0
    embargoed_until_step: int = 0
    """Blocked until this step after a cull."""
    offers: tuple[Offer, ...] = ()

    @property
    def rank(self) -> int:
        """Number of dimensions: 4 for images, 3 for sequences, 2 for plain rows."""
        return len(self.activation_shape)

    def is_open(self, step: int) -> bool:
        """Whether a seed may germinate here at this step."""
        return self.vacant and step >= self.embargoed_until_step

    def offer(self, blueprint_id: str) -> Offer | None:
        """The offer of this blueprint, if the site admits it."""
        return next((offer for offer in self.offers if offer.blueprint_id == blueprint_id), None)


@dataclass(frozen=True, slots=True)
class Point:
    """The losses of one packet; NaN where not measured."""

    step: int
    probe_loss: float
    validation_loss: float
    training_loss: float
    lr_phase: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A command that this policy sent, and what became of it."""

    request_id: str
    operation: str
    """`GERMINATE`, `START_GRAFTING` or `CULL`."""
    step: int
    """Step of the packet that it answered."""
    site: str = ""
    seed_id: str = ""
    blueprint_id: str = ""
    parameters: Mapping[str, float] = field(default_factory=dict)
    state: str = "PENDING"
    """`PENDING`, or the name of the command's final state."""
    reason: str = ""
    """The catalogue's reason, if it came to nothing."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A seed that reached its end while the policy watched."""

    seed_id: str
    site: str
    blueprint_id: str
    stage: str
    """`FOSSILIZED` or `CULLED`."""
    last_stage: str
    """The live stage that it was last seen in."""
    step: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One moment of the run, with what went before."""

    run_id: str
    step: int
    num_steps_total: int
    """0 when the run is endless."""
    lr_phase: str
    """`warmup`, `stable` or `decay`; empty if unknown."""
    revision: int = 0
    reason: str = "interval"
    """`epoch_end`, `interval`, `event` or `run_finished`."""
    probe_loss: float = math.nan
    validation_loss: float = math.nan
    training_loss: float = math.nan
    emergency_level: int = 0
    """0 all clear to 4 halt."""
    host_step_flops: float = 0.0
    batch_size: int = 0
    """Samples in a batch, from the run's speed; 0 while unknown."""
    memory_used: float = math.nan
    """Share of the device's memory in use, 0 to 1."""
    seeds: tuple[Seed, ...] = ()
    sites: tuple[Site, ...] = ()
    history: tuple[Point, ...] = ()
    """Oldest first; the last one is this moment."""
    attempts: tuple[Attempt, ...] = ()
    """Oldest first."""
    endings: tuple[Ending, ...] = ()
    """Oldest first."""
    principal: str = ""
    """Who this policy is; seeds that others asked for are theirs."""
    timeline: int = 1
    """The branch of the run's history; a rollback opens a new one, on which seed numbers may come again."""

    @property
    def fraction(self) -> float:
        """Share of the run that is done; NaN when it is endless."""
        return self.step / self.num_steps_total if self.num_steps_total else math.nan

    @property
    def loss(self) -> float:
        """The best loss there is to judge by: probe, else validation, else training."""
        return next(
            (loss for loss in (self.probe_loss, self.validation_loss, self.training_loss) if math.isfinite(loss)),
            math.nan,
        )

    @property
    def coverage(self) -> float:
        """Share of what a policy wants to know that this observation really holds, 0 to 1."""
        known = (
            math.isfinite(self.training_loss),
            math.isfinite(self.validation_loss),
            math.isfinite(self.probe_loss),
            bool(self.lr_phase),
            self.host_step_flops > 0.0,
            bool(self.sites),
            any(site.offers for site in self.sites),
            len(self.history) > 1,
        )
        return sum(known) / len(known)

    def owns(self, seed: Seed) -> bool:
        """Whether this policy may decide about the seed."""
        return seed.requested_by in ("", self.principal)

    def at(self, site: str) -> tuple[Seed, ...]:
        """The live seeds at a site."""
        return tuple(seed for seed in self.seeds if seed.site == site and seed.stage in LIVE_STAGES)

    def pending(self) -> Iterator[Attempt]:
        """Commands whose outcome this observation does not show yet."""
        return (attempt for attempt in self.attempts if attempt.state == "PENDING")

    def flops_ratio(self, cost: Cost) -> float:
        """FLOPs of a seed over those of the host, per step; 0 where either is unknown."""
        if self.host_step_flops <= 0.0 or self.batch_size <= 0:
            return 0.0
        return cost.flops * self.batch_size / self.host_step_flops
