"""One seed: its module, its blend, its stage and everything measured about it; and what is left after a cull.

Training thread only. Holds state and computes its own delta; decides nothing (see `gates`, `guard`, `executor`) and
owns no optimizer.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from esperd.kasmina.alpha import AlphaRamp
from esperd.kasmina.blending import Blender
from esperd.kasmina.judgement import Judgement
from esperd.kasmina.kernels.attached import Attached
from esperd.kasmina.loss_watch import ProbeWatch
from esperd.kasmina.ports import Batch
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.kernels import KernelVariant
from esperd.leyline.views import Contribution, Cost, GateResult, SeedView
from esperd.leyline.vocabulary import BlendMode, Gate, Isolation, Stage, TrainingMode

STORY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for at germination, with every default filled in."""

    blueprint_id: str
    parameters: Mapping[str, float]
    alpha: AlphaSchedule
    blend_mode: BlendMode
    training_mode: TrainingMode
    isolation: Isolation
    auto_advance: bool
    until: Stage
    requested_by: str


@dataclass(slots=True)
class Health:
    """What the training of a seed looked like; tensors stay on the device until the log step reads them."""

    loss: Tensor | None = None
    output_ratio: Tensor | None = None
    gradient_rms: Tensor | None = None
    """EMA (0.95) of rms(g), the scale of gradient matching."""
    num_not_finite: int = 0
    """Steps of the seed that were skipped because its gradient was not finite."""
    read_loss: float = 0.0
    read_gradient_norm: float = 0.0
    read_output_ratio: float = 0.0
    max_output_ratio: float = 0.0
    """Largest rms(alpha * delta) / rms(activation) read since blending began."""
    seed_s: list[float] = field(default_factory=list)
    """Seconds that the seed's own work took in the last steps of its blend."""
    step_s: list[float] = field(default_factory=list)
    """Seconds of those whole steps."""


