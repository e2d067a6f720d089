"""A training step's part for the seeds: arm, guard, let them learn, and now and then read how they are.

Training thread only, in the middle of the trainer's step. Reads the device once a step while a seed blends, else once
in `READ_EVERY_STEPS`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from esperd.kasmina.garden import Garden
from esperd.kasmina.isolation import HostWatch, Tally
from esperd.kasmina.lifecycle import LIVE
from esperd.kasmina.ports import Batch, StepAdvice
from esperd.kasmina.seed import Seed
from esperd.kasmina.site import num_units
from esperd.kasmina.slot import Slot
from esperd.kasmina.training_modes import training_loss
from esperd.leyline.vocabulary import Stage, TrainingMode

READ_EVERY_STEPS = 10
"""Steps between reads of seeds' losses, norms and ratios from the device."""
MAX_NOT_FINITE = 3
"""Skipped steps of one seed, after which it is culled."""
TIMED_STEPS = 50


class StepWork:
    """What the trainer's step calls."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden
        self._began_s = 0.0
        self._unread: dict[int, list[Tensor]] = {}
        """Gradient norms by seed that have not been read from the device."""
        self._moved: list[Tensor] = []
        """How far the host's gradient projection moved under the seeds' work, unread."""
        self._own_s: dict[int, float] = {}

    def before_step(self, step: int) -> None:
        """Advance alpha and arm the hooks."""
        self._began_s = self._garden.clock()
        self._own_s.clear()
        grafted = False
        for slot in self._garden.slots.values():
            if not slot.live:
                continue
            slot.arm(step)
            slot.measures_ratio = step % READ_EVERY_STEPS == 0
            if slot.grafted is not None:
                grafted = True
                self._advance_alpha(slot, slot.grafted)
                # The blend's own read carries it along; the last steps before G3 are always looked at.
                slot.measures_ratio |= slot.grafted.ramp is not None and slot.grafted.ramp.num_steps_left < 2
        if grafted:
            self._garden.guard.before_step()

    def after_backward(self, step: int, batch: Batch, loss: Tensor) -> StepAdvice:
        """Guard first, then every seed that learns."""
        slots = [slot for slot in self._garden.slots.values() if slot.live]
        for slot in slots:
            slot.armed = False
        advice = self._guard(slots, batch, loss)
        sampled = step % READ_EVERY_STEPS == 0
        before = self._garden.host_watch.tally() if sampled else None
        units = num_units(batch[1], batch[0])
        for slot in slots:
            for seed in slot.live:
                began = self._garden.clock()
                self._learn(slot, seed, batch, advice, units)
                self._own_s[seed.seed_id] = self._garden.clock() - began
        if before is not None:
            self._compare(before, slots, step)
        return advice

    def after_step(self, step: int) -> None:
        """Close the step: times, and the occasional read."""
        now = self._garden.clock()
        for slot in self._garden.slots.values():
            if slot.grafted is not None and self._garden.is_clock_trusted:
                health = slot.grafted.health
                health.step_s = [*health.step_s, now - self._began_s][-TIMED_STEPS:]
                own = slot.seed_s + self._own_s.get(slot.grafted.seed_id, 0.0)
                health.seed_s = [*health.seed_s, own][-TIMED_STEPS:]
            slot.disarm()
        if step % READ_EVERY_STEPS == 0:
            self._read()

    def state_dict(self) -> dict[str, Any]:
        """What has not been read from the device, as references."""
        return {"norms": {seed_id: list(norms) for seed_id, norms in self._unread.items()}, "moved": list(self._moved)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        device = self._garden.host.device
        own = {seed_id: [norm.to(device, copy=True) for norm in norms] for seed_id, norms in state["norms"].items()}
        self._unread, self._moved = own, [moved.to(device, copy=True) for moved in state["moved"]]

    @staticmethod
    def _advance_alpha(slot: Slot, seed: Seed) -> None:
        assert seed.ramp is not None
        if seed.stage is Stage.BLENDING:
            seed.set_alpha(seed.ramp.advance())
        slot.reseed(seed)

    def _guard(self, slots: list[Slot], batch: Batch, loss: Tensor) -> StepAdvice:
        grafted = [slot for slot in slots if slot.grafted is not None]
        if not grafted:
            self._garden.guard.note(loss)
            return StepAdvice.STEP
        verdict = self._garden.guard.judge(grafted, batch, loss)
        for trip in verdict.trips:
            trip.seed.tripped, trip.seed.note = trip.cause, trip.detail
        return verdict.advice

    def _learn(self, slot: Slot, seed: Seed, batch: Batch, advice: StepAdvice, units: int) -> None:
        """One seed's own step; what its code raises is noted, and it is culled at the safe point."""
        try:
            if seed.stage is Stage.TRAINING:
                self._train(slot, seed, batch, units)
            elif slot.grafted is seed:
                self._train_grafted(slot, seed, advice, units)
        except torch.OutOfMemoryError:
            raise  # see Slot._graft
        except Exception as error:  # noqa: BLE001 - a seed's own code may raise anything; the host goes on
            seed.tripped, seed.note = "seed:raised", f"{type(error).__name__}: {error}"
            self._garden.optimizers.zero_seed(seed.seed_id)

    def _train(self, slot: Slot, seed: Seed, batch: Batch, units: int) -> None:
        garden = self._garden
        if seed.tripped:
            return
        frozen = garden.host_parameters
        if seed.plan.training_mode is TrainingMode.SHADOW_FORWARD:
            others = [p for other in garden.seeds.values() if other is not seed for p in other.parameters]
            frozen = [*frozen, *others]
            garden.seed_flops += 2.0 * slot.site.spec.host_forward_flops * units
        loss = training_loss(garden.host, slot, seed, batch, rho=garden.settings.rho, frozen=frozen)
        if loss is None:
            return
        seed.health.loss = loss.detach()
        self._note_norm(seed, garden.optimizers.step_seed(seed.seed_id, loss))
        seed.update_average(garden.settings.ema_decay)
        garden.seed_flops += units * (seed.cost.forward_flops + seed.cost.backward_flops)

    def _train_grafted(self, slot: Slot, seed: Seed, advice: StepAdvice, units: int) -> None:
        garden = self._garden
        garden.seed_flops += units * seed.cost.forward_flops
        if advice is StepAdvice.SKIP or seed.tripped or not seed.learns:
            garden.optimizers.zero_seed(seed.seed_id)
            return
        for record in slot.passes:
            record.backward()
            if record.fault:
                seed.tripped, seed.note = "seed:raised", record.fault
                garden.optimizers.zero_seed(seed.seed_id)
                return
        self._note_norm(seed, garden.optimizers.step_seed(seed.seed_id, None, seed.alpha_value))
        seed.update_average(garden.settings.ema_decay)
        garden.seed_flops += units * seed.cost.backward_flops

    def _note_norm(self, seed: Seed, norm: float | Tensor) -> None:
        if isinstance(norm, Tensor):
            self._unread.setdefault(seed.seed_id, []).append(norm.detach())
            return
        seed.health.read_gradient_norm = norm
        seed.health.num_not_finite += not math.isfinite(norm)

    def _compare(self, before: Tally, slots: list[Slot], step: int) -> None:
        watch = self._garden.host_watch
        after = watch.tally()
        moved = HostWatch.difference(before, after)
        if moved is not None:
            self._moved.append(moved)
        if HostWatch.was_touched(before, after):
            self._count_violations([seed for slot in slots for seed in slot.live], step)

    def _count_violations(self, seeds: list[Seed], step: int) -> None:
        for seed in seeds:
            seed.num_violations += 1
            message = f"the host's gradients or weights moved while seed {seed.seed_id} learned"
            self._garden.notice("isolation.violated", message, "error", step, {"seed_id": str(seed.seed_id)})

    def _read(self) -> None:
        """Everything unread of all seeds, in one read."""
        seeds = [seed for seed in self._garden.seeds.values() if seed.stage in LIVE]
        values: list[Tensor] = []
        for seed in seeds:
            health = seed.health
            values += [t for t in (health.loss, health.output_ratio) if t is not None]
            values += self._unread.get(seed.seed_id, [])
        values += self._moved
        numbers = iter(torch.stack([value.float().reshape(()) for value in values]).tolist() if values else [])
        for seed in seeds:
            self._take(seed, numbers)
        touched = any(number > 0.0 for number in numbers)
        self._unread.clear()
        self._moved.clear()
        if touched:
            learning = [seed for seed in seeds if seed.stage is not Stage.GERMINATED]
            self._count_violations(learning, max((self._garden.slot_of(s).step for s in learning), default=0))

    def _take(self, seed: Seed, numbers: Iterator[float]) -> None:
        health = seed.health
        if health.loss is not None:
            health.read_loss = next(numbers)
        if health.output_ratio is not None:
            health.read_output_ratio = next(numbers)
        norms = [next(numbers) for _ in self._unread.get(seed.seed_id, [])]
        if norms:
            health.read_gradient_norm = norms[-1]
            health.num_not_finite += sum(not math.isfinite(norm) for norm in norms)
        health.loss, health.output_ratio = None, None
        if health.num_not_finite >= MAX_NOT_FINITE and not seed.tripped:
            seed.tripped = "gradient_health"
            seed.note = f"{health.num_not_finite} of its steps had a gradient that was not finite"
