"""Everything that grows as one tree of plain values and references to live tensors, and back again, exactly.

Training thread only. Knows no file and no optimizer state: the checkpoint writer and the trainer own those. Saving
copies no tensor and reads nothing from the device; whoever keeps the tree copies its tensors before the next step.
Streams need no saving, since each is a function of the run's random seed, the seed's id and the step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from esperd.kasmina.alpha import AlphaRamp
from esperd.kasmina.blueprints.registry import UnknownBlueprintError
from esperd.kasmina.garden import Garden
from esperd.kasmina.germination import build_seed
from esperd.kasmina.judgement import Judgement
from esperd.kasmina.loss_watch import ProbeWatch
from esperd.kasmina.module_state import load_module, pack_batch, save_module, unpack_batch
from esperd.kasmina.seed import Health, Plan, Remains, Seed
from esperd.kasmina.slot import Slot
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import Contribution, Cost, Evidence, GateResult, SeedView
from esperd.leyline.vocabulary import AlphaCurve, BlendMode, Gate, Isolation, Stage, TrainingMode, Verdict

VERSION = 3

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
    "kernel_artifact_id",
    "kernel_note",
    "refuses_kernels",
)


def save(garden: Garden) -> dict[str, Any]:
    """The garden as a tree; its tensors are the live ones, detached."""
    return {
        "version": VERSION,
        "num_germinations": garden.num_germinations,
        "germination_of": dict(garden.germination_of),
        "germinated_steps": dict(garden.germinated_steps),
        "seed_flops": garden.seed_flops,
        "probe_flops": garden.prober.flops,
        "judging_flops": garden.judging_flops,
        "train_units": garden.train_units,
        "held": garden.held,
        "holds_candidates": garden.holds_candidates,
        "guard": garden.guard.state_dict(),
        "sites": {path: _save_slot(slot) for path, slot in garden.slots.items()},
        "seeds": [_save_seed(seed) for seed in garden.seeds.values()],
        "remains": [_save_remains(remains) for remains in garden.remains],
    }


def load(garden: Garden, state: Mapping[str, Any]) -> None:
    """Put the garden into the saved state; whatever grows now is dropped, and the optimizers are told.

    Raises:
        ValueError: the state is of another version, or does not fit this run; nothing has been changed then.
    """
    if state["version"] != VERSION:
        raise ValueError(f"the state of the seeds has version {state['version']}, this build reads {VERSION}")
    unknown = set(state["sites"]) - set(garden.slots)
    if unknown:
        raise ValueError(f"the state of the seeds names sites that the model has not: {sorted(unknown)}")
    seeds = [_load_seed(garden, saved) for saved in state["seeds"]]
    _clear(garden)
    garden.num_germinations = state["num_germinations"]
    garden.germination_of = dict(state["germination_of"])
    garden.germinated_steps = dict(state["germinated_steps"])
    garden.seed_flops = state["seed_flops"]
    garden.prober.flops = state["probe_flops"]
    garden.judging_flops = state["judging_flops"]
    garden.train_units = state["train_units"]
    garden.held, garden.holds_candidates = state["held"], state["holds_candidates"]
    garden.guard.load_state_dict(state["guard"], garden.host.device)
    garden.seeds.update((seed.seed_id, seed) for seed in seeds)
    for path, saved in state["sites"].items():
        _load_slot(garden, garden.slots[path], saved)
    garden.remains = [_load_remains(saved) for saved in state["remains"]]
    garden.optimizers.replace_seeds(
        {seed.seed_id: seed.parameters for seed in garden.live},
        {seed.seed_id: seed.parameters for seed in garden.fossils},
    )


def _clear(garden: Garden) -> None:
    """Take out everything that grows, sites that the state does not name included."""
    garden.seeds.clear()
    garden.remains.clear()
    for slot in garden.slots.values():
        slot.site.embargoed_until_step, slot.site.embargoed_until_unix_s, slot.site.failures = 0, 0.0, {}
        slot.fossils, slot.grafted, slot.candidates = [], None, []
        slot.step, slot.measures_ratio = 0, False
        slot.disarm()
        slot.refresh()


def _save_slot(slot: Slot) -> dict[str, Any]:
    return {
        "embargoed_until_step": slot.site.embargoed_until_step,
        "embargoed_until_unix_s": slot.site.embargoed_until_unix_s,
        "failures": dict(slot.site.failures),
        "fossils": [seed.seed_id for seed in slot.fossils],
        "grafted": slot.grafted.seed_id if slot.grafted is not None else 0,
        "candidates": [seed.seed_id for seed in slot.candidates],
        "step": slot.step,
        "measures_ratio": slot.measures_ratio,
    }


def _load_slot(garden: Garden, slot: Slot, saved: Mapping[str, Any]) -> None:
    slot.site.embargoed_until_step = saved["embargoed_until_step"]
    slot.site.embargoed_until_unix_s = saved["embargoed_until_unix_s"]
    slot.site.failures = dict(saved["failures"])
    slot.fossils = [garden.seeds[seed_id] for seed_id in saved["fossils"]]
    slot.grafted = garden.seeds[saved["grafted"]] if saved["grafted"] else None
    slot.candidates = [garden.seeds[seed_id] for seed_id in saved["candidates"]]
    slot.step, slot.measures_ratio = saved["step"], saved["measures_ratio"]
    slot.refresh()


def _save_seed(seed: Seed) -> dict[str, Any]:
    batches, losses = seed.reference
    return {
        "seed_id": seed.seed_id,
        "site": seed.site,
        "stage": int(seed.stage),
        "plan": _save_plan(seed.plan),
        "cost": _fields(seed.cost),
        "module": save_module(seed.module),
        "blender": save_module(seed.blender),
        "detach_host": seed.blender.detach_host,
        "ema": [tensor.detach() for tensor in seed.ema],
        "alpha": seed.alpha.detach(),
        "ramp": seed.ramp.state() if seed.ramp is not None else None,
        **{name: getattr(seed, name) for name in _PLAIN},
        "health": {name: _listed(getattr(seed.health, name)) for name in Health.__slots__},
        "gates": [_save_gate(result) for result in seed.gates.values()],
        "contributions": [_fields(contribution) for contribution in seed.contributions.values()],
        "judgement": seed.judgement.state() if seed.judgement is not None else None,
        "probe_watch": seed.probe_watch.state(),
        "reference": {"batches": [pack_batch(batch) for batch in batches], "losses": list(losses)},
        "story": list(seed.story),
    }


def _load_seed(garden: Garden, saved: Mapping[str, Any]) -> Seed:
    """The seed built anew and put into its state; registered nowhere yet."""
    seed = _build(garden, saved)
    device = garden.host.device
    seed.stage = Stage(saved["stage"])
    for name in _PLAIN:
        setattr(seed, name, saved[name])
    load_module(seed.module, saved["module"])
    load_module(seed.blender, saved["blender"])
    seed.blender.detach_host = saved["detach_host"]
    del seed.ema[len(saved["ema"]) :]  # a fossil keeps none
    for average, tensor in zip(seed.ema, saved["ema"], strict=True):
        average.copy_(tensor)
    seed.alpha.copy_(saved["alpha"])
    seed.ramp = AlphaRamp.from_state(saved["ramp"]) if saved["ramp"] is not None else None
    seed.health = Health(**{name: _own(value, device) for name, value in saved["health"].items()})
    seed.gates = {(r.gate, r.purpose): r for r in map(_load_gate, saved["gates"])}
    seed.contributions = {c["kind"]: Contribution(**c) for c in saved["contributions"]}
    seed.judgement = Judgement.from_state(saved["judgement"]) if saved["judgement"] is not None else None
    seed.probe_watch = ProbeWatch(saved["probe_watch"])
    reference = saved["reference"]
    seed.reference = ([unpack_batch(batch, device) for batch in reference["batches"]], list(reference["losses"]))
    seed.story = list(saved["story"])
    return seed


def _build(garden: Garden, saved: Mapping[str, Any]) -> Seed:
    plan, seed_id = _load_plan(saved["plan"]), saved["seed_id"]
    slot, cost, step = garden.slots[saved["site"]], Cost(**saved["cost"]), saved["germinated_step"]
    try:
        descriptor = garden.registry.get(plan.blueprint_id)
        seed = build_seed(seed_id, slot, plan, descriptor, cost, garden.host, garden.random_seed, step)
    except UnknownBlueprintError as error:
        raise ValueError(f"seed {seed_id} is of a blueprint that this run has not: {plan.blueprint_id}") from error
    except EsperdError as error:
        raise ValueError(f"seed {seed_id} cannot be built at {saved['site']}: {error}") from error
    seed.variant = garden.variant(descriptor, plan.parameters, slot.site.spec)
    return seed


def _save_plan(plan: Plan) -> dict[str, Any]:
    return {
        "blueprint_id": plan.blueprint_id,
        "parameters": dict(plan.parameters),
        "alpha": {**_fields(plan.alpha), "curve": int(plan.alpha.curve)},
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
    plain = {"gate": int(result.gate), "verdict": int(result.verdict)}
    return {**_fields(result), **plain, "evidence": [_fields(item) for item in result.evidence]}


def _load_gate(saved: Mapping[str, Any]) -> GateResult:
    evidence = tuple(Evidence(**item) for item in saved["evidence"])
    return GateResult(Gate(saved["gate"]), Verdict(saved["verdict"]), saved["global_step"], evidence, saved["purpose"])


def _save_remains(remains: Remains) -> dict[str, Any]:
    view = remains.view
    plain = _fields(view)
    for name in ("stage", "blend_mode", "training_mode", "isolation"):
        plain[name] = int(plain[name])
    plain["cost"] = _fields(view.cost)
    plain["contributions"] = [_fields(contribution) for contribution in view.contributions]
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


def _fields(value: Any) -> dict[str, Any]:
    """A flat frozen value as a dictionary; `dataclasses.asdict` takes ten times as long."""
    return {name: getattr(value, name) for name in value.__slots__}


def _listed(value: Any) -> Any:
    """A value of a seed's health as the tree holds it."""
    if isinstance(value, Tensor):
        return value.detach()
    return list(value) if isinstance(value, list) else value


def _own(value: Any, device: torch.device) -> Any:
    """A copy of it for the seed."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    return list(value) if isinstance(value, list) else value
