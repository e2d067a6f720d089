"""How a seed comes to be: the command's gaps filled, G0 asked, the module built; nothing is changed before all is good.

Training thread, at safe points. Builds under a random stream of its own. The executor does the registering.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.alpha import AlphaScheduleError, check_schedule
from esperd.kasmina.blending import Blender, BlendRefusedError
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, BlueprintParameterError
from esperd.kasmina.blueprints.registry import BlueprintRegistry, UnknownBlueprintError
from esperd.kasmina.gates import conclude, look
from esperd.kasmina.ports import Attribution, Host
from esperd.kasmina.seed import Plan, Seed
from esperd.kasmina.site import ActivationSpec
from esperd.kasmina.slot import Slot, rms
from esperd.kasmina.streams import Purpose, private_rng, stream_seed
from esperd.leyline.commands import AlphaSchedule, SeedCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import Cost, Evidence, GateResult
from esperd.leyline.vocabulary import (
    AlphaCurve,
    BlendMode,
    BlueprintTier,
    Gate,
    Isolation,
    Stage,
    TrainingMode,
)

OPTIMIZER_COPIES = 5
"""Tensors of a parameter's size that a seed keeps: weight, gradient, average, two moments."""
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def plan_for(
    command: SeedCommand, registry: BlueprintRegistry, settings: GrowthSettings, by: Attribution
) -> tuple[Plan, BlueprintDescriptor]:
    """What the command asks for, with the run's defaults filled in.

    Raises:
        EsperdError: BLUEPRINT_UNKNOWN, BLUEPRINT_PARAMETER, COMMAND_INVALID.
    """
    try:
        descriptor = registry.get(command.blueprint_id)
        parameters = descriptor.resolve(command.parameters)
        blend_mode = command.blend_mode or BlendMode[settings.blend_mode]
        until = stage_to_reach(command)
        alpha = schedule_for(command.alpha, blend_mode, settings)
    except UnknownBlueprintError:
        raise EsperdError("BLUEPRINT_UNKNOWN", blueprint_id=command.blueprint_id) from None
    except BlueprintParameterError as error:
        raise EsperdError("BLUEPRINT_PARAMETER", detail=error) from None
    plan = Plan(
        blueprint_id=command.blueprint_id,
        parameters=parameters,
        alpha=alpha,
        blend_mode=blend_mode,
        training_mode=command.training_mode or TrainingMode[settings.training_mode],
        isolation=command.isolation or Isolation[settings.isolation],
        auto_advance=command.auto_advance,
        until=until,
        requested_by=by.principal,
    )
    return plan, descriptor


def stage_to_reach(command: SeedCommand) -> Stage:
    """Where auto-advance is to stop; FOSSILIZED unless the command says otherwise.

    Raises:
        EsperdError: COMMAND_INVALID.
    """
    try:
        return Stage[command.auto_advance_until] if command.auto_advance_until else Stage.FOSSILIZED
    except KeyError as error:
        raise EsperdError("COMMAND_INVALID", detail=f"auto_advance_until: no stage {error}") from None


def schedule_for(asked: AlphaSchedule | None, blend_mode: BlendMode, settings: GrowthSettings) -> AlphaSchedule:
    """The ramp of a blend. Bernoulli ends at `blend_alpha` at most: some samples always do without the seed.

    Raises:
        EsperdError: COMMAND_INVALID.
    """
    schedule = asked or AlphaSchedule(AlphaCurve[settings.alpha_curve], settings.alpha_steps)
    if schedule.curve is AlphaCurve.UNSPECIFIED:
        schedule = replace(schedule, curve=AlphaCurve[settings.alpha_curve])
    try:
        check_schedule(schedule)
    except AlphaScheduleError as error:
        raise EsperdError("COMMAND_INVALID", detail=error) from None
    if blend_mode is BlendMode.BERNOULLI:
        schedule = replace(schedule, target=min(schedule.target, settings.blend_alpha))
    return schedule


