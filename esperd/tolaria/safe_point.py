"""The safe point: after a step and before the next batch, the only place where anything but training happens.

Training thread only. In order: log, validation and packets that are due; the state, if it is to be kept; commands, and
what they want kept; and then training stands still for as long as it is paused, halted, or going back.
"""

from esperd.bridge.bridge import Bridge
from esperd.leyline.views import StatePacket
from esperd.leyline.vocabulary import CheckpointKind, EmergencyLevel, TrainerPhase
from esperd.tolaria import held_out
from esperd.tolaria.catch_up import CatchUp
from esperd.tolaria.dispatch import Dispatcher
from esperd.tolaria.emergency import EpochEnded, PolicyChanged
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.loss_reader import LossReader
from esperd.tolaria.losses import num_units
from esperd.tolaria.parts import Parts
from esperd.tolaria.rollback import Rollback
from esperd.tolaria.troubles import Troubles

_LOOK_S = 0.25
"""A standing trainer looks at deferred commands and shows life this often; a command wakes it at once."""


class SafePoint:
    """What happens between two steps."""

    def __init__(
        self,
        parts: Parts,
        dispatcher: Dispatcher,
        keeper: Keeper,
        rollback: Rollback,
        troubles: Troubles,
        loss_reader: LossReader,
    ) -> None:
        self._parts = parts
        self._bridge: Bridge = parts.bridge
        self._progress, self._safety, self._standing = parts.progress, parts.safety, parts.standing
        self._dispatcher = dispatcher
        self._keeper = keeper
        self._rollback = rollback
        self._troubles = troubles
        self._loss_reader = loss_reader
        self._num_steps = parts.settings.run.num_steps
        self._log_every = parts.settings.training.log_every_steps
        self._validate_every = parts.settings.training.validate_every_steps
        self._packet_every = parts.settings.policy.packet_every_steps
        # The first step at which one of the three is due, so that the steps between do no more than compare with it:
        # after the host's step the caches hold its weights, and every function touched has to come back from memory.
        self._next_date = 0
        self._num_packets = 0
        self._catch_up: CatchUp | None = None

    def pass_through(self, epoch_ended: bool) -> None:
        """One safe point. Most find nothing to do, and their few comparisons are all that a step pays for it."""
        if (
            self._progress.global_step >= self._next_date
            or epoch_ended
            or self._safety.level >= EmergencyLevel.ELEVATED  # whatever is decided about trouble has raised it before
        ):
            epoch_ended = self._keep_dates(self._progress.global_step, epoch_ended)
        if self._dispatcher.has_work(epoch_ended=epoch_ended):
            self._parts.kernels.tend()
            self._dispatcher.run(epoch_ended=epoch_ended)
            self._next_date = 0  # what was done may have brought dates of its own, or another step
        if self._keeper.results or self._keeper.requests:
            self._keep()
        if self._catch_up is not None:
            self._look_at_the_past(self._catch_up)
        if self._standing.is_paused or self._safety.level is EmergencyLevel.HALT or self._rollback.is_under_way:
            self.stand_still()

    @property
    def is_over(self) -> bool:
        """Whether training ends here: enough steps, a stop by command, or the daemon is leaving."""
        is_at_end = 0 < self._num_steps <= self._progress.global_step or self._standing.is_stopping
        # A rollback that is under way leads elsewhere, or ends by its deadline.
        return self._bridge.stop_requested or (is_at_end and not self._rollback.is_under_way)

    @property
    def _stands(self) -> bool:
        return self._standing.is_paused or self._safety.level is EmergencyLevel.HALT or self._rollback.is_under_way

    # Dates

    def _keep_dates(self, step: int, epoch_ended: bool) -> bool:
        """Log, validation, packets and states, each at its own interval, or at the epoch's end.

        Whether the run still stands at an epoch's end: it may have gone back from there.
        """
        log_every = self._log_every
        if self._safety.level >= EmergencyLevel.ELEVATED:
            log_every = max(1, log_every // 5)
        self._parts.note_change(self._safety.tick(step))
        self._save_in_emergency()
        if step % log_every == 0:
            self.log()
        if step % self._validate_every == 0 if self._validate_every else epoch_ended:
            self.validate()
        if epoch_ended:
            self._end_epoch(step)
        elif (self._packet_every and step % self._packet_every == 0) or self._is_asked_for_packet(step):
            self.send_packet("interval")
        self._act_on_trouble()
        self._arrive_if_due()
        asked_every = self._standing.packet_every_steps
        asked_every = max(asked_every, self._log_every) if asked_every else 0
        intervals = (self._log_every, self._validate_every, self._packet_every, asked_every)
        own = [step - step % every + every for every in intervals if every]
        is_still_there = step == self._progress.global_step
        self._next_date = min(self._keeper.next_step, *own) if is_still_there else 0
        return epoch_ended and is_still_there

    def _end_epoch(self, step: int) -> None:
        self._progress.epoch = self._parts.feed.epoch
        self._parts.kernels.end_epoch()
        self._parts.note_change(self._safety.handle(EpochEnded(self._troubles.epoch_ended()), step))
        self.send_packet("epoch_end")

    def _is_asked_for_packet(self, step: int) -> bool:
        """Whether the steering policy wants a packet now; not more often than is logged, so that nobody slows a run."""
        every = self._standing.packet_every_steps
        return every > 0 and step % max(every, self._log_every) == 0

    def log(self) -> None:
        """The numbers of the moment, for the state view and telemetry."""
        parts, progress = self._parts, self._progress
        for value in self._loss_reader.drain():
            self._troubles.see_loss(value)
        step_s = parts.telemetry.step_s()
        progress.train_loss = parts.telemetry.loss
        if step_s > 0:
            progress.step_ms = step_s * 1e3
            progress.samples_per_s = parts.batch_units() / step_s
        norm = parts.optimizers.host_gradient_norm
        snapshot = parts.publisher.publish()
        parts.telemetry.emit_step(snapshot, None if norm is None else float(norm), parts.unix_ns())

    def validate(self) -> None:
        """Loss and metrics on the validation split. Its phase is progress: no revision, for it changes nothing."""
        parts, progress, task = self._parts, self._progress, self._parts.task
        before, progress.phase = progress.phase, TrainerPhase.VALIDATING
        parts.publisher.publish()
        found = held_out.validate(parts.model, parts.forward, task.loss_fn, task.metrics, task.eval_data, parts.copier)
        progress.phase = before
        progress.val_loss, progress.metrics = found.loss, found.metrics
        parts.optimizers.note_validation(found.loss)
        self._bridge.show_life()
        parts.telemetry.emit_validation(parts.publisher.publish(), parts.unix_ns())

    def send_packet(self, reason: str) -> None:
        """Tell policies how the run stands, with the loss on held-out data where the budget allows it."""
        parts, progress = self._parts, self._progress
        batch_units = parts.batch_units()
        is_last = reason == "run_finished"
        wanted = parts.packet_probe.units_now(progress.global_step, batch_units, is_last=is_last)
        probe_loss = float("nan")
        if wanted > 0:
            batch = parts.probe_set.fixed(wanted)
            probe_loss = held_out.mean_loss(parts.model, parts.forward, parts.unit_losses, batch)
            progress.flops += progress.host_step_flops / 3.0 * num_units(batch) / batch_units
        self._num_packets += 1
        snapshot = parts.publisher.publish()
        if self._catch_up is None:  # what was decided on it then is in the journal
            self._bridge.record(StatePacket(snapshot, self._num_packets, reason, probe_loss, parts.clock()))

    # States that are kept

    def _save_in_emergency(self) -> None:
        """The run has become conservative or halted: its state is wanted on disk."""
        if self._safety.take_checkpoint_wish():
            self._keeper.request(CheckpointKind.EMERGENCY)

    def _keep(self) -> None:
        self._next_date = 0
        for loaded in self._keeper.take_results():
            self._rollback.loaded(loaded)
        if not self._rollback.is_under_way:
            self._keeper.tend()

    def _arrive_if_due(self) -> None:
        """A step at which states are judged or kept; if the weights are found to be poisoned, something is done."""
        if self._rollback.is_under_way or self._progress.global_step < self._keeper.next_step:
            return
        for value in self._loss_reader.drain():
            self._troubles.see_loss(value)
        if not self._troubles.wants_action:  # else nothing of this state is worth keeping
            self._keeper.arrive()
            if self._keeper.found_poison:
                self._keeper.found_poison = False
                self._troubles.weights_are_poisoned()
        self._act_on_trouble()

    def _act_on_trouble(self) -> None:
        if self._troubles.wants_action:
            self._troubles.act(self._rollback)

    # After a restart

    def resume(self, catch_up: CatchUp) -> None:
        """Do again what an earlier start had done, up to where the journal ends."""
        self._catch_up = catch_up
        self._progress.catch_up_step = catch_up.horizon[1]
        self._progress.is_repeating = True

    def begin(self) -> None:
        """The safe point before the first step: a state to go back to, and whatever the journal has for here."""
        self._arrive_if_due()
        if self._catch_up is not None and self._dispatcher.has_work(epoch_ended=False):
            self._dispatcher.run(epoch_ended=False)
        if self._keeper.results or self._keeper.requests:
            self._keep()
        if self._catch_up is not None:
            self._look_at_the_past(self._catch_up)

    def _look_at_the_past(self, catch_up: CatchUp) -> None:
        """End the catching up where history ends: from here on the run is new."""
        parts, progress = self._parts, self._progress
        if not catch_up.is_over(progress.position):
            return
        self._catch_up = None
        self._dispatcher.end_catch_up()
        parts.publisher.is_known = None
        for past in catch_up.missed():
            self._troubles.diverged(past.command, "its safe point was never met")
        progress.catch_up_step, progress.is_repeating = 0, False
        if self._standing.is_policy_present and not catch_up.is_durable:  # else the control plane tells, by a command
            self._standing.is_policy_present, self._standing.packet_every_steps = False, 0
            self._safety.handle(PolicyChanged(False, "the daemon was started again"), progress.global_step)
        if progress.phase is TrainerPhase.CATCHING_UP:
            progress.phase = TrainerPhase.TRAINING
        parts.publisher.bump()
        parts.publisher.publish()

    @property
    def running_phase(self) -> TrainerPhase:
        """What the trainer is doing while it takes steps."""
        return TrainerPhase.TRAINING if self._catch_up is None else TrainerPhase.CATCHING_UP

    # Standing still

    def stand_still(self) -> None:
        """Wait at the safe point, answering commands, until nothing holds training back any more."""
        while not self.is_over and self._stands:
            self.set_phase(self._standing_phase())
            self.wait_for_mail()
        if not self.is_over:
            self.set_phase(self.running_phase)

    def _standing_phase(self) -> TrainerPhase:
        if self._rollback.is_under_way:
            return TrainerPhase.ROLLING_BACK
        return TrainerPhase.HALTED if self._safety.is_halted else TrainerPhase.PAUSED

    def wait_for_mail(self) -> None:
        """Wait a little for a command or for the helper thread, and answer it."""
        progress = self._progress
        self._bridge.box.wait(_LOOK_S)
        self._bridge.show_life()
        self._rollback.look_at_deadline()
        self._parts.kernels.tend()
        self._dispatcher.run(epoch_ended=False)
        self._save_in_emergency()
        self._keep()
        if not self._parts.executor.active:
            self._parts.note_change(self._parts.executor.tick_idle(progress.global_step))

    def set_phase(self, phase: TrainerPhase) -> None:
        """Show what the trainer is doing."""
        if self._progress.phase is not phase:
            self._progress.phase = phase
            self._parts.note_change(True)
