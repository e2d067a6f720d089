"""What one run is made of: the model, who trains it, where its data come from, and the numbers that it keeps.

Training thread only. Builds the parts and knows how they hang together; what happens to them in a step, at a safe
point, in a checkpoint or a rollback is written elsewhere.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.kasmina.blueprints.costs import FlopCountError, count_step_flops
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import Trust, open_kernel
from esperd.kasmina.kernels.stock import KernelStock
from esperd.kasmina.ports import Batch, Host
from esperd.leyline.views import NoticeEvent, TransitionEvent
from esperd.tolaria import losses
from esperd.tolaria.budgets import LossWindow, StepWindow
from esperd.tolaria.feed import DeviceCopier, Feed
from esperd.tolaria.goodness import Goodness, parameters_are_finite
from esperd.tolaria.held_out import ProbeSet
from esperd.tolaria.kernels import RunKernels
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.packets import PacketProbe
from esperd.tolaria.precision import Precision, resolve_device
from esperd.tolaria.recovery import Recovery, RecoveryRule
from esperd.tolaria.safety import Safety
from esperd.tolaria.schedules import RatePhase
from esperd.tolaria.standing import Standing
from esperd.tolaria.state import Progress, Publisher, notice
from esperd.tolaria.task import Task
from esperd.tolaria.telemetry import StepTelemetry

_COUNTED_NOTICES = {"isolation.violated": "isolation", "kernel.failed": "kernel"}
"""Notices of the executor that a breaker counts."""

DRY_RUN_UNITS = 8
"""Units of the last batch that dry runs are made on."""


class Parts:
    """Everything of one run; built once, before its first step."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        bridge: Bridge,
        *,
        run_id: str,
        task_name: str,
        clock: Callable[[], float],
        registry: BlueprintRegistry | None,
        kernel_trust: Trust | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the parts; without `kernel_trust` there are no kernels.

        Raises EsperdError DEVICE_UNAVAILABLE, TASK_INVALID or SITE_PATTERN.
        """
        self.task, self.settings, self.bridge, self.clock = task, settings, bridge, clock
        training = settings.training
        self.device = resolve_device(training.device)
        self.model = task.model.to(self.device)
        if training.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's
        self.precision = Precision(training.amp, self.device)
        self.copier = DeviceCopier(self.device, prefetch=training.prefetch, channels_last=training.channels_last)
        self.feed = Feed(task.train_data, self.copier, task_name)
        held_out_data = task.eval_data if task.probe_data is None else task.probe_data
        self.probe_set = ProbeSet(held_out_data, self.copier, settings.run.random_seed, task_name)
        self.unit_losses = losses.unit_losses(task)
        self.optimizers = Optimizers(
            task.optimizer,
            task.scheduler,
            settings.growth,
            clip_grad_norm=training.clip_grad_norm,
            new_scaler=self.precision.new_scaler,
        )
        num_parameters = sum(p.numel() for p in self.model.parameters())
        steps, device = settings.run.num_steps, str(self.device)
        started_unix_s = bridge.snapshot().run.started_unix_s or clock()
        self.progress = Progress(run_id, task_name, steps, device, started_unix_s, num_parameters)
        self.batch: Batch | None = None
        """The batch of the last step; None before the first."""
        self._restored: tuple[Batch | None, int] = (None, 1)
        self.bare_step_flops = 0.0
        """FLOPs of one step of the host as the task gave it."""
        stock = self._kernel_stock(kernel_trust, monotonic)
        self._build_growth(registry, stock)
        self.kernels = RunKernels(self, stock)
        self._build_numbers()

    def _kernel_stock(self, trust: Trust | None, monotonic: Callable[[], float]) -> KernelStock | None:
        settings, bridge = self.settings, self.bridge
        if trust is None or not settings.kernels.enabled:
            return None
        return KernelStock(
            settings.kernels,
            bridge.kernel_orders,
            partial(open_kernel, trust=trust, machine=this_machine(self.device), device=self.device),
            Path(settings.run.directory) / "kernels" / "local",
            self.device,
            bridge.record,
            monotonic,
        )

    def _build_growth(self, registry: BlueprintRegistry | None, stock: KernelStock | None) -> None:
        settings = self.settings
        self.executor = SeedExecutor(
            host=self._host(),
            site_patterns=settings.growth.sites,
            settings=settings.growth,
            registry=standard_registry() if registry is None else registry,
            optimizers=self.optimizers,
            report=self.report,
            clock=self.clock,
            random_seed=settings.run.random_seed,
            is_clock_trusted=not settings.training.deterministic,
            kernels=stock,
        )
        self.safety = Safety(settings.budgets, self.executor, self.report, self.clock)
        self.rate_phase = RatePhase(self.task.optimizer, self.task.scheduler)
        self.publisher = Publisher(
            self.bridge, self.progress, self.executor, self.optimizers, self.safety, self.rate_phase
        )

    def _build_numbers(self) -> None:
        settings = self.settings
        self.standing = Standing(is_paused=settings.run.start_paused)
        self.loss_window = LossWindow(settings.budgets.anomaly_window)
        self.step_window = StepWindow(settings.budgets, settings.growth.max_step_time_ratio)
        self.telemetry = StepTelemetry(self.bridge)
        self.packet_probe = PacketProbe(settings.growth, settings.policy.packet_every_steps)
        self.recovery = Recovery(RecoveryRule(settings.budgets.max_rollbacks, settings.budgets.anomaly_window))
        self.goodness = Goodness(settings.checkpoints.good_after_steps)

    # The model in use

    def forward(self, inputs: Any) -> torch.Tensor:
        """Inputs to output under the run's autocast."""
        with self.precision.autocast():
            output: torch.Tensor = self.model(inputs)
            return output

    def loss_of(self, model: nn.Module, inputs: Any, targets: Any) -> torch.Tensor:
        """The scalar training loss of a batch under the run's autocast."""
        with self.precision.autocast():
            return self.task.loss_fn(model(inputs), targets)

    def batch_units(self) -> int:
        """Samples in the batch of the last step."""
        restored, num_units = self._restored
        return num_units if self.batch is restored is not None else losses.num_units(self.batch)

    def restore_batch(self, sample: Batch | None, num_units: int) -> None:
        """Stand in for the last batch of an earlier start: its first units, and how many it had."""
        self.batch = sample
        self._restored = (sample, num_units)

    def sample_inputs(self) -> Batch:
        """A few units of the last batch, for dry runs."""
        batch = self.feed.peek() if self.batch is None else self.batch
        sample: Batch = losses.select(batch, 0, DRY_RUN_UNITS)
        return sample

    def count_flops(self) -> None:
        """Count the operations of the host's step on the first batch, unless the task states them."""
        self.bare_step_flops = self.task.step_flops or self._count_flops(self.feed.peek())

    def weights_are_finite(self) -> bool:
        """Whether everything in the host and in its fossils is finite."""
        return parameters_are_finite([*self.model.parameters(), *self.executor.grown_parameters()])

    # What is told

    def report(self, event: TransitionEvent | NoticeEvent) -> None:
        """An event of any part, on its way up."""
        self.publisher.report(event)
        if isinstance(event, NoticeEvent) and (breaker := _COUNTED_NOTICES.get(event.kind)):
            self.safety.note_failure(breaker, self.progress.global_step, event.message)

    def note(self, kind: str, message: str, level: str, **attributes: str) -> None:
        """A notice of the trainer's own."""
        self.report(notice(self.clock, kind, message, level, self.progress.global_step, **attributes))

    def note_change(self, changed: bool) -> None:
        """Something that watchers must see has changed: a new revision, published at once."""
        if changed:
            self._note_host_step()
            self.publisher.bump()
            self.publisher.publish()

    def keep_summary(self, step: int, text: str) -> str:
        """Keep what the device's allocator says in the run's directory; returns where, empty when it cannot be kept."""
        path = Path(self.settings.run.directory) / f"out-of-memory-{step}.txt"
        try:
            path.write_text(text)
        except OSError as error:
            self.note("memory.summary_lost", f"{path} could not be written: {error}", "warning")
            return ""
        return str(path)

    def unix_ns(self) -> int:
        """Now, for telemetry."""
        return int(self.clock() * 1e9)

    def _note_host_step(self) -> None:
        """What is fossilized belongs to the host's step: its operations, and a new baseline of its time."""
        step_flops = self.bare_step_flops + self.executor.fossil_flops_per_unit * self.batch_units()
        if step_flops != self.progress.host_step_flops:
            self.progress.host_step_flops = step_flops
            self.step_window.forget_baseline()

    def _count_flops(self, batch: Batch) -> float:
        try:
            return float(count_step_flops(self.model, self.loss_of, *batch).total)
        except FlopCountError as error:
            text = f"the FLOPs of a step cannot be counted ({error}); give Task.step_flops"
            self.note("flops.unknown", text, "warning")
            return 0.0

    def _host(self) -> Host:
        return Host(
            model=self.model,
            device=self.device,
            forward=self.forward,
            loss=self.task.loss_fn,
            unit_losses=self.unit_losses,
            probe_batches=self.probe_set.draw,
            sample_inputs=self.sample_inputs,
            step_flops=lambda: self.progress.host_step_flops,
            batch_units=lambda: losses.num_units(self.feed.peek()) if self.batch is None else self.batch_units(),
            global_step=lambda: self.progress.global_step,
        )
