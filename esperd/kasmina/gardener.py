"""Moves seeds through their lives: germinates, asks gates, advances, culls, resets; one stage at a time.

Training thread only, at safe points. Every move goes through the lifecycle table and is reported with its evidence.
"""

import gc
from dataclasses import replace

from esperd.kasmina import gates
from esperd.kasmina.alpha import AlphaRamp
from esperd.kasmina.evidence import level_for
from esperd.kasmina.garden import Garden
from esperd.kasmina.guard import TOLERATED_HARM, Trip
from esperd.kasmina.isolation import differential_probe
from esperd.kasmina.judgement import Judgement
from esperd.kasmina.lifecycle import CANDIDATE, Event, check_operation, may_auto_advance, next_rule
from esperd.kasmina.loss_watch import ProbeWatch
from esperd.kasmina.ports import Attribution
from esperd.kasmina.probes import OFF, Variant
from esperd.kasmina.seed import Health, Remains, Seed
from esperd.kasmina.slot import Slot
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.views import GateResult
from esperd.leyline.vocabulary import AlphaCurve, Gate, Stage, Verdict

AUTO = "auto"
REFERENCE_PROBES = 4
"""The reference sample at blend start is so many probes large: it must show progress of a few per cent."""


SHORT_OF_THE_GAIN = frozenset({"gain_lower", "bet_p_value", "units", "rent_paid"})
"""Evidence of the commit gate that more learning can mend."""


