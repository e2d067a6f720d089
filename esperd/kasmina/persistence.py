"""Everything that grows as one dictionary of plain values and CPU tensors, and back again, exactly.

Training thread only. Knows no file and no optimizer state: the checkpoint writer and the trainer own those. Streams
need no saving, since each is a function of the run's random seed, the seed's id and the step.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from esperd.kasmina.alpha import AlphaRamp
from esperd.kasmina.garden import Garden
from esperd.kasmina.germination import build_seed
from esperd.kasmina.judgement import Judgement
from esperd.kasmina.loss_watch import LossWatch, ProbeWatch
from esperd.kasmina.seed import Health, Plan, Remains, Seed
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.views import Contribution, Cost, Evidence, GateResult, SeedView
from esperd.leyline.vocabulary import AlphaCurve, BlendMode, Gate, Isolation, Stage, TrainingMode, Verdict

VERSION = 1

_PLAIN = (
    "amplitude",
    "stage_entered_step",
    "germinated_step",
    "fine_tune",
    "auto_advance",
    "reference_loss",
    "first_order_gain",
    "next_look_step",
    "num_commit_looks",
    "num_violations",
    "tripped",
    "shared_prefix",
    "note",
)


def save(garden: Garden) -> dict[str, Any]:
    """The garden as a dictionary; its tensors are copies on the CPU."""
    return {
        "version": VERSION,
        "num_germinations": garden.num_germinations,
        "seed_flops": garden.seed_flops,
        "probe_flops": garden.prober.flops,
        "judging_flops": garden.judging_flops,
        "held": garden.held,
        "loss_watch": garden.guard.losses(),
        "sites": {
            path: {
                "embargoed_until_step": slot.site.embargoed_until_step,
                "embargoed_until_unix_s": slot.site.embargoed_until_unix_s,
                "failures": dict(slot.site.failures),
                "fossils": [seed.seed_id for seed in slot.fossils],
                "grafted": slot.grafted.seed_id if slot.grafted is not None else 0,
                "candidates": [seed.seed_id for seed in slot.candidates],
            }
            for path, slot in garden.slots.items()
        },
        "seeds": [_save_seed(seed) for seed in garden.seeds.values()],
        "remains": [_save_remains(remains) for remains in garden.remains],
    }


def load(garden: Garden, state: Mapping[str, Any]) -> None:
    """Put the garden into the saved state; whatever grows now is dropped first.

    Raises:
        ValueError: the state is of another version, or names a site that this run has not.
    """
    if state["version"] != VERSION:
        raise ValueError(f"the state of the seeds has version {state['version']}, this build reads {VERSION}")
    unknown = set(state["sites"]) - set(garden.slots)
    if unknown:
        raise ValueError(f"the state of the seeds names sites that the model has not: {sorted(unknown)}")
    _clear(garden)
    garden.num_germinations = state["num_germinations"]
    garden.seed_flops = state["seed_flops"]
    garden.prober.flops = state["probe_flops"]
    garden.judging_flops = state["judging_flops"]
    garden.held = state["held"]
    garden.guard.watch = LossWatch(state["loss_watch"])
    for saved in state["seeds"]:
        seed = _load_seed(garden, saved)
        garden.seeds[seed.seed_id] = seed
        garden.germination_of[seed.seed_id] = seed.seed_id
    for path, saved in state["sites"].items():
        _load_site(garden, path, saved)
    garden.remains = [_load_remains(saved) for saved in state["remains"]]
    for seed in [*garden.fossils, *garden.live]:
        garden.optimizers.create_seed(seed.seed_id, seed.parameters)
        if seed.stage is Stage.FOSSILIZED:
            garden.optimizers.merge_seed(seed.seed_id)


def _clear(garden: Garden) -> None:
    for seed in garden.live:
        garden.optimizers.drop_seed(seed.seed_id)
    garden.seeds.clear()
    garden.remains.clear()
    for slot in garden.slots.values():
        slot.fossils, slot.grafted, slot.candidates = [], None, []
        slot.disarm()
        slot.refresh()


def _load_site(garden: Garden, path: str, saved: Mapping[str, Any]) -> None:
    slot = garden.slots[path]
    slot.site.embargoed_until_step = saved["embargoed_until_step"]
    slot.site.embargoed_until_unix_s = saved["embargoed_until_unix_s"]
    slot.site.failures = dict(saved["failures"])
    slot.fossils = [garden.seeds[seed_id] for seed_id in saved["fossils"]]
    slot.grafted = garden.seeds[saved["grafted"]] if saved["grafted"] else None
    slot.candidates = [garden.seeds[seed_id] for seed_id in saved["candidates"]]
    slot.refresh()


def _save_seed(seed: Seed) -> dict[str, Any]:
    batches, losses = seed.reference
    health = seed.health
    return {
        "seed_id": seed.seed_id,
        "site": seed.site,
        "stage": int(seed.stage),
        "plan": _save_plan(seed.plan),
        "cost": asdict(seed.cost),
        "module": _copied(seed.module.state_dict()),
        "blender": _copied(seed.blender.state_dict()),
        "detach_host": seed.blender.detach_host,
        "ema": [tensor.detach().cpu().clone() for tensor in seed.ema],
        "alpha": float(seed.alpha),
        "ramp": seed.ramp.state() if seed.ramp is not None else None,
        **{name: getattr(seed, name) for name in _PLAIN},
        "gradient_rms": float(health.gradient_rms) if health.gradient_rms is not None else None,
        "health": {
            "read_loss": health.read_loss,
            "read_gradient_norm": health.read_gradient_norm,
            "read_output_ratio": health.read_output_ratio,
            "max_output_ratio": health.max_output_ratio,
            "num_not_finite": health.num_not_finite,
            "seed_s": list(health.seed_s),
            "step_s": list(health.step_s),
        },
        "gates": [_save_gate(result) for result in seed.gates.values()],
        "contributions": [asdict(contribution) for contribution in seed.contributions.values()],
        "judgement": seed.judgement.state() if seed.judgement is not None else None,
        "probe_watch": seed.probe_watch.state(),
        "reference": (_copied(batches), list(losses)),
        "story": list(seed.story),
    }


def _load_seed(garden: Garden, saved: Mapping[str, Any]) -> Seed:
    plan = _load_plan(saved["plan"])
    slot = garden.slots[saved["site"]]
    device = garden.host.device
    descriptor = garden.registry.get(plan.blueprint_id)
    seed_id, step = saved["seed_id"], saved["germinated_step"]
    cost = Cost(**saved["cost"])
    seed = build_seed(seed_id, slot, plan, descriptor, cost, garden.host, garden.random_seed, step)
    seed.stage = Stage(saved["stage"])
    for name in _PLAIN:
        setattr(seed, name, saved[name])
    seed.module.load_state_dict(saved["module"])
    seed.blender.load_state_dict(saved["blender"])
    seed.blender.detach_host = saved["detach_host"]
    if seed.stage is Stage.FOSSILIZED:
        seed.blender.eval()
    seed.ema = [tensor.to(device) for tensor in saved["ema"]]
    seed.set_alpha(saved["alpha"])
    seed.ramp = AlphaRamp.from_state(saved["ramp"]) if saved["ramp"] is not None else None
    seed.health = Health(**saved["health"])
    if saved["gradient_rms"] is not None:
        seed.health.gradient_rms = torch.tensor(saved["gradient_rms"], device=device)
    seed.gates = {(r.gate, r.purpose): r for r in map(_load_gate, saved["gates"])}
    seed.contributions = {c["kind"]: Contribution(**c) for c in saved["contributions"]}
    seed.judgement = Judgement.from_state(saved["judgement"]) if saved["judgement"] is not None else None
    seed.probe_watch = ProbeWatch(saved["probe_watch"])
    batches, losses = saved["reference"]
    seed.reference = (_moved(batches, device), list(losses))
    seed.story = list(saved["story"])
    return seed


def _save_plan(plan: Plan) -> dict[str, Any]:
    return {
        "blueprint_id": plan.blueprint_id,
        "parameters": dict(plan.parameters),
        "alpha": {**asdict(plan.alpha), "curve": int(plan.alpha.curve)},
        "blend_mode": int(plan.blend_mode),
        "training_mode": int(plan.training_mode),
        "isolation": int(plan.isolation),
        "auto_advance": plan.auto_advance,
        "until": int(plan.until),
        "requested_by": plan.requested_by,
    }


def _load_plan(saved: Mapping[str, Any]) -> Plan:
    alpha = {**saved["alpha"], "curve": AlphaCurve(saved["alpha"]["curve"])}
    return Plan(
        blueprint_id=saved["blueprint_id"],
        parameters=dict(saved["parameters"]),
        alpha=AlphaSchedule(**alpha),
        blend_mode=BlendMode(saved["blend_mode"]),
        training_mode=TrainingMode(saved["training_mode"]),
        isolation=Isolation(saved["isolation"]),
        auto_advance=saved["auto_advance"],
        until=Stage(saved["until"]),
        requested_by=saved["requested_by"],
    )


def _save_gate(result: GateResult) -> dict[str, Any]:
    return {**asdict(result), "gate": int(result.gate), "verdict": int(result.verdict)}


def _load_gate(saved: Mapping[str, Any]) -> GateResult:
    evidence = tuple(Evidence(**item) for item in saved["evidence"])
    return GateResult(Gate(saved["gate"]), Verdict(saved["verdict"]), saved["global_step"], evidence, saved["purpose"])


def _save_remains(remains: Remains) -> dict[str, Any]:
    view = remains.view
    plain = asdict(view)
    for name in ("stage", "blend_mode", "training_mode", "isolation"):
        plain[name] = int(plain[name])
    plain["gates"] = [_save_gate(result) for result in view.gates]
    return {
        "view": plain,
        "story": list(remains.story),
        "embargo_until_step": remains.embargo_until_step,
        "embargo_until_unix_s": remains.embargo_until_unix_s,
        "blocks": remains.blocks,
    }


def _load_remains(saved: Mapping[str, Any]) -> Remains:
    plain = dict(saved["view"])
    plain["stage"] = Stage(plain["stage"])
    plain["blend_mode"] = BlendMode(plain["blend_mode"])
    plain["training_mode"] = TrainingMode(plain["training_mode"])
    plain["isolation"] = Isolation(plain["isolation"])
    plain["cost"] = Cost(**plain["cost"])
    plain["contributions"] = tuple(Contribution(**c) for c in plain["contributions"])
    plain["gates"] = tuple(_load_gate(result) for result in plain["gates"])
    return Remains(
        SeedView(**plain),
        list(saved["story"]),
        saved["embargo_until_step"],
        saved["embargo_until_unix_s"],
        blocks=saved["blocks"],
    )


def _copied(value: Any) -> Any:
    """The same structure with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value
