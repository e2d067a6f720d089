"""The trainer: the loop that trains the host, and the safe point from which everything else hangs.

Runs in the training thread and owns torch there; never touches asyncio. It knows the task, the optimizers, the seed
executor, the run's checkpoints and its end of the bridge, and nothing of gRPC or keys.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.kasmina.blueprints.registry import BlueprintRegistry
from esperd.kasmina.kernels.opening import Trust
from esperd.kasmina.ports import Batch, StepAdvice
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.views import Snapshot
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.past import ReadPast
from esperd.tolaria import held_out, resuming
from esperd.tolaria.dispatch import Dispatcher
from esperd.tolaria.emergency import PolicyChanged
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.loss_reader import LossReader
from esperd.tolaria.memory import MemoryRelief
from esperd.tolaria.orders import Orders
from esperd.tolaria.parts import Parts
from esperd.tolaria.precision import untouched_rng
from esperd.tolaria.rollback import Rollback
from esperd.tolaria.safe_point import SafePoint
from esperd.tolaria.task import Task, describe, user_traceback
from esperd.tolaria.troubles import Troubles


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
        store: CheckpointStore | None = None,
        read_past: ReadPast | None = None,
        keeps_unsettled: bool = False,
        kernel_trust: Trust | None = None,
    ) -> None:
        """Set up a run.

        Args:
            task: what is trained.
            settings: the configuration.
            bridge: the training side of it.
            run_id: kept from start to start.
            task_name: for messages.
            clock: Unix seconds.
            monotonic: seconds that never go back.
            registry: blueprints; None takes the standard ones.
            store: where checkpoints are; None keeps states in memory only.
            read_past: reads the journal behind a checkpoint, when the run began in an earlier start; None begins it.
            keeps_unsettled: when the daemon leaves, commands that wait stay accepted: its next start carries them out.
            kernel_trust: judges kernels; without it every seed runs its eager module.
        """
        self.parts = parts = Parts(
            task, settings, bridge, run_id=run_id, task_name=task_name, clock=clock, registry=registry,
            kernel_trust=kernel_trust, monotonic=monotonic,
        )  # fmt: skip
        self.task, self.optimizers, self.executor, self.safety = task, parts.optimizers, parts.executor, parts.safety
        self._bridge, self._settings, self._monotonic = bridge, settings, monotonic
        self._store, self._read_past, self._keeps_unsettled = store, read_past, keeps_unsettled
        self._keeper = Keeper(parts, store, lambda: self.dispatcher.mark(), lambda *done: self.dispatcher.finish(*done))
        self._rollback = Rollback(parts, self._keeper, lambda *done: self.dispatcher.finish(*done), monotonic)
        self._troubles = Troubles(parts, self._keeper)
        self.dispatcher = Dispatcher(
            bridge,
            parts.publisher,
            Orders(parts, self._keeper, self._rollback).apply,
            lambda: self._rollback.is_under_way,
            self._troubles,
            clock,
        )
        has_scaler = parts.precision.new_scaler is not None
        is_exact = settings.training.deterministic
        self.loss_reader = LossReader(parts.device, task.optimizer, has_scaler=has_scaler, is_exact=is_exact)
        self.safe_point = SafePoint(
            parts, self.dispatcher, self._keeper, self._rollback, self._troubles, self.loss_reader
        )
        self._relief = self._make_relief()
        # Read at every step, so kept at hand.
        self._model, self._feed, self._progress = parts.model, parts.feed, parts.progress
        self._has_autocast = parts.precision.dtype is not None

    # The run

    def run(self) -> None:
        """Train until the number of steps is reached, a stop is asked for, or the task fails; then close the box."""
        if self._settings.run.num_threads > 0:
            torch.set_num_threads(self._settings.run.num_threads)  # holds for the calling thread only
        try:
            self.parts.kernels.start()
            self.prepare()
            while not self.safe_point.is_over:
                self.step()
            self._finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the task's code: what it raises ends the run, not the daemon
            self._fail(error)
        finally:
            self.parts.kernels.close()
            self._keeper.close()
            is_left_behind = self._keeps_unsettled and self._bridge.stop_requested
            if not is_left_behind:
                refusal = EsperdError("TRAINER_NOT_RUNNING", phase=self._progress.phase.name)
                self._rollback.refuse_rest(refusal)
                self._keeper.refuse_rest(refusal)
            self._bridge.close(self._progress.phase.name, self.dispatcher.take_waiting(), keep_unsettled=is_left_behind)

    def step(self) -> None:
        """One optimizer step and its safe point."""
        started_s = time.perf_counter()
        step, executor = self._progress.global_step + 1, self.executor  # counted as it will be when it is done
        batch = self.parts.batch = self._feed.next_batch()
        is_growing = executor.active
        learned = self._relief.run(lambda: self._learn(step, batch, executor.active), step)
        if learned is not None:  # else it did not fit into memory, and is left out
            self._update_host(*learned)
        self._progress.global_step = step
        self._progress.flops += self._progress.host_step_flops
        epoch_ended = self._feed.advance()
        safe_point_s = time.perf_counter()
        # The executor's own work: gates, probes, culls, embargoes.
        if executor.after_step(step) if is_growing else executor.tick_idle(step):
            self.optimizers.check_ownership(executor.grown_parameters())
            self.parts.note_change(True)
        ended_s = time.perf_counter()
        self._note_times(ended_s - started_s, ended_s - safe_point_s, is_growing)
        self.safe_point.pass_through(epoch_ended)

    # Parts of a step

    def _learn(self, step: int, batch: Batch, is_growing: bool) -> tuple[torch.Tensor, StepAdvice]:
        """Forward, loss and backward of the host, and the seeds' own work: the part that may be done again."""
        if not is_growing:
            return self._forward_backward(batch), StepAdvice.STEP
        self.executor.before_step(step)
        loss = self._forward_backward(batch)
        return loss, self.executor.after_backward(step, batch, loss.detach())

    def _forward_backward(self, batch: Batch) -> torch.Tensor:
        inputs, targets = batch
        if self._has_autocast:
            loss = self.parts.loss_of(self._model, inputs, targets)
        else:
            loss = self.task.loss_fn(self._model(inputs), targets)
        self.optimizers.backward_host(loss)
        return loss

    def _update_host(self, loss: torch.Tensor, advice: StepAdvice) -> None:
        """Step the host, unless its loss is not finite or the guard advises against it."""
        is_finite = True
        if self.loss_reader.is_immediate:
            anomaly = self._troubles.see_loss(loss.item())
            is_finite = anomaly is None or anomaly.non_finite_in_row == 0
        else:
            for value in self.loss_reader.read_late(loss.detach()):
                self._troubles.see_loss(value)
        if is_finite and advice is StepAdvice.STEP:
            self.optimizers.step_host()
        else:
            self.optimizers.skip_host()

    def _note_times(self, step_s: float, safe_point_s: float, is_growing: bool) -> None:
        parts = self.parts
        self._bridge.beat(step_s)
        parts.telemetry.steps_s.append(step_s)
        parts.telemetry.safe_points_s.append(safe_point_s)
        if parts.step_window.note(step_s, is_quiet=not is_growing):
            measured = parts.step_window.close(is_loss_sound=self._troubles.is_loss_sound)
            self._troubles.is_loss_sound = True
            self._progress.baseline_step_ms = parts.step_window.baseline_s * 1e3
            parts.note_change(self.safety.handle(measured, self._progress.global_step))

    # Beginning and end

    def prepare(self) -> None:
        """Begin the run, or go on where an earlier start ended; wait for what must be there before the first step."""
        parts = self.parts
        if self._read_past is None:
            self._begin()
        else:
            resuming.resume(parts, self._store, self._keeper, self.dispatcher, self.safe_point, self._read_past)
            failpoint("resume.restored")
        for text in parts.feed.take_warnings():
            parts.note("data.inexact", text, "warning")
        self.safe_point.begin()
        if self._read_past is None:
            self._wait_for_policy()
        self.safe_point.stand_still()  # if anything holds it

    def _begin(self) -> None:
        parts = self.parts
        parts.count_flops()
        if self.task.facts:
            text = ", ".join(f"{name} {value}" for name, value in self.task.facts.items())
            parts.note("task.facts", text, "info", **self.task.facts)
        if self._settings.policy.required:
            self.safety.handle(PolicyChanged(False, "none has come yet"), 0)
        parts.note_change(True)

    def _wait_for_policy(self) -> None:
        patience_s = self._settings.run.wait_for_policy_s
        deadline_s = self._monotonic() + patience_s
        standing = self.parts.standing
        while not (standing.is_policy_present or self.safe_point.is_over) and self._monotonic() < deadline_s:
            self.safe_point.wait_for_mail()
        if patience_s and not (standing.is_policy_present or self.safe_point.is_over):
            text = f"no policy came in {patience_s:g} s, the run begins without one"
            self.parts.note("policy.missed", text, "warning")

    def _finish(self) -> None:
        """Final validation, last packet, last state; nothing but the state when the daemon itself is leaving."""
        parts = self.parts
        failpoint("drain.before_final_checkpoint")
        if self._bridge.stop_requested:
            self.safe_point.set_phase(TrainerPhase.STOPPING)
            self._keeper.write_final()
            return
        if parts.standing.is_stopping:
            self.safe_point.set_phase(TrainerPhase.STOPPING)
        if self._progress.global_step > 0:
            self.safe_point.log()
        self.safe_point.validate()
        self._keeper.write_final()
        self._progress.phase = TrainerPhase.FINISHED
        parts.publisher.bump()
        self.safe_point.send_packet("run_finished")

    def _fail(self, error: BaseException) -> None:
        """Say what went wrong, with the user's own frames first, and leave the last state as it is."""
        self._progress.failure = describe(error)
        self.parts.note("run.failed", describe(error), "critical", traceback=user_traceback(error))
        self.safe_point.set_phase(TrainerPhase.FAILED)

    def _make_relief(self) -> MemoryRelief:
        parts = self.parts
        return MemoryRelief(
            parts.executor,
            parts.safety,
            parts.device,
            clear_gradients=parts.optimizers.clear_gradients,
            keep_summary=parts.keep_summary,
            report=parts.report,
            clock=parts.clock,
        )

    # For a look at the task (esperd.tolaria.check)

    def last_step(self) -> tuple[Any, Any, Any]:
        """Inputs and targets of the last step's batch, and the output for them in eval mode."""
        parts = self.parts
        inputs, targets = parts.feed.peek() if parts.batch is None else parts.batch
        with untouched_rng(), held_out.evaluating(parts.model), torch.inference_mode():
            return inputs, targets, parts.forward(inputs)

    def publish(self) -> Snapshot:
        """Publish the state as it is now."""
        self.parts.publisher.bump()
        return self.parts.publisher.publish()

    @property
    def last_loss(self) -> float:
        """The newest loss that is known."""
        return self.parts.telemetry.loss

    @property
    def amp(self) -> str:
        """The number format of the forward pass under autocast, or `off`."""
        dtype = self.parts.precision.dtype
        return "off" if dtype is None else str(dtype).removeprefix("torch.")