class Gardener:
    """The acting part of the executor."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden
        self._pending: dict[int, tuple[float, Judgement]] = {}
        """Amplitude and evidence of the G2 just asked, by seed; used if the seed advances on it."""

    def forget(self) -> None:
        """Forget what was asked last: another state has been loaded."""
        self._pending.clear()

    # Gates and stages

    def ask(self, seed: Seed, step: int) -> GateResult:
        """What the gate before the seed's next stage says."""
        garden = self._garden
        slot, settings, timed = garden.slot_of(seed), garden.settings, garden.is_clock_trusted
        match seed.stage:
            case Stage.GERMINATED:
                return gates.gradient_health(
                    garden.host, list(garden.slots.values()), slot, seed, garden.optimizers,
                    [*garden.host_parameters, *(p for fossil in garden.fossils for p in fossil.parameters)],
                    garden.prober, step,
                )  # fmt: skip
            case Stage.TRAINING:
                result, amplitude, judgement = gates.stability(
                    garden.host, slot, seed, garden.prober, settings, garden.level(seed), step
                )
                self._pending[seed.seed_id] = (amplitude, judgement)
                return result
            case Stage.BLENDING:
                return gates.interface(seed, settings, self._is_identity_at_zero(slot, seed), step, timed=timed)
            case Stage.SHADOWING:
                return gates.impact(seed, settings, step, timed=timed)
            case _:
                return gates.commit(garden.host, slot, seed, garden.prober, settings, step, timed=timed)

    def advance(self, seed: Seed, result: GateResult, step: int, by: Attribution) -> None:
        """Take the seed to its next stage, with everything that stage means."""
        target = next_rule(seed.stage).target
        seed.gates[result.gate, result.purpose] = result
        seed.note = ""
        slot = self._garden.slot_of(seed)
        match target:
            case Stage.TRAINING:
                seed.next_look_step = step + self._garden.settings.min_training_steps
            case Stage.BLENDING:
                self._graft(slot, seed, step)
            case Stage.SHADOWING:
                seed.take_average()
                self._begin_judging(slot, seed, 0.0, self._garden.level(seed), step)
            case Stage.PROBATIONARY:
                self._give_full_alpha(slot, seed, step)
            case _:
                self._fossilize(slot, seed)
        self._garden.enter(seed, target, step, by.cause, result)

    def cull(
        self, seed: Seed, by: Attribution, step: int, *, blocks: bool = True, gate: GateResult | None = None
    ) -> None:
        """Take a seed out at once; its site is embargoed unless the seed was only withdrawn or outdone."""
        garden = self._garden
        slot, source = garden.slot_of(seed), seed.stage
        slot.discard(seed)
        failpoint("surgery.middle")
        garden.optimizers.drop_seed(seed.seed_id)
        until_step, until_s = step, 0.0
        if blocks:
            until_step, until_s = self.embargo(slot, seed.plan.blueprint_id, step)
        seed.note = seed.note or by.cause
        seed.enter(Stage.CULLED, step, by.cause)
        if gate is not None:
            seed.gates[gate.gate, gate.purpose] = gate
        garden.remains.append(Remains.of(seed, until_step, until_s, blocks=blocks))
        self._pending.pop(seed.seed_id, None)
        del garden.seeds[seed.seed_id]
        where = (seed.seed_id, seed.site, seed.plan.blueprint_id)
        garden.report_transition(where, source, Stage.CULLED, step, by.cause, gate)

    def embargo(self, slot: Slot, blueprint_id: str, step: int) -> tuple[int, float]:
        """Block a site after a failure of a blueprint there, for longer each time; until which step and Unix time."""
        settings, site = self._garden.settings, slot.site
        failures = site.failures.get(blueprint_id, 0) + 1
        site.failures[blueprint_id] = failures
        until_step = step + settings.embargo_steps * 2 ** (failures - 1)
        until_s = 0.0
        if settings.embargo_s > 0.0:  # else no clock decides anything
            until_s = self._garden.clock() + settings.embargo_s * 2 ** (failures - 1)
        site.embargoed_until_step = max(site.embargoed_until_step, until_step)
        site.embargoed_until_unix_s = max(site.embargoed_until_unix_s, until_s)
        return until_step, until_s

    def _graft(self, slot: Slot, seed: Seed, step: int) -> None:
        """What was judged goes on: averaged weights, at the amplitude of the line search; rivals leave."""
        garden = self._garden
        amplitude, judgement = self._pending.pop(seed.seed_id)
        for rival in [other for other in slot.candidates if other is not seed]:
            self.cull(rival, Attribution(f"rival:{seed.seed_id}"), step, blocks=False)
        batches = list(garden.host.probe_batches(
            min(REFERENCE_PROBES * garden.settings.probe_units, garden.settings.max_probe_units)
        ))  # fmt: skip
        seed.reference = (batches, garden.prober.losses(slot, seed, [OFF], batches)[0])
        seed.contributions["pre_blend_gain"] = judgement.contribution("pre_blend_gain")
        seed.take_average()
        seed.amplitude = amplitude
        seed.health = Health()
        seed.probe_watch = ProbeWatch()
        seed.ramp = AlphaRamp(seed.plan.alpha)
        seed.set_alpha(0.0)
        failpoint("surgery.middle")
        seed.next_look_step = step + garden.settings.probe_every_steps
        slot.candidates.clear()
        slot.grafted = seed
        slot.refresh()

    def _begin_judging(self, slot: Slot, seed: Seed, wanted: float, level: float, step: int) -> None:
        seed.judgement = gates.new_judgement(slot, self._garden.settings, level, wanted)
        seed.next_look_step = step + 1

    def _begin_commit_look(self, slot: Slot, seed: Seed, step: int) -> None:
        """Measure afresh for the commit; the looks of one seed share its error level."""
        garden = self._garden
        seed.num_commit_looks += 1
        level = level_for(seed.num_commit_looks, garden.level(seed))
        wanted = garden.settings.wanted_gain_ratio * seed.reference_loss
        self._begin_judging(slot, seed, max(wanted, gates.rent_due(slot, seed, garden.settings)), level, step)

    def _give_full_alpha(self, slot: Slot, seed: Seed, step: int) -> None:
        """Alpha is full from here on, so that fossilizing will change no output."""
        assert seed.ramp is not None
        seed.ramp = AlphaRamp(AlphaSchedule(AlphaCurve.LINEAR, 1, 1.0), start=seed.ramp.value)
        seed.set_alpha(seed.ramp.snap())
        seed.blender.lift_cap()
        if seed.judgement is not None and seed.judgement.num_units:
            seed.reference_loss = seed.judgement.loss_without
        self._begin_commit_look(slot, seed, step)

    def _fossilize(self, slot: Slot, seed: Seed) -> None:
        self._garden.optimizers.merge_seed(seed.seed_id)
        failpoint("surgery.middle")
        slot.grafted = None
        slot.fossils.append(seed)
        slot.refresh()
        seed.blender.eval()
        seed.blender.detach_host = False
        seed.auto_advance = False
        seed.ema, seed.reference, seed.judgement = [], ([], []), None

    # The safe point

    def tend(self, step: int) -> bool:
        """Look after every live seed; True when something visible changed."""
        changed = False
        for seed in self._garden.live:
            if seed.seed_id not in self._garden.seeds:
                continue  # an earlier one's graft has culled it
            try:
                changed = self._tend(self._garden.slot_of(seed), seed, step) or changed
            except Exception as error:  # noqa: BLE001 - measuring runs the seed's code; the run goes on without it
                seed.note = f"{type(error).__name__}: {error}"
                self._trip_out(seed, "seed:raised", step)
                changed = True
        return changed

    def tend_remains(self, step: int) -> bool:
        """Take culled seeds one stage further on their way out; True when something visible changed."""
        changed = False
        for remains in list(self._garden.remains):
            changed = self._tend_remains(remains, step) or changed
        return changed

    def _tend(self, slot: Slot, seed: Seed, step: int) -> bool:
        settings = self._garden.settings
        if self._is_tripped_out(seed, step) or self._violates(slot, seed, step):
            return True
        probed = self._probe(slot, seed, step)
        if self._is_tripped_out(seed, step):
            return True
        probed = self._screen(seed, step) or probed
        moved = self._auto_advance(slot, seed, step)
        if moved or seed.seed_id not in self._garden.seeds:
            return True
        waits = self._garden.holds_candidates and seed.stage in CANDIDATE
        if not waits and step - seed.stage_entered_step >= self._garden.dwell(seed.stage)[1]:
            seed.note = seed.note or f"{seed.stage.name} for {settings.max_dwell_steps} steps without evidence"
            self.cull(seed, Attribution("max_dwell"), step)
            return True
        return probed

    def _is_tripped_out(self, seed: Seed, step: int) -> bool:
        """Cull a seed that has tripped; whether it had."""
        if seed.tripped:
            self._trip_out(seed, seed.tripped, step)
        return bool(seed.tripped)

    def _trip_out(self, seed: Seed, cause: str, step: int) -> None:
        attributes = {"seed_id": str(seed.seed_id), "site": seed.site, "cause": cause}
        message = f"seed {seed.seed_id} is culled: {cause}: {seed.note}"
        self._garden.notice("guard.tripped", message, "warning", step, attributes)
        self.cull(seed, Attribution(cause), step)

    def _violates(self, slot: Slot, seed: Seed, step: int) -> bool:
        """Run the differential probe when it is due; cull a seed that has broken the isolation too often."""
        garden = self._garden
        age = step - seed.germinated_step
        if age > 0 and age % garden.settings.isolation_check_every_steps == 0 and seed.stage is not Stage.GERMINATED:
            same, detail = differential_probe(
                garden.host, list(garden.slots.values()), slot, seed, garden.host.sample_inputs()
            )
            if not same:
                seed.num_violations += 1
                message = f"the host's gradients differ with seed {seed.seed_id}: {detail}"
                garden.notice("isolation.violated", message, "error", step, {"seed_id": str(seed.seed_id)})
        if seed.num_violations < garden.settings.max_isolation_violations:
            return False
        seed.note = f"{seed.num_violations} isolation violations"
        garden.notice("isolation.breaker_open", f"seed {seed.seed_id}: {seed.note}", "critical", step)
        self.cull(seed, Attribution("breaker:isolation"), step)
        return True

    def _probe(self, slot: Slot, seed: Seed, step: int) -> bool:
        """The small probe of a grafted seed, when due: the guard's while it blends, the judge's afterwards."""
        garden = self._garden
        if seed.stage not in (Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY) or step < seed.next_look_step:
            return False
        judgement = seed.judgement if seed.stage is not Stage.BLENDING else None
        if judgement is not None and (self._is_over_budget(step) or self._is_decided(judgement)):
            return False
        seed.next_look_step = step + garden.settings.probe_every_steps
        batches = garden.host.probe_batches(garden.settings.probe_units)
        before = garden.prober.flops
        without, with_seed = garden.prober.losses(slot, seed, [OFF, Variant(seed.alpha_value)], batches)
        tolerance = TOLERATED_HARM * seed.reference_loss
        self._note_trip(garden.guard.take(seed, without, with_seed, tolerance))
        if judgement is not None:
            garden.judging_flops += garden.prober.flops - before
            judgement.take(without, with_seed)
            seed.contributions["dependence"] = judgement.contribution("dependence")
        return True

    def _screen(self, seed: Seed, step: int) -> bool:
        """Measure a ripe candidate that waits for a command, so that whoever decides has evidence.

        Again at each doubling of its age; the gate itself is asked anew when the command comes.
        """
        if seed.stage is not Stage.TRAINING or step < seed.next_look_step:
            return False
        if seed.auto_advance and may_auto_advance(Stage.TRAINING, seed.plan.until):
            return False  # it competes by itself, see `_choose`
        result = self.ask(seed, step)
        judgement = self._pending.pop(seed.seed_id)[1]
        seed.gates[result.gate, result.purpose] = result
        if judgement.num_units:
            seed.contributions["pre_blend_gain"] = judgement.contribution("pre_blend_gain")
        seed.next_look_step = step + max(1, step - seed.stage_entered_step)
        return True

    @staticmethod
    def _note_trip(trip: Trip | None) -> None:
        if trip is not None:
            trip.seed.tripped, trip.seed.note = trip.cause, trip.detail

    def _is_over_budget(self, step: int) -> bool:
        """Whether judging has used its share of the training FLOPs so far; the guard's probes never wait."""
        garden = self._garden
        allowed = garden.settings.probe_budget * garden.host.step_flops() * step
        return 0.0 < allowed < garden.judging_flops

    def _is_decided(self, judgement: Judgement) -> bool:
        return judgement.proven or judgement.refuted or judgement.num_units >= self._garden.settings.max_probe_units

    # Auto-advance

    def _auto_advance(self, slot: Slot, seed: Seed, step: int) -> bool:
        """Advance a seed whose gate passes, cull one whose gate fails, wait for one that is not measured."""
        garden = self._garden
        if not seed.auto_advance or not may_auto_advance(seed.stage, seed.plan.until):
            return False
        if step - seed.stage_entered_step < garden.dwell(seed.stage)[0] or not self._is_ripe(seed):
            return False
        if seed.stage is Stage.TRAINING:
            return not garden.holds_candidates and self._choose(slot, step)
        result = self.ask(seed, step)
        if result.verdict is Verdict.PASSED:
            self.advance(seed, result, step, Attribution(AUTO))
        elif result.verdict is Verdict.FAILED and not self.look_again(seed, result, step):
            self._fail(seed, result, step)
        return result.verdict is not Verdict.UNMEASURED

    def look_again(self, seed: Seed, result: GateResult, step: int) -> bool:
        """Give a seed on probation that helps, but not enough yet, time to grow; whether it gets it.

        It goes on learning with the host and is measured afresh at twice its age in the stage (after a ramp's length at
        least), until the stage's maximum dwell. Seen on the byte-level task: worth 0.005 nats when its blend ended,
        over 0.1 when the run did.
        """
        judgement = seed.judgement
        if seed.stage is not Stage.PROBATIONARY or judgement is None or judgement.broken:
            return False
        fell_short = {item.name for item in result.evidence if not item.passed} <= SHORT_OF_THE_GAIN
        if not fell_short or judgement.sequence.upper < 0.0:
            return False
        self._garden.report_gate(seed, result, step)
        self._begin_commit_look(self._garden.slot_of(seed), seed, step)
        seed.next_look_step = step + max(seed.plan.alpha.num_steps, step - seed.stage_entered_step)
        seed.note = f"the gain falls short at step {step}; measured again from step {seed.next_look_step}"
        return True

    def _is_ripe(self, seed: Seed) -> bool:
        """Whether asking the gate can say anything new."""
        if seed.stage is Stage.BLENDING:
            return seed.ramp is not None and seed.ramp.num_steps_left == 0
        if seed.stage in (Stage.SHADOWING, Stage.PROBATIONARY):
            return seed.judgement is not None and self._is_decided(seed.judgement)
        return True

    def _choose(self, slot: Slot, step: int) -> bool:
        """Of the site's candidates the one with the best lower bound per FLOP goes on; all are asked at once."""
        rivals = [s for s in slot.candidates if s.auto_advance and may_auto_advance(Stage.TRAINING, s.plan.until)]
        if any(s.stage is not Stage.TRAINING or step < s.next_look_step for s in rivals):
            return False
        asked = [(seed, self.ask(seed, step)) for seed in rivals]
        passed = [(seed, result) for seed, result in asked if result.verdict is Verdict.PASSED]
        for seed, result in asked:
            if result.verdict is not Verdict.PASSED:
                self._garden.report_gate(seed, result, step)
        if passed:
            best, result = max(passed, key=lambda pair: self._worth(pair[0]))
            self.advance(best, result, step, Attribution(AUTO))
            return True
        for seed, result in asked:
            self._retry_or_fail(seed, result, step)
        return True

    def _worth(self, seed: Seed) -> float:
        """Lower bound of the pre-blend gain per FLOP of the model with the seed in it."""
        lower = self._pending[seed.seed_id][1].sequence.lower
        host_flops = self._garden.slot_of(seed).site.spec.host_forward_flops
        flops = host_flops + seed.cost.forward_flops
        return lower / flops if lower > 0.0 and flops > 0.0 else lower

    def _retry_or_fail(self, seed: Seed, result: GateResult, step: int) -> None:
        """A candidate that does not pass yet trains on and is asked again at twice its age."""
        self._pending.pop(seed.seed_id, None)
        age = step - seed.stage_entered_step
        helpless = any(item.name == "amplitude" and not item.passed for item in result.evidence)
        if helpless or 2 * age > self._garden.settings.max_training_steps:
            self._fail(seed, result, step, reported=True)
            return
        seed.next_look_step = step + max(1, age)
        seed.note = f"G2 did not pass at step {step}; asked again at step {seed.next_look_step}"

    def _fail(self, seed: Seed, result: GateResult, step: int, *, reported: bool = False) -> None:
        if not reported:
            self._garden.report_gate(seed, result, step)
        bad = ", ".join(item.name for item in result.evidence if not item.passed)
        seed.note = f"{result.gate.name} failed: {bad}"
        self.cull(seed, Attribution(f"gate:{result.gate.name}"), step, gate=result)

    # What comes after a cull

    def _tend_remains(self, remains: Remains, step: int) -> bool:
        garden = self._garden
        if step <= remains.view.stage_entered_step:
            return False  # one stage at one safe point
        elapsed = step >= remains.embargo_until_step and garden.clock() >= remains.embargo_until_unix_s
        event = {Stage.CULLED: Event.EMBARGO, Stage.EMBARGOED: Event.RESET}.get(remains.view.stage, Event.VACATE)
        if event is Event.RESET and not elapsed:
            return False
        rule = check_operation(remains.view.stage, event, seed_id=remains.view.seed_id, story=remains.story)
        result = self._ask_reset(remains, elapsed, step) if rule.gate is Gate.G5_RESET else None
        if result is not None and result.verdict is not Verdict.PASSED:
            return self._note_leak(remains, result, step)
        source, view = remains.view.stage, remains.view
        remains.enter(rule.target, step, result)
        if rule.target is Stage.DORMANT:
            garden.remains.remove(remains)
        where = (view.seed_id, view.site, view.blueprint_id)
        garden.report_transition(where, source, rule.target, step, event.value, result)
        return True

    def _ask_reset(self, remains: Remains, elapsed: bool, step: int) -> GateResult:
        garden = self._garden
        if remains.num_reachable and remains.is_first_look():
            gc.collect()  # a module may hold itself in a cycle; asked once for each seed
        slot = garden.slots[remains.view.site]
        return gates.reset(remains, slot, owned=self._num_owned(remains.view.seed_id), elapsed=elapsed, step=step)

    def _num_owned(self, seed_id: int) -> int:
        try:
            return len(self._garden.optimizers.owned_by(seed_id))
        except (KeyError, EsperdError):
            return 0  # the trainer knows the seed no more, which is what G5 wants to hear

    def _note_leak(self, remains: Remains, result: GateResult, step: int) -> bool:
        """Tell once that something still holds the seed; its site stays blocked until nobody does."""
        if remains.view.note.startswith("not released"):
            return False
        held = ", ".join(item.name for item in result.evidence if not item.passed)
        remains.view = replace(remains.view, note=f"not released: {held}")
        message = f"{result.gate.name} {result.verdict.name} for seed {remains.view.seed_id}: {held}"
        attributes = {item.name: f"{item.value:.6g}" for item in result.evidence}
        self._garden.notice("gate.evaluated", message, "error", step, attributes)
        return True

    def _is_identity_at_zero(self, slot: Slot, seed: Seed) -> bool:
        """Whether the blend at alpha 0 gives the host's output, bit for bit."""
        prober = self._garden.prober
        batch = self._garden.host.sample_inputs()
        alone, at_zero = prober.losses(slot, seed, [OFF, Variant(0.0)], [batch], shared=False)
        return alone == at_zero