def build_seed(
    seed_id: int,
    slot: Slot,
    plan: Plan,
    descriptor: BlueprintDescriptor,
    cost: Cost,
    host: Host,
    random_seed: int,
    step: int,
) -> Seed:
    """The seed itself, on the host's device, drawn from a stream of its own.

    Raises:
        EsperdError: BLEND_UNSUITABLE.
        Exception: whatever the blueprint's own code raises.
    """
    spec = slot.site.spec
    stream = stream_seed(random_seed, seed_id, Purpose.BUILD)
    with private_rng(host.device, stream), torch.device(host.device):
        module = descriptor.build(spec.shape, plan.parameters).to(host.device, spec.seed_dtype)
        try:
            blender = Blender(
                plan.blend_mode,
                spec.shape,
                generator=torch.Generator(host.device),
                yields_logits=spec.yields_logits,
                detach_host=plan.isolation is Isolation.STRICT,
            )
        except BlendRefusedError as error:
            raise EsperdError("BLEND_UNSUITABLE", detail=error) from None
    return Seed(seed_id, slot.site.path, plan, module, blender.to(spec.seed_dtype), cost, step=step)


def admission(
    slot: Slot,
    descriptor: BlueprintDescriptor,
    settings: GrowthSettings,
    *,
    num_host_parameters: int,
    num_grown_parameters: int,
    cost: Cost,
) -> list[Evidence]:
    """What G0 can say without building: trust, shape, and the three budgets at the real shape."""
    spec = slot.site.spec
    allowed = BlueprintTier[settings.allow_tier]
    parameters = num_grown_parameters + cost.num_parameters
    memory = cost.num_parameters * 4 * OPTIMIZER_COPIES + cost.activation_bytes * spec.shape[0]
    return [
        look("tier", descriptor.tier, "at_most", allowed, detail=f"{descriptor.tier.name}, allowed {allowed.name}"),
        look("site_admitted", float(descriptor.admits(spec.shape, spec.seed_dtype)), "equal", 1.0),
        look("parameter_ratio", parameters / max(1, num_host_parameters), "at_most", settings.max_parameter_ratio),
        look("flops_ratio", _flops_ratio(cost, spec), "at_most", settings.max_seed_flops_ratio),
        look("memory_bytes", memory, "at_most", settings.max_memory_bytes),
    ]


def sanity(seed: Seed, x: Tensor, host_parameters: Sequence[nn.Parameter], random_seed: int) -> list[Evidence]:
    """What G0 asks of the built module: a probe output of the activation's shape, dtype and device, and finite."""
    norms = sum(isinstance(part, _BATCH_NORMS) for part in seed.module.modules())
    shared = {id(p) for p in host_parameters} & {id(p) for p in seed.parameters}
    evidence = [
        look("trainable_parameters", len(seed.parameters), "at_least", 1),
        look("batch_norms", norms, "equal", 0.0),
        look("host_parameters_inside", len(shared), "equal", 0.0),
    ]
    try:
        stream = stream_seed(random_seed, seed.seed_id, Purpose.DRY_RUN)
        with torch.no_grad(), private_rng(x.device, stream):
            d = seed.module(x.to(seed.parameters[0].dtype) if seed.parameters else x)
    except Exception as error:  # noqa: BLE001 - a seed's own code may raise anything; that is the finding
        evidence.append(look("probe_output", 0.0, "equal", 1.0, detail=f"raised {type(error).__name__}: {error}"))
        return evidence
    if not isinstance(d, Tensor) or d.shape != x.shape:
        shape = tuple(d.shape) if isinstance(d, Tensor) else type(d).__name__
        evidence.append(look("same_shape", 0.0, "equal", 1.0, detail=f"{shape}, the site has {tuple(x.shape)}"))
        return evidence
    right = d.dtype is seed.parameters[0].dtype if seed.parameters else d.dtype is x.dtype
    ratio = float(rms(d) / rms(x).clamp_min(1e-12))
    return [
        *evidence,
        look("same_dtype", float(right), "equal", 1.0, detail=str(d.dtype)),
        look("same_device", float(d.device == x.device), "equal", 1.0, detail=str(d.device)),
        look("finite", float(torch.isfinite(d).all()), "equal", 1.0),
        look("first_output_ratio", ratio, "at_most", 1.0),
    ]


def sanity_result(evidence: Sequence[Evidence], step: int) -> GateResult:
    """G0."""
    return conclude(Gate.G0_SANITY, step, evidence)


def _flops_ratio(cost: Cost, spec: ActivationSpec) -> float:
    if spec.host_forward_flops > 0.0:
        return cost.forward_flops / spec.host_forward_flops
    return 0.0  # the host's FLOPs cannot be counted, so no budget can be held against them
