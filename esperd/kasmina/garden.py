"""What grows in a run, as plain state: slots, seeds, what is left of culled ones, and the ways to tell of them.

Training thread only. Decides nothing: `gardener` moves seeds between stages, `step_work` does a training step's part.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.blueprints.costs import estimate_cost
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.blueprints.registry import BlueprintRegistry
from esperd.kasmina.blueprints.source import SourceUnknownError
from esperd.kasmina.evidence import level_for
from esperd.kasmina.guard import Guard
from esperd.kasmina.isolation import HostWatch
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import dtype_name, variant_for
from esperd.kasmina.lifecycle import LIVE, dwell_limits
from esperd.kasmina.ports import Host, Report, SeedOptimizers
from esperd.kasmina.probes import Prober
from esperd.kasmina.seed import Remains, Seed
from esperd.kasmina.site import ActivationSpec, Site, resolve_sites
from esperd.kasmina.slot import Slot
from esperd.leyline.kernels import KernelVariant
from esperd.leyline.views import (
    BlueprintOffer,
    GateResult,
    NoticeEvent,
    ParameterBounds,
    SiteView,
    TransitionEvent,
)
from esperd.leyline.vocabulary import Stage, Verdict


class Garden:
    """The state that the parts of the executor share."""

    def __init__(
        self,
        host: Host,
        site_patterns: Sequence[str],
        settings: GrowthSettings,
        registry: BlueprintRegistry,
        optimizers: SeedOptimizers,
        report: Report,
        clock: Callable[[], float],
        random_seed: int,
        *,
        is_clock_trusted: bool = True,
    ) -> None:
        self.host = host
        self.settings = settings
        self.registry = registry
        self.optimizers = optimizers
        self.report = report
        self.clock = clock
        self.random_seed = random_seed
        self.is_clock_trusted = is_clock_trusted
        """Whether measured times may decide anything; not in a run that must repeat bit for bit."""
        sites = resolve_sites(host, site_patterns)
        self.slots: dict[str, Slot] = {site.path: Slot(site, random_seed, clock) for site in sites}
        self.prober = Prober(host, list(self.slots.values()), random_seed)
        self.guard = Guard(host.model, self.prober)
        self.host_watch = HostWatch(host.model, random_seed)
        self.host_parameters: list[nn.Parameter] = list(host.model.parameters())
        self.num_host_parameters = sum(parameter.numel() for parameter in self.host_parameters)
        self.seeds: dict[int, Seed] = {}
        """Live and fossilized ones by id."""
        self.remains: list[Remains] = []
        self.num_germinations = 0
        self.germination_of: dict[int, int] = {}
        """Seed id to its number among the germinations, which sets its error level."""
        self.germinated_steps: dict[int, int] = {}
        """Seed id to the step of its germination, of every seed of this timeline, whatever became of it."""
        self.seed_flops = 0.0
        self.judging_flops = 0.0
        self.held = ""
        """Why there may be no new seeds; empty when there may."""
        self.holds_candidates = False
        """Candidates wait as well: none is grafted by itself, none is culled for its age."""
        self.train_units = 0
        """Samples in the largest batch of training so far: the last one of an epoch may be smaller."""
        self._machine = this_machine(host.device)
        self._offers: dict[tuple[tuple[int, ...], torch.dtype, torch.dtype | None], tuple[BlueprintOffer, ...]] = {}

    @property
    def live(self) -> list[Seed]:
        """Live seeds, oldest first."""
        return [seed for seed in self.seeds.values() if seed.stage in LIVE]

    @property
    def fossils(self) -> list[Seed]:
        """Fossilized seeds in the order of fossilization."""
        grown = [seed for seed in self.seeds.values() if seed.stage is Stage.FOSSILIZED]
        return sorted(grown, key=lambda seed: (seed.stage_entered_step, seed.seed_id))

    def slot_of(self, seed: Seed) -> Slot:
        """The slot in which a seed grows."""
        return self.slots[seed.site]

    def step(self) -> int:
        """Steps done."""
        return self.host.global_step()

    def batch_size(self, site: Site) -> int:
        """Batch size of a site's activation in training; 0 where it is not known."""
        self.train_units = max(self.train_units, self.host.batch_units())
        return site.spec.batch_size(self.train_units)

    def variant(
        self, descriptor: BlueprintDescriptor, parameters: Mapping[str, float], spec: ActivationSpec
    ) -> KernelVariant | None:
        """Which kernels fit a blueprint at an activation; None where its source cannot be read."""
        dtypes = (spec.dtype, spec.seed_dtype, spec.autocast_dtype)
        try:
            return variant_for(descriptor, parameters, spec.shape[1:], *dtypes, self._machine)
        except SourceUnknownError:
            return None

    def level(self, seed: Seed) -> float:
        """The error level of a seed's tests: the run's, split over its germinations."""
        return level_for(self.germination_of[seed.seed_id], self.settings.error_level)

    def dwell(self, stage: Stage) -> tuple[int, int]:
        """Least and most steps in a live stage."""
        s = self.settings
        return dwell_limits(
            stage,
            min_training_steps=s.min_training_steps,
            max_training_steps=s.max_training_steps,
            min_dwell_steps=s.min_dwell_steps,
            max_dwell_steps=s.max_dwell_steps,
        )

    def is_blocked(self, slot: Slot, step: int) -> bool:
        """Whether a cull still blocks the site."""
        site = slot.site
        if step < site.embargoed_until_step or self.clock() < site.embargoed_until_unix_s:
            return True
        return self._is_recovering(site.path)

    def enter(self, seed: Seed, target: Stage, step: int, cause: str, gate: GateResult | None) -> None:
        """Give a seed its next stage, and tell."""
        source = seed.stage
        seed.enter(target, step, cause)
        where = (seed.seed_id, seed.site, seed.plan.blueprint_id)
        self.report_transition(where, source, target, step, cause, gate)

    def report_transition(
        self, view: tuple[int, str, str], source: Stage, target: Stage, step: int, cause: str, gate: GateResult | None
    ) -> None:
        """Tell that a seed (id, site, blueprint) changed its stage; the trainer stamps the revision."""
        seed_id, site, blueprint_id = view
        event = TransitionEvent(seed_id, site, blueprint_id, source, target, step, 0, cause, gate, self.clock())
        self.report(event)

    def report_gate(self, seed: Seed, result: GateResult, step: int) -> None:
        """Tell what a gate found when it let nobody through."""
        seed.gates[result.gate, result.purpose] = result
        attributes = {"seed_id": str(seed.seed_id), "gate": result.gate.name, "verdict": result.verdict.name}
        for item in result.evidence:
            attributes[item.name] = f"{item.value:.6g} {item.sense} {item.threshold:.6g} {item.detail}".rstrip()
        level = "warning" if result.verdict is Verdict.FAILED else "info"
        message = f"{result.gate.name} {result.verdict.name} for seed {seed.seed_id} at {seed.site}"
        self.notice("gate.evaluated", message, level, step, attributes)

    def notice(
        self, kind: str, message: str, level: str, step: int, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Tell something worth a line in the journal."""
        self.report(NoticeEvent(kind, message, level, step, 0, self.clock(), attributes or {}))

    def site_view(self, slot: Slot) -> SiteView:
        """One site as seen from outside."""
        site, spec = slot.site, slot.site.spec
        return SiteView(
            site=site.path,
            module_type=type(site.module).__name__,
            activation_shape=spec.shape,
            dtype=dtype_name(spec.dtype),
            vacant=slot.grafted is None
            and len(slot.fossils) < self.settings.max_fossils_per_site
            and not self._is_recovering(site.path),
            num_fossils=len(slot.fossils),
            live_seed_ids=tuple(seed.seed_id for seed in slot.live),
            embargoed_until_step=site.embargoed_until_step,
            embargoed_until_unix_s=site.embargoed_until_unix_s,
            offers=self._offers_at(spec),
            autocast_dtype="" if spec.autocast_dtype is None else dtype_name(spec.autocast_dtype),
            batch_size=self.batch_size(site),
        )

    def _is_recovering(self, site: str) -> bool:
        """Whether the remains of a culled seed still block the site."""
        return any(remains.blocks and remains.view.site == site for remains in self.remains)

    def _offers_at(self, spec: ActivationSpec) -> tuple[BlueprintOffer, ...]:
        """What may grow at an activation, with its cost there; computed once for each kind of activation."""
        key = (spec.shape, spec.dtype, spec.autocast_dtype)
        if key not in self._offers:
            admissible = self.registry.admissible(spec.shape, spec.seed_dtype)
            found = [self._offer(descriptor, spec) for descriptor in admissible]
            self._offers[key] = tuple(offer for offer in found if offer is not None)
        return self._offers[key]

    def _offer(self, descriptor: BlueprintDescriptor, spec: ActivationSpec) -> BlueprintOffer | None:
        """A blueprint with its cost; none, and a notice, when the blueprint cannot even be built and run once."""
        try:
            cost = estimate_cost(descriptor, spec.shape, spec.seed_dtype)
        except Exception as error:  # noqa: BLE001 - a blueprint's own code may raise anything; the run goes on without it
            detail = f"{type(error).__name__}: {error}"
            message = f"{descriptor.blueprint_id} is not offered at activations of {spec.shape}: {detail}"
            self.notice("blueprint.unusable", message, "warning", 0, {"blueprint_id": descriptor.blueprint_id})
            return None
        bounds = {
            name: ParameterBounds(one.minimum, one.maximum, one.default, one.integer)
            for name, one in descriptor.parameters.items()
        }
        return BlueprintOffer(
            blueprint_id=descriptor.blueprint_id,
            tier=descriptor.tier,
            risk=descriptor.risk,
            cost=cost,
            name=descriptor.name,
            description=descriptor.description,
            bounds=bounds,
            variant=self.variant(descriptor, {}, spec),
        )
