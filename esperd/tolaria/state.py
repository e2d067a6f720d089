"""What the outside may see of the run: the numbers of the moment, and the snapshots made from them.

Training thread only. A change that a watcher must see gives a new revision; progress (losses, rates, times) is swapped
in under the same one, and is cheap: what only changes with the structure is kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from esperd.bridge.bridge import Bridge
from esperd.kasmina.executor import SeedExecutor
from esperd.leyline.views import (
    CheckpointEvent,
    NoticeEvent,
    OptimizerGroupView,
    RestorePoint,
    RunView,
    SeedView,
    SiteView,
    Snapshot,
    TimelineEvent,
    TimelineView,
    TransitionEvent,
)
from esperd.leyline.vocabulary import TrainerPhase
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.safety import Safety
from esperd.tolaria.schedules import RatePhase

RunEvent = TransitionEvent | NoticeEvent | CheckpointEvent | TimelineEvent
"""What the trainer tells the journal."""


@dataclass(slots=True)
class Progress:
    """The run's numbers, written by the trainer as it goes."""

    run_id: str
    task: str
    num_steps_total: int
    device: str
    started_unix_s: float
    num_host_parameters: int
    phase: TrainerPhase = TrainerPhase.STARTING
    global_step: int = 0
    """Optimizer steps done (a skipped one counts)."""
    epoch: int = 0
    train_loss: float = math.nan
    val_loss: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples_per_s: float = 0.0
    step_ms: float = 0.0
    baseline_step_ms: float = 0.0
    flops: float = 0.0
    """FLOPs of the host's steps (with what is fossilized in it) and of routine probes so far."""
    host_step_flops: float = 0.0
    failure: str = ""
    timeline: int = 1
    resumed_from: str = ""
    """The checkpoint from which this start went on."""
    catch_up_step: int = 0
    is_repeating: bool = False
    """What an earlier start did is done again: its commands take effect whatever has changed around the run."""

    @property
    def position(self) -> tuple[int, int]:
        """(timeline, global step)."""
        return self.timeline, self.global_step


class Publisher:
    """Builds snapshots and swaps them into the bridge."""

    def __init__(
        self,
        bridge: Bridge,
        progress: Progress,
        executor: SeedExecutor,
        optimizers: Optimizers,
        safety: Safety,
        rate_phase: RatePhase,
    ) -> None:
        self._bridge = bridge
        self._progress = progress
        self._executor = executor
        self._optimizers = optimizers
        self._safety = safety
        self._rate_phase = rate_phase
        self.revision = bridge.snapshot().revision
        self._published_revision = self.revision
        self._seeds: tuple[SeedView, ...] = ()
        self._sites: tuple[SiteView, ...] = ()
        self._groups: tuple[OptimizerGroupView, ...] = ()
        self._num_grown = 0
        self.restore_points: tuple[RestorePoint, ...] = ()
        """States to which the run can go back; written by the keeper."""
        self.timelines: tuple[TimelineView, ...] = (TimelineView(1, 0, 0),)
        """Every branch of the run's history, the current one last."""
        self.is_known: Callable[[RunEvent], bool] | None = None
        """While an earlier start's work is done again: whether the journal holds an event already."""

    @property
    def is_halted(self) -> bool:
        """Whether training must stand still until somebody clears an emergency."""
        return self._safety.is_halted

    @property
    def timeline(self) -> int:
        """The current timeline."""
        return self._progress.timeline

    @property
    def position(self) -> tuple[int, int]:
        """(timeline, global step) now."""
        return self._progress.position

    def open_timeline(self, timelines: tuple[TimelineView, ...]) -> None:
        """Go on on the last of `timelines`."""
        self.timelines = timelines
        self._progress.timeline = timelines[-1].timeline

    def bump(self) -> int:
        """Note a change that watchers must see; it is published by the next `publish`."""
        self.revision += 1
        return self.revision

    def publish(self) -> Snapshot:
        """Swap in the present state: whole after a change, else only what moves from step to step."""
        changed = self.revision != self._published_revision
        if changed or self._executor.active:
            self._seeds = self._executor.seeds()
        if changed:
            self._sites = self._executor.sites()
            self._groups = self._optimizers.views()
            self._num_grown = sum(p.numel() for p in self._executor.grown_parameters())
        snapshot = Snapshot(
            self.revision,
            self._run_view(),
            self._seeds,
            self._sites,
            self._groups,
            tuple(self._safety.state.emergencies.values()),
            self._safety.breaker_views,
            self.restore_points,
            self.timelines,
        )
        self._published_revision = self.revision
        self._bridge.publish(snapshot)
        return snapshot

    def report(self, event: TransitionEvent | NoticeEvent) -> None:
        """Record an event under the revision at which its effect becomes visible, on the current timeline."""
        self.record(replace(event, revision=self.revision + 1, timeline=self.timeline))

    def record(self, event: RunEvent) -> None:
        """Record an event as it is, unless the journal has it from an earlier start."""
        if self.is_known is None or not self.is_known(event):
            self._bridge.record(event)

    def _run_view(self) -> RunView:
        progress = self._progress
        self._rate_phase.look(progress.global_step)
        return RunView(
            run_id=progress.run_id,
            task=progress.task,
            phase=progress.phase,
            global_step=progress.global_step,
            epoch=progress.epoch,
            num_steps_total=progress.num_steps_total,
            train_loss=progress.train_loss,
            val_loss=progress.val_loss,
            metrics=progress.metrics,
            learning_rate=self._optimizers.host_learning_rate,
            lr_phase=self._rate_phase.name,
            samples_per_s=progress.samples_per_s,
            step_ms=progress.step_ms,
            baseline_step_ms=progress.baseline_step_ms,
            num_host_parameters=progress.num_host_parameters,
            num_grown_parameters=self._num_grown,
            train_flops=progress.flops + self._executor.extra_flops,
            host_step_flops=progress.host_step_flops,
            device=progress.device,
            emergency_level=self._safety.level,
            started_unix_s=progress.started_unix_s,
            failure=progress.failure,
            timeline=progress.timeline,
            resumed_from=progress.resumed_from,
            catch_up_step=progress.catch_up_step,
        )


def notice(
    clock: Callable[[], float], kind: str, message: str, level: str, step: int, **attributes: str
) -> NoticeEvent:
    """A notice of the trainer; its revision is filled in when it is recorded."""
    return NoticeEvent(kind, message, level, step, 0, clock(), attributes)
