"""The trainer: the loop that trains the host, and the safe point from which everything else hangs.

Runs in the training thread and owns torch there; never touches asyncio. It knows the task, the optimizers, the seed
executor and its end of the bridge, and nothing of gRPC, keys or files.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.kasmina.blueprints.costs import FlopCountError, count_step_flops
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.ports import Batch, Host, StepAdvice
from esperd.leyline.commands import Command
from esperd.leyline.views import NoticeEvent, Snapshot, StatePacket, TransitionEvent
from esperd.leyline.vocabulary import EmergencyLevel, TrainerPhase
from esperd.tolaria import held_out, losses
from esperd.tolaria.budgets import LossWindow, StepWindow
from esperd.tolaria.dispatch import Dispatcher
from esperd.tolaria.emergency import LossAnomaly, PolicyChanged
from esperd.tolaria.feed import DeviceCopier, Feed
from esperd.tolaria.held_out import ProbeSet
from esperd.tolaria.loss_reader import LossReader
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.orders import Orders, Standing
from esperd.tolaria.packets import PacketProbe
from esperd.tolaria.precision import Precision, resolve_device, untouched_rng
from esperd.tolaria.safety import Safety
from esperd.tolaria.schedules import RatePhase
from esperd.tolaria.state import Progress, Publisher, notice
from esperd.tolaria.task import Task, describe, user_traceback
from esperd.tolaria.telemetry import StepTelemetry

_LOOK_S = 0.25
"""A standing trainer looks at deferred commands and shows life this often; a command wakes it at once."""

_DRY_RUN_UNITS = 8


class Trainer:
    """Trains one task. `run` is the training thread's target; it returns when the run has ended, for whatever reason.

    `clock` gives Unix seconds, `monotonic` seconds for intervals. Raises EsperdError (DEVICE_UNAVAILABLE, TASK_INVALID,
    SITE_PATTERN) when the task cannot be set up.
    """

    def __init__(
        self,
        task: Task,
        settings: Settings,
        bridge: Bridge,
        *,
        run_id: str,
        task_name: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        registry: BlueprintRegistry | None = None,
    ) -> None:
        self.task, self._settings, self._bridge = task, settings, bridge
        self._clock, self._monotonic = clock, monotonic
        training, growth, random_seed = settings.training, settings.growth, settings.run.random_seed
        device = resolve_device(training.device)
        self._model = task.model.to(device)
        if training.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
        self._precision = Precision(training.amp, device)
        self.optimizers = Optimizers(
            task.optimizer,
            task.scheduler,
            growth,
            clip_grad_norm=training.clip_grad_norm,
            new_scaler=self._precision.new_scaler,
        )
        self._copier = DeviceCopier(device, prefetch=training.prefetch, channels_last=training.channels_last)
        self._feed = Feed(task.train_data, self._copier, task_name)
        self._batch: Batch | None = None
        held_out_data = task.eval_data if task.probe_data is None else task.probe_data
        self._probe_set = ProbeSet(held_out_data, self._copier, random_seed, task_name)
        self._unit_losses = losses.unit_losses(task)
        num_parameters = sum(p.numel() for p in self._model.parameters())
        self._progress = Progress(run_id, task_name, settings.run.num_steps, str(device), clock(), num_parameters)
        self.executor = SeedExecutor(
            host=self._host(device),
            site_patterns=growth.sites,
            settings=growth,
            registry=standard_registry() if registry is None else registry,
            optimizers=self.optimizers,
            report=self._report,
            clock=clock,
            random_seed=random_seed,
        )
        self.safety = Safety(settings.budgets, self.executor, self._report, clock)
        self._publisher = Publisher(
            bridge,
            self._progress,
            self.executor,
            self.optimizers,
            self.safety,
            RatePhase(task.optimizer, task.scheduler),
        )
        self._standing = Standing(is_paused=settings.run.start_paused)
        orders = Orders(self.executor, self.optimizers, self.safety, self._standing, self._progress)
        self._dispatcher = Dispatcher(bridge, self._publisher, orders.apply, self._on_fault, clock)
        has_scaler = self._precision.new_scaler is not None
        self._loss_reader = LossReader(device, task.optimizer, has_scaler=has_scaler)
        self._loss_window = LossWindow(settings.budgets.anomaly_window)
        self._is_loss_sound = True
        self._step_window = StepWindow(settings.budgets, growth.max_step_time_ratio)
        self._telemetry = StepTelemetry(bridge)
        self._packet_probe = PacketProbe(growth, settings.policy.packet_every_steps)
        self._num_packets = 0
        self._bare_step_flops = 0.0
        # Read at every step, so kept at hand.
        self._num_steps = settings.run.num_steps
        self._log_every = training.log_every_steps
        self._validate_every = training.validate_every_steps
        self._packet_every = settings.policy.packet_every_steps
        # The first step at which one of the three is due, so that the steps between do no more than compare with it:
        # after the host's step the caches hold its weights, and every function touched has to come back from memory.
        self._next_date = 0

    # The run

    def run(self) -> None:
        """Train until the number of steps is reached, a stop is asked for, or the task fails; then close the box."""
        if self._settings.run.num_threads > 0:
            torch.set_num_threads(self._settings.run.num_threads)  # holds for the calling thread only
        try:
            self.prepare()
            while not self._is_over:
                self.step()
            self._finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the task's code: what it raises ends the run, not the daemon
            self._fail(error)
        finally:
            self._bridge.close(self._progress.phase.name, self._dispatcher.take_deferred())

    def step(self) -> None:
        """One optimizer step and its safe point."""
        started_s = time.perf_counter()
        step, executor = self._progress.global_step + 1, self.executor  # counted as it will be when it is done
        batch = self._batch = self._feed.next_batch()
        is_growing = executor.active
        if is_growing:
            executor.before_step(step)
        loss = self._forward_backward(batch)
        advice = executor.after_backward(step, batch, loss.detach()) if is_growing else StepAdvice.STEP
        self._update_host(loss, advice)
        self._progress.global_step = step
        self._progress.flops += self._progress.host_step_flops
        epoch_ended = self._feed.advance()
        safe_point_s = time.perf_counter()
        # The executor's own work: gates, probes, culls, embargoes.
        if executor.after_step(step) if is_growing else executor.tick_idle(step):
            self._note_growth_change()
        ended_s = time.perf_counter()
        self._note_times(ended_s - started_s, ended_s - safe_point_s, is_growing)
        self._safe_point(epoch_ended)

    # Parts of a step

    def _forward_backward(self, batch: Batch) -> torch.Tensor:
        inputs, targets = batch
        if self._precision.dtype is None:
            loss = self.task.loss_fn(self._model(inputs), targets)
        else:
            loss = self._loss_of(self._model, inputs, targets)
        self.optimizers.backward_host(loss)
        return loss

    def _update_host(self, loss: torch.Tensor, advice: StepAdvice) -> None:
        """Step the host, unless its loss is not finite or the guard advises against it."""
        is_finite = True
        if self._loss_reader.is_immediate:
            anomaly = self._see_loss(loss.item())
            is_finite = anomaly is None or anomaly.non_finite_in_row == 0
        else:
            for value in self._loss_reader.read_late(loss.detach()):
                self._see_loss(value)
        if is_finite and advice is StepAdvice.STEP:
            self.optimizers.step_host()
        else:
            self.optimizers.skip_host()

    def _note_growth_change(self) -> None:
        self.optimizers.check_ownership(self.executor.grown_parameters())
        self._note_change(True)

    def _note_times(self, step_s: float, safe_point_s: float, is_growing: bool) -> None:
        self._bridge.beat(step_s)
        self._telemetry.steps_s.append(step_s)
        self._telemetry.safe_points_s.append(safe_point_s)
        if self._step_window.note(step_s, is_quiet=not is_growing):
            measured = self._step_window.close(is_loss_sound=self._is_loss_sound)
            self._is_loss_sound = True
            self._progress.baseline_step_ms = self._step_window.baseline_s * 1e3
            self._note_change(self.safety.handle(measured, self._progress.global_step))

    # The safe point

    def _safe_point(self, epoch_ended: bool) -> None:
        """Log, validate and send packets when they are due; answer commands; stand still while paused or halted."""
        step, safety = self._progress.global_step, self.safety
        if step >= self._next_date or epoch_ended or safety.level >= EmergencyLevel.ELEVATED:
            self._keep_dates(step, epoch_ended)
        if self._dispatcher.has_work(step, epoch_ended=epoch_ended):
            self._dispatcher.run(step, epoch_ended=epoch_ended)
        if self._standing.is_paused or safety.level is EmergencyLevel.HALT:
            self._stand_still()

    def _keep_dates(self, step: int, epoch_ended: bool) -> None:
        """Log, validation and packets, each at its own interval, or at the epoch's end."""
        intervals = (self._log_every, self._validate_every, self._packet_every)
        self._next_date = min(step - step % every + every for every in intervals if every)
        log_every = self._log_every
        if self.safety.level >= EmergencyLevel.ELEVATED:
            log_every = max(1, log_every // 5)
        if step % log_every == 0:
            self._log()
        if step % self._validate_every == 0 if self._validate_every else epoch_ended:
            self._validate()
        if epoch_ended:
            self._progress.epoch = self._feed.epoch
            self._send_packet("epoch_end")
        elif (self._packet_every and step % self._packet_every == 0) or self._is_asked_for_packet(step):
            self._send_packet("interval")

    def _is_asked_for_packet(self, step: int) -> bool:
        """Whether the steering policy wants a packet now; not more often than is logged, so that nobody slows a run."""
        every = self._standing.packet_every_steps
        return every > 0 and step % max(every, self._log_every) == 0

    def _log(self) -> None:
        progress, step_s = self._progress, self._telemetry.step_s()
        for value in self._loss_reader.drain():
            self._see_loss(value)
        progress.train_loss = self._telemetry.loss
        if step_s > 0:
            progress.step_ms = step_s * 1e3
            progress.samples_per_s = losses.num_units(self._batch) / step_s
        norm = self.optimizers.host_gradient_norm
        self._note_change(self.safety.tick(progress.global_step))
        snapshot = self._publisher.publish()
        self._telemetry.emit_step(snapshot, None if norm is None else float(norm), self._unix_ns())

    def _validate(self) -> None:
        """Loss and metrics on the validation split. Its phase is progress: no revision, for it changes nothing."""
        progress = self._progress
        before, progress.phase = progress.phase, TrainerPhase.VALIDATING
        self._publisher.publish()
        task = self.task
        found = held_out.validate(self._model, self._forward, task.loss_fn, task.metrics, task.eval_data, self._copier)
        progress.phase = before
        progress.val_loss, progress.metrics = found.loss, found.metrics
        self.optimizers.note_validation(found.loss)
        self._bridge.show_life()
        self._telemetry.emit_validation(self._publisher.publish(), self._unix_ns())

    def _send_packet(self, reason: str) -> None:
        """Tell policies how the run stands, with the loss on held-out data where the budget allows it."""
        progress = self._progress
        batch_units = losses.num_units(self._batch)
        is_last = reason == "run_finished"
        num_units = self._packet_probe.units_now(progress.global_step, batch_units, is_last=is_last)
        probe_loss = float("nan")
        if num_units > 0:
            batch = self._probe_set.fixed(num_units)
            probe_loss = held_out.mean_loss(self._model, self._forward, self._unit_losses, batch)
            progress.flops += progress.host_step_flops / 3.0 * losses.num_units(batch) / batch_units
        self._num_packets += 1
        snapshot = self._publisher.publish()
        self._bridge.record(StatePacket(snapshot, self._num_packets, reason, probe_loss, self._clock()))

    def _stand_still(self) -> None:
        """Wait at the safe point, answering commands, until nothing holds training back any more."""
        while not self._is_over and (self._standing.is_paused or self.safety.is_halted):
            self._set_phase(TrainerPhase.HALTED if self.safety.is_halted else TrainerPhase.PAUSED)
            self._wait_for_mail()
        if not self._is_over:
            self._set_phase(TrainerPhase.TRAINING)

    def _wait_for_mail(self) -> None:
        step = self._progress.global_step
        self._bridge.box.wait(_LOOK_S)
        self._bridge.show_life()
        self._dispatcher.run(step, epoch_ended=False)
        if not self.executor.active:
            self._note_change(self.executor.tick_idle(step))

    # Beginning and end

    def prepare(self) -> None:
        """Look at the first batch, count its operations, show the run, and wait for what must be there first."""
        self._bare_step_flops = self.task.step_flops or self._count_flops(self._feed.peek())
        if self.task.facts:
            text = ", ".join(f"{name} {value}" for name, value in self.task.facts.items())
            self._report(notice(self._clock, "task.facts", text, "info", 0, **self.task.facts))
        if self._settings.policy.required:
            self.safety.handle(PolicyChanged(False, "none has come yet"), 0)
        self._note_change(True)
        patience_s = self._settings.run.wait_for_policy_s
        deadline_s = self._monotonic() + patience_s
        while not (self._standing.is_policy_present or self._is_over) and self._monotonic() < deadline_s:
            self._wait_for_mail()
        if patience_s and not (self._standing.is_policy_present or self._is_over):
            text = f"no policy came in {patience_s:g} s, the run begins without one"
            self._report(notice(self._clock, "policy.missed", text, "warning", 0))
        if self._standing.is_paused or self.safety.is_halted:
            self._stand_still()
        else:
            self._set_phase(TrainerPhase.TRAINING)

    @property
    def _is_over(self) -> bool:
        return (
            0 < self._num_steps <= self._progress.global_step
            or self._standing.is_stopping
            or self._bridge.stop_requested
        )

    def _finish(self) -> None:
        """Final validation, last packet, last state; nothing but the state when the daemon itself is leaving."""
        if self._bridge.stop_requested:
            self._set_phase(TrainerPhase.STOPPING)
            return
        if self._standing.is_stopping:
            self._set_phase(TrainerPhase.STOPPING)
        if self._progress.global_step > 0:
            self._log()
        self._validate()
        self._progress.phase = TrainerPhase.FINISHED
        self._publisher.bump()
        self._send_packet("run_finished")

    def _fail(self, error: BaseException) -> None:
        """Say what went wrong, with the user's own frames first, and leave the last state as it is."""
        self._progress.failure = describe(error)
        step = self._progress.global_step
        self._report(
            notice(self._clock, "run.failed", describe(error), "critical", step, traceback=user_traceback(error))
        )
        self._set_phase(TrainerPhase.FAILED)

    # For a look at the task (esperd.tolaria.check)

    def last_step(self) -> tuple[Any, Any, Any]:
        """Inputs and targets of the last step's batch, and the output for them in eval mode."""
        inputs, targets = self._feed.peek() if self._batch is None else self._batch
        with untouched_rng(), held_out.evaluating(self._model), torch.inference_mode():
            return inputs, targets, self._forward(inputs)

    def publish(self) -> Snapshot:
        """Publish the state as it is now."""
        self._publisher.bump()
        return self._publisher.publish()

    @property
    def last_loss(self) -> float:
        """The newest loss that is known."""
        return self._telemetry.loss

    @property
    def amp(self) -> str:
        """The number format of the forward pass under autocast, or `off`."""
        return "off" if self._precision.dtype is None else str(self._precision.dtype).removeprefix("torch.")

    # Small things

    def _set_phase(self, phase: TrainerPhase) -> None:
        if self._progress.phase is not phase:
            self._progress.phase = phase
            self._note_change(True)

    def _note_change(self, changed: bool) -> None:
        if changed:
            self._note_growth()
            self._publisher.bump()
            self._publisher.publish()

    def _note_growth(self) -> None:
        """What is fossilized belongs to the host's step: its operations, and a new baseline of its time."""
        fossil_flops = self.executor.fossil_flops_per_unit * losses.num_units(self._batch)
        step_flops = self._bare_step_flops + fossil_flops
        if step_flops != self._progress.host_step_flops:
            self._progress.host_step_flops = step_flops
            self._step_window.forget_baseline()

    def _see_loss(self, value: float) -> LossAnomaly | None:
        self._telemetry.loss = value
        anomaly = self._loss_window.see(value)
        if anomaly is not None:
            self._is_loss_sound = False
            self._note_change(self.safety.handle(anomaly, self._progress.global_step))
        return anomaly

    def _report(self, event: TransitionEvent | NoticeEvent) -> None:
        """An event of the executor or of ours, on its way up."""
        self._publisher.report(event)
        step = self._progress.global_step
        if isinstance(event, NoticeEvent) and event.kind == "isolation.violated":
            self.safety.note_failure("isolation", step, event.message)

    def _on_fault(self, command: Command, error: Exception) -> None:
        step, kind = self._progress.global_step, type(command.payload).__name__
        text = f"{kind} {command.command_id} met a fault: {describe(error)}"
        self._report(notice(self._clock, "command.failed", text, "error", step, traceback=user_traceback(error)))
        self.safety.note_failure("executor", step, describe(error))

    def _count_flops(self, batch: Batch) -> float:
        try:
            return float(count_step_flops(self._model, self._loss_of, *batch).total)
        except FlopCountError as error:
            text = f"the FLOPs of a step cannot be counted ({error}); give Task.step_flops"
            self._report(notice(self._clock, "flops.unknown", text, "warning", 0))
            return 0.0

    def _loss_of(self, model: Any, inputs: Any, targets: Any) -> torch.Tensor:
        with self._precision.autocast():
            return self.task.loss_fn(model(inputs), targets)

    def _forward(self, inputs: Any) -> torch.Tensor:
        with self._precision.autocast():
            output: torch.Tensor = self._model(inputs)
            return output

    def _sample_inputs(self) -> Batch:
        batch = self._feed.peek() if self._batch is None else self._batch
        sample: Batch = losses.select(batch, 0, _DRY_RUN_UNITS)
        return sample

    def _host(self, device: torch.device) -> Host:
        return Host(
            model=self._model,
            device=device,
            forward=self._forward,
            loss=self.task.loss_fn,
            unit_losses=self._unit_losses,
            probe_batches=self._probe_set.draw,
            sample_inputs=self._sample_inputs,
            step_flops=lambda: self._progress.host_step_flops,
        )

    def _unix_ns(self) -> int:
        return int(self._clock() * 1e9)
