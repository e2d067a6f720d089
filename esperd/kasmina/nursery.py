"""Where new seeds come from: the site must be free, G0 must pass, and only then is anything registered.

Training thread only, at safe points. Raises what speaks against a seed in the words of the catalogue.
"""

from esperd.kasmina.blueprints.costs import estimate_cost
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.garden import Garden
from esperd.kasmina.gates import look
from esperd.kasmina.germination import admission, build_seed, plan_for, sanity, sanity_result
from esperd.kasmina.ports import Attribution
from esperd.kasmina.seed import Plan, Seed
from esperd.kasmina.slot import Slot
from esperd.leyline.commands import SeedCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import Evidence, GateResult
from esperd.leyline.vocabulary import Stage, Verdict


class Nursery:
    """Germinates seeds in a garden."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden

    def germinate(self, command: SeedCommand, step: int, by: Attribution) -> int:
        """A new seed at a site; raises what speaks against it, and then nothing has changed."""
        garden = self._garden
        slot = self._admissible_slot(command, step)
        plan, descriptor = plan_for(command, garden.registry, garden.settings, by)
        seed_id = garden.num_germinations + 1
        seed, result = self._build(seed_id, slot, plan, descriptor, step)
        if seed is None or result.verdict is not Verdict.PASSED:
            raise self._refusal(seed_id, slot, result, step)
        garden.optimizers.create_seed(seed_id, seed.parameters)
        garden.num_germinations = seed_id
        garden.germination_of[seed_id] = seed_id
        garden.germinated_steps[seed_id] = step
        garden.seeds[seed_id] = seed
        seed.variant = garden.variant(descriptor, plan.parameters, slot.site.spec)
        slot.candidates.append(seed)
        slot.refresh()
        seed.gates[result.gate, ""] = result
        garden.enter(seed, Stage.GERMINATED, step, by.cause, result)
        return seed_id

    def _admissible_slot(self, command: SeedCommand, step: int) -> Slot:
        garden, settings = self._garden, self._garden.settings
        slot = garden.slots.get(command.site)
        if slot is None:
            raise EsperdError("SITE_UNKNOWN", site=command.site)
        if garden.held:
            raise EsperdError("RUN_CONSERVATIVE", cause=garden.held)
        if slot.grafted is not None:
            detail = f"seed {slot.grafted.seed_id} is {slot.grafted.stage.name} there"
            raise EsperdError("SITE_OCCUPIED", site=command.site, detail=detail)
        if len(slot.fossils) >= settings.max_fossils_per_site:
            raise EsperdError("SITE_OCCUPIED", site=command.site, detail=f"{len(slot.fossils)} fossils stand there")
        if garden.is_blocked(slot, step):
            raise EsperdError("SITE_EMBARGOED", site=command.site, until_step=slot.site.embargoed_until_step)
        if len(slot.candidates) >= settings.max_candidates_per_site:
            raise EsperdError("SEED_LIMIT", detail=f"{len(slot.candidates)} candidates are at {command.site}")
        if len(garden.live) >= settings.max_live_seeds:
            raise EsperdError("SEED_LIMIT", detail=f"{len(garden.live)} seeds are live")
        return slot

    def _build(
        self, seed_id: int, slot: Slot, plan: Plan, descriptor: BlueprintDescriptor, step: int
    ) -> tuple[Seed | None, GateResult]:
        """The seed with what G0 found; no seed if it was found wanting before it could be built."""
        garden = self._garden
        spec = slot.site.spec
        try:
            cost = estimate_cost(descriptor, spec.shape, spec.seed_dtype, plan.parameters)
            evidence: list[Evidence] = admission(
                slot,
                descriptor,
                garden.settings,
                num_host_parameters=garden.num_host_parameters,
                num_grown_parameters=sum(s.cost.num_parameters for s in garden.seeds.values()),
                cost=cost,
            )
            if not all(item.passed for item in evidence):
                return None, sanity_result(evidence, step)
            seed = build_seed(seed_id, slot, plan, descriptor, cost, garden.host, garden.random_seed, step)
        except EsperdError:
            raise
        except Exception as error:  # noqa: BLE001 - a blueprint's own code may raise anything; that is the finding
            detail = f"raised {type(error).__name__}: {error}"
            return None, sanity_result([look("builds", 0.0, "equal", 1.0, detail=detail)], step)
        slot.candidates.append(seed)
        slot.refresh()
        try:
            batch = garden.host.sample_inputs()
            x = garden.prober.activation(slot, seed, batch)
            seed.shared_prefix = garden.prober.verify_shared_prefix(slot, seed, batch)
        finally:
            slot.discard(seed)
        evidence += sanity(seed, x, garden.host_parameters, garden.random_seed)
        return seed, sanity_result(evidence, step)

    def _refusal(self, seed_id: int, slot: Slot, result: GateResult, step: int) -> EsperdError:
        bad = [
            f"{item.name} {item.value:.5g} not {item.sense} {item.threshold:.5g} {item.detail}"
            for item in result.evidence
            if not item.passed
        ]
        attributes = {"site": slot.site.path, "gate": result.gate.name, "verdict": result.verdict.name}
        attributes |= {item.name: f"{item.value:.6g} {item.detail}".rstrip() for item in result.evidence}
        message = f"{result.gate.name} {result.verdict.name} for a new seed at {slot.site.path}"
        self._garden.notice("gate.evaluated", message, "warning", step, attributes)
        detail = "; ".join(bad).rstrip()
        return EsperdError("GATE_FAILED", gate=result.gate.name, seed_id=seed_id, detail=detail)