class Seed:
    """A live or fossilized seed."""

    def __init__(
        self, seed_id: int, site: str, plan: Plan, module: nn.Module, blender: Blender, cost: Cost, *, step: int
    ) -> None:
        self.seed_id = seed_id
        self.site = site
        self.plan = plan
        self.module = module
        self.blender = blender
        self.cost = cost
        self.parameters: list[nn.Parameter] = _unique([*module.parameters(), *blender.parameters()])
        self.ema: list[Tensor] = [parameter.detach().clone() for parameter in self.parameters]
        self.alpha: Tensor = torch.zeros((), device=self.parameters[0].device if self.parameters else None)
        self.ramp: AlphaRamp | None = None
        self.amplitude = 1.0
        """What the line search chose, a power of two, so that scaling by it is exact."""
        self.stage = Stage.DORMANT
        self.stage_entered_step = step
        self.germinated_step = step
        self.fine_tune = False
        self.auto_advance = plan.auto_advance
        self.health = Health()
        self.gates: dict[tuple[Gate, str], GateResult] = {}
        self.contributions: dict[str, Contribution] = {}
        self.judgement: Judgement | None = None
        self.probe_watch = ProbeWatch()
        self.reference: tuple[list[Batch], list[float]] = ([], [])
        """Held-out batches and the host's per-unit losses on them when the blend began."""
        self.reference_loss = 0.0
        """Mean held-out loss at alpha 0 when it was last measured: thresholds are relative to it."""
        self.first_order_gain = 0.0
        """`-<g, d>` on held-out data when G2 was last asked."""
        self.num_commit_looks = 0
        """How often the commit gate has begun to measure; each look spends its share of the error level."""
        self.next_look_step = 0
        """When the gate (TRAINING) or the probe (later stages) is due next."""
        self.num_violations = 0
        self.tripped = ""
        """Why the seed must go at the next safe point; empty while it may stay."""
        self.shared_prefix = False
        """Probes may run the host's prefix once (verified at germination)."""
        self.note = ""
        self.story: list[str] = []
        self.variant: KernelVariant | None = None
        """Which kernels fit it; None where the source of its blueprint cannot be read."""
        self.attached: Attached | None = None
        """The kernel that it trains by; everything but training goes through the module."""
        self.kernel_artifact_id = ""
        self.kernel_note = ""
        """Why it runs eager, all the time or where its kernel does not fit."""
        self.refuses_kernels = False
        self.prewarm_ms = 0.0

    @property
    def joint(self) -> bool:
        """Whether the seed's input is attached, so that what lies upstream adapts to it."""
        if self.stage is Stage.FOSSILIZED or self.fine_tune:
            return True
        if self.stage is Stage.PROBATIONARY:
            return self.plan.isolation is not Isolation.STRICT
        return self.plan.isolation is Isolation.RELEASED and self.stage is not Stage.TRAINING

    @property
    def learns(self) -> bool:
        """Whether its weights may move now; it stands still while it is judged."""
        return self.stage in (Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY)

    def delta(self, x: Tensor) -> Tensor:
        """What the seed adds at activation x, amplitude included; same shape. Trains by its kernel where it has one."""
        d: Tensor | None = None
        if self.attached is not None and self.module.training and torch.is_grad_enabled():
            d = self.attached.delta(x)
        if d is None:
            d = self.module(x)
        return d if self.amplitude == 1.0 else d * self.amplitude

    def averaged_delta(self, x: Tensor, amplitude: float) -> Tensor:
        """The delta of the averaged weights at another amplitude; the live weights are not touched."""
        d: Tensor = functional_call(self.module, self._named_average(), (x,))
        return d if amplitude == 1.0 else d * amplitude

    def update_average(self, decay: float) -> None:
        """One step of the moving average of the weights."""
        if self.ema:
            torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1.0 - decay)

    def take_average(self) -> None:
        """Make the averaged weights the live ones, so that what was judged is what goes on."""
        with torch.no_grad():
            if self.ema:
                torch._foreach_copy_([p.detach() for p in self.parameters], self.ema)

    def enter(self, stage: Stage, step: int, cause: str) -> None:
        """Take a stage and note it in the story."""
        self.stage = stage
        self.stage_entered_step = step
        self.story.append(f"{stage.name} at step {step} ({cause})")
        del self.story[:-STORY_LENGTH]

    def set_alpha(self, value: float) -> None:
        """Put a value into the alpha buffer."""
        self.alpha.fill_(value)

    @property
    def alpha_value(self) -> float:
        """Alpha as a number; never read from the device."""
        if self.stage is Stage.FOSSILIZED:
            return 1.0
        return self.ramp.effective if self.ramp is not None else 0.0

    def view(self, learning_rate: float) -> SeedView:
        """The seed as seen from outside."""
        return SeedView(
            seed_id=self.seed_id,
            site=self.site,
            blueprint_id=self.plan.blueprint_id,
            stage=self.stage,
            stage_entered_step=self.stage_entered_step,
            germinated_step=self.germinated_step,
            alpha=self.alpha_value,
            alpha_target=self.ramp.target if self.ramp is not None else self.plan.alpha.target,
            blend_mode=self.plan.blend_mode,
            training_mode=self.plan.training_mode,
            isolation=self.plan.isolation,
            auto_advance=self.auto_advance,
            cost=self.cost,
            learning_rate=learning_rate,
            gradient_norm=self.health.read_gradient_norm,
            output_ratio=self.health.read_output_ratio,
            seed_loss=self.health.read_loss,
            first_order_gain=self.first_order_gain,
            contributions=tuple(self.contributions.values()),
            gates=tuple(self.gates.values()),
            num_isolation_violations=self.num_violations,
            requested_by=self.plan.requested_by,
            note=self.note,
            variant=self.variant,
            kernel_artifact_id=self.kernel_artifact_id,
            kernel_note=self.kernel_note,
            refuses_kernels=self.refuses_kernels,
            prewarm_ms=self.prewarm_ms,
        )

    def _named_average(self) -> dict[str, Tensor]:
        average = {id(p): tensor for p, tensor in zip(self.parameters, self.ema, strict=True)}
        return {name: average[id(p)] for name, p in self.module.named_parameters()}


class Remains:
    """What is left of a seed after a cull: no tensor, only its last view and the means to prove that it is gone."""

    def __init__(
        self, view: SeedView, story: list[str], embargo_until_step: int, embargo_until_unix_s: float, *, blocks: bool
    ) -> None:
        self.view = view
        self.story = story
        self.embargo_until_step = embargo_until_step
        self.embargo_until_unix_s = embargo_until_unix_s
        self.blocks = blocks
        """Whether its site takes no new seed until it is reset."""
        self._references: list[weakref.ref[nn.Parameter]] = []
        self._looked = False

    @classmethod
    def of(cls, seed: Seed, embargo_until_step: int, embargo_until_unix_s: float, *, blocks: bool) -> "Remains":
        """Of a seed that is being culled."""
        view = replace(seed.view(0.0), alpha=0.0, variant=None, kernel_artifact_id="", kernel_note="", prewarm_ms=0.0)
        remains = cls(view, list(seed.story), embargo_until_step, embargo_until_unix_s, blocks=blocks)
        remains._references = [weakref.ref(parameter) for parameter in seed.parameters]
        return remains

    @property
    def num_reachable(self) -> int:
        """Parameters of the seed that somebody still holds."""
        return sum(reference() is not None for reference in self._references)

    def is_first_look(self) -> bool:
        """True once: the garbage collector is run for a seed one time only."""
        first, self._looked = not self._looked, True
        return first

    def enter(self, stage: Stage, step: int, gate: GateResult | None) -> None:
        """Take a stage."""
        gates = self.view.gates if gate is None else (*self.view.gates, gate)
        self.view = replace(self.view, stage=stage, stage_entered_step=step, gates=gates)


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())
