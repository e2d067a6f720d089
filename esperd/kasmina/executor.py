"""The seed executor: every seed of the run, its site, its stage, and what each training step asks of it.

Training thread only. The trainer calls it at four places of a step and at the safe point; it knows no optimizer,
no data loader, no thread and no wire. Order of calls in one step, all skipped while `active` is False:
`before_step`, (host forward, loss, backward), `after_backward`, (host clip and step), `after_step`, commands.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina import persistence, step_work
from esperd.kasmina.alpha import RampNotHoldingError
from esperd.kasmina.blueprints.registry import BlueprintRegistry
from esperd.kasmina.folding import Folded, fold, only_fossils
from esperd.kasmina.garden import Garden
from esperd.kasmina.gardener import Gardener
from esperd.kasmina.gates import conclude, look
from esperd.kasmina.germination import schedule_for, stage_to_reach
from esperd.kasmina.kernels.stock import KernelStock
from esperd.kasmina.lifecycle import LIVE, check_operation, next_rule
from esperd.kasmina.nursery import Nursery
from esperd.kasmina.ports import Attribution, Batch, Host, Report, SeedOptimizers, StepAdvice
from esperd.kasmina.seed import Seed
from esperd.kasmina.swapping import Swapping
from esperd.leyline.commands import KernelSwapCommand, SeedCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import GateResult, SeedView, SiteView
from esperd.leyline.vocabulary import Operation, Stage, Verdict


class SeedExecutor:
    """Grows seeds in a live model (design 03)."""

    def __init__(
        self,
        *,
        host: Host,
        site_patterns: Sequence[str],
        settings: GrowthSettings,
        registry: BlueprintRegistry,
        optimizers: SeedOptimizers,
        report: Report,
        clock: Callable[[], float],
        random_seed: int,
        is_clock_trusted: bool = True,
        kernels: KernelStock | None = None,
    ) -> None:
        """Resolve the sites by module path or glob; EsperdError SITE_PATTERN if a pattern names none.

        `clock` gives Unix seconds: for the embargo's seconds, the dates of events and the step-time ratio of G3 and G4
        only. Without `is_clock_trusted` (a deterministic run) that ratio is left out of the verdict. Without `kernels`
        every seed runs its eager module.
        """
        self._garden = Garden(
            host, site_patterns, settings, registry, optimizers, report, clock, random_seed,
            is_clock_trusted=is_clock_trusted,
        )  # fmt: skip
        self._nursery = Nursery(self._garden)
        self._gardener = Gardener(self._garden)
        self._work = step_work.StepWork(self._garden)
        self._swapping = Swapping(self._garden, kernels)

    @property
    def active(self) -> bool:
        """Whether any seed is live; while False the trainer calls none of the per-step methods."""
        seeds = self._garden.seeds
        return bool(seeds) and any(seed.stage in LIVE for seed in seeds.values())

    @property
    def extra_flops(self) -> float:
        """FLOPs spent on seeds that are not fossilized, shadow passes and probes so far."""
        return self._garden.seed_flops + self._garden.prober.flops

    @property
    def fossil_flops_per_unit(self) -> float:
        """FLOPs of a training step that fossils add to the host, for one unit; not part of `extra_flops`."""
        costs = [fossil.cost for slot in self._garden.slots.values() for fossil in slot.fossils]
        return float(sum(cost.forward_flops + cost.backward_flops for cost in costs))

    def before_step(self, step: int) -> None:
        """Advance alpha and arm the hooks; before the host's forward of optimizer step `step`."""
        self._work.before_step(step)

    def after_backward(self, step: int, batch: Batch, loss: torch.Tensor) -> StepAdvice:
        """Guard, seeds' own losses, backward and step; after the host's backward, before its clip and step.

        Call it outside autocast. `loss` is the host's unscaled scalar loss of `batch`. On SKIP the trainer takes no
        optimizer step and clears the host's gradients; the host's buffers are back to before the step already.
        """
        return self._work.after_backward(step, batch, loss)

    def after_step(self, step: int) -> bool:
        """At the safe point: EMA, dwell, probes, gates, auto-advance, culls; True when the visible state changed."""
        self._work.after_step(step)
        changed = self._gardener.tend(step)
        changed = self._gardener.tend_remains(step) or changed
        return self._swapping.take_changed() or changed

    def tick_idle(self, step: int) -> bool:
        """Embargo and reset bookkeeping while no seed is live; cheap; True when the visible state changed."""
        changed = self._swapping.has_changed and self._swapping.take_changed()
        return (bool(self._garden.remains) and self._gardener.tend_remains(step)) or changed

    def apply(self, command: SeedCommand, step: int, by: Attribution) -> int:
        """Carry out one command at the safe point; returns the seed's id.

        Raises EsperdError of the catalogue; nothing has changed when it raises.
        """
        if command.operation is Operation.GERMINATE:
            return self._nursery.germinate(command, step, by)
        seed = self._seed(command)
        check_operation(seed.stage, command.operation, seed_id=seed.seed_id, story=seed.story)
        match command.operation:
            case Operation.CULL | Operation.CANCEL:
                blocks = command.operation is Operation.CULL
                self._gardener.cull(seed, by, step, blocks=blocks)
            case Operation.FINE_TUNE:
                seed.fine_tune = True
                seed.blender.detach_host = False
                seed.story.append(f"fine-tuned from step {step} ({by.cause})")
            case Operation.SET_ALPHA:
                self._set_alpha(seed, command)
            case _:
                self._check_dwell(seed, step)
                self._require(seed, step, by)
                self._follow_up(seed, command)
        return seed.seed_id

    def swap_kernel(self, command: KernelSwapCommand, step: int, by: Attribution, *, is_repeated: bool) -> int:
        """Have a seed compute by a kernel, or by its eager module; returns the seed's id. See `Swapping.swap`.

        Raises EsperdError of the catalogue; nothing has changed when it raises.
        """
        seed = self._garden.seeds.get(command.seed_id)
        if seed is None:
            raise EsperdError("SEED_UNKNOWN", seed_id=command.seed_id)
        self._swapping.swap(seed, command.artifact_id, step, by, is_repeated=is_repeated)
        return seed.seed_id

    def restore_kernels(self, step: int) -> None:
        """Join the seeds of a state that was loaded to the kernels that they had then, or tell that it cannot be."""
        self._swapping.restore(list(self._garden.seeds.values()), step)

    def cull_newest(self, step: int, cause: str) -> int | None:
        """Cull the youngest live seed, in the middle of a step too; returns its id, None when nothing is live."""
        if not self.active:
            return None
        newest = max(self._garden.live, key=lambda seed: seed.seed_id)
        self._gardener.cull(newest, Attribution(cause), step)
        for slot in self._garden.slots.values():
            slot.disarm()  # what the step has kept so far goes too
        return newest.seed_id

    def embargo(self, site: str, blueprint_id: str, step: int) -> None:
        """Block a site after a failure there: of a seed that is no longer there, because the run has gone back."""
        self._gardener.embargo(self._garden.slots[site], blueprint_id, step)

    def hold(self, cause: str, *, candidates: bool = True) -> None:
        """Conservative mode: no new seeds, with `candidates` no auto-advance into BLENDING; guard and gates go on."""
        self._garden.held = cause
        self._garden.holds_candidates = candidates

    def release(self) -> None:
        """End the conservative mode."""
        self._garden.held = ""
        self._garden.holds_candidates = False

    def seeds(self) -> tuple[SeedView, ...]:
        """Every seed that is live, fossilized, or not yet reset after a cull; by id."""
        views = [seed.view(self._learning_rate(seed)) for seed in self._garden.seeds.values()]
        views += [remains.view for remains in self._garden.remains]
        return tuple(sorted(views, key=lambda view: view.seed_id))

    def sites(self) -> tuple[SiteView, ...]:
        """Every site with its offers."""
        return tuple(self._garden.site_view(slot) for slot in self._garden.slots.values())

    def grown_parameters(self) -> list[nn.Parameter]:
        """The parameters of fossilized seeds, in the order of fossilization."""
        return [parameter for fossil in self._garden.fossils for parameter in fossil.parameters]

    def fold(self, autocast: Callable[[], AbstractContextManager[None]] = nullcontext) -> Folded:
        """A copy of the host with its fossils as one plain module; live seeds are no part of it.

        `autocast` makes the context under which the run computes its forward pass.
        """
        return fold(self._garden.host.model, list(self._garden.slots.values()), autocast)

    def without_live_seeds(self) -> AbstractContextManager[None]:
        """During the body, the model's own forward goes through the fossils only."""
        return only_fossils(list(self._garden.slots.values()))

    def germinated_step(self, seed_id: int) -> int:
        """The step at which a seed of this timeline germinated, whatever became of it; EsperdError SEED_UNKNOWN."""
        try:
            return self._garden.germinated_steps[seed_id]
        except KeyError:
            raise EsperdError("SEED_UNKNOWN", seed_id=seed_id) from None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: weights, EMA, lifecycle, alpha, evidence, embargoes.

        Plain values and references to the live tensors; the caller copies these before the next step.
        """
        return {"garden": persistence.save(self._garden), "work": self._work.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuild from `state_dict`, replacing whatever grows now; the tensors of `state` are copied.

        Gives the seeds to the optimizers (`SeedOptimizers.replace_seeds`); the trainer restores the optimizers' own
        state afterwards. Raises ValueError when the state does not fit this run; nothing has been changed then.
        """
        persistence.load(self._garden, state["garden"])
        self._work.load_state_dict(state["work"])
        self._gardener.forget()

    def _seed(self, command: SeedCommand) -> Seed:
        seed = self._garden.seeds.get(command.seed_id)
        if seed is not None:
            return seed
        for remains in self._garden.remains:
            if remains.view.seed_id == command.seed_id:
                check_operation(remains.view.stage, command.operation, seed_id=command.seed_id, story=remains.story)
        raise EsperdError("SEED_UNKNOWN", seed_id=command.seed_id)

    def _check_dwell(self, seed: Seed, step: int) -> None:
        steps = step - seed.stage_entered_step
        needed = self._garden.dwell(seed.stage)[0]
        if steps < needed:
            raise EsperdError("SEED_DWELL", seed_id=seed.seed_id, stage=seed.stage.name, steps=steps, needed=needed)

    def _require(self, seed: Seed, step: int, by: Attribution) -> None:
        """Ask the gate of the next stage; advance, or raise what it found."""
        result = self._ask(seed, step)
        if result.verdict is Verdict.PASSED:
            self._gardener.advance(seed, result, step, by)
            return
        if result.verdict is not Verdict.FAILED or not self._gardener.look_again(seed, result, step):
            self._garden.report_gate(seed, result, step)
        reason = "GATE_FAILED" if result.verdict is Verdict.FAILED else "GATE_UNMEASURED"
        bad = "; ".join(
            f"{item.name} is {item.value:.5g}, not {item.sense} {item.threshold:.5g} {item.detail}".rstrip()
            for item in result.evidence
            if not item.passed
        )
        raise EsperdError(reason, gate=result.gate.name, seed_id=seed.seed_id, detail=bad or "no evidence yet")

    def _ask(self, seed: Seed, step: int) -> GateResult:
        try:
            return self._gardener.ask(seed, step)
        except EsperdError:
            raise
        except Exception as error:  # noqa: BLE001 - gates run the seed's own code, which may raise anything
            rule = next_rule(seed.stage)
            evidence = look("measured", 0.0, "equal", 1.0, detail=f"raised {type(error).__name__}: {error}")
            return conclude(rule.gate, step, [evidence], purpose=rule.purpose)

    @staticmethod
    def _follow_up(seed: Seed, command: SeedCommand) -> None:
        """An advancing command may turn auto-advance on for the rest of the way, or for as far as it says."""
        if command.auto_advance and seed.stage is not Stage.FOSSILIZED:
            seed.auto_advance = True
            seed.plan = replace(seed.plan, until=stage_to_reach(command))

    def _set_alpha(self, seed: Seed, command: SeedCommand) -> None:
        if command.alpha is None:
            raise EsperdError("COMMAND_INVALID", detail="SET_ALPHA needs an alpha schedule")
        schedule = schedule_for(command.alpha, seed.plan.blend_mode, self._garden.settings)
        assert seed.ramp is not None
        try:
            seed.ramp.retarget(schedule)
        except RampNotHoldingError:
            raise EsperdError("ALPHA_BUSY", seed_id=seed.seed_id) from None

    def _learning_rate(self, seed: Seed) -> float:
        return 0.0 if seed.stage is Stage.FOSSILIZED else self._garden.optimizers.learning_rate(seed.seed_id)
