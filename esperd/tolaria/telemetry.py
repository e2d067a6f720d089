"""The numbers that the trainer sends up at log steps.

Training thread only; between log steps the trainer only appends two floats a step.
"""

from statistics import median

from esperd.bridge.bridge import Bridge
from esperd.leyline.metrics import TIMELINE
from esperd.leyline.views import SeedView, Snapshot


class StepTelemetry:
    """Collects step times and the last loss, and emits them with the snapshot of a log step."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.steps_s: list[float] = []
        """Step times since the last log step; the trainer appends."""
        self.safe_points_s: list[float] = []
        """The safe points' part of each."""
        self.loss = float("nan")
        """The newest loss that is known."""

    def step_s(self) -> float:
        """Median step time since the last log step; 0 when there was none."""
        return median(self.steps_s) if self.steps_s else 0.0

    def emit_step(self, snapshot: Snapshot, gradient_norm: float | None, unix_ns: int) -> None:
        """Send the samples of a log step and forget its times."""
        run = snapshot.run
        samples = {
            TIMELINE: float(run.timeline),
            "tolaria.step.loss": run.train_loss,
            "tolaria.step.time_ms": run.step_ms,
            "tolaria.step.samples_per_s": run.samples_per_s,
            "tolaria.step.learning_rate": run.learning_rate,
            "tolaria.safe_point.time_us": median(self.safe_points_s) * 1e6 if self.safe_points_s else 0.0,
            "tolaria.emergency.level": float(run.emergency_level),
        }
        if gradient_norm is not None:
            samples["tolaria.step.gradient_norm"] = gradient_norm
        self._emit(samples, 0, run.global_step, unix_ns)
        slots = {site.site: index for index, site in enumerate(snapshot.sites, start=1)}
        for seed in snapshot.seeds:
            self._emit(_seed_samples(seed), slots.get(seed.site, 0), run.global_step, unix_ns)
        self.steps_s.clear()
        self.safe_points_s.clear()

    def emit_timeline(self, timeline: int, step: int, unix_ns: int) -> None:
        """Say on which timeline what follows lies, right after a rollback."""
        self._emit({TIMELINE: float(timeline)}, 0, step, unix_ns)

    def emit_validation(self, snapshot: Snapshot, unix_ns: int) -> None:
        """Send what the validation found."""
        run = snapshot.run
        samples = {"tolaria.validation.loss": run.val_loss, "tolaria.epoch.number": float(run.epoch)}
        if "accuracy" in run.metrics:
            samples["tolaria.validation.accuracy"] = run.metrics["accuracy"]
        self._emit(samples, 0, run.global_step, unix_ns)

    def _emit(self, samples: dict[str, float], slot: int, step: int, unix_ns: int) -> None:
        emit = self._bridge.ring.emit
        for name, value in samples.items():
            emit((name, slot, step, value, unix_ns))


def _seed_samples(seed: SeedView) -> dict[str, float]:
    samples = {
        "kasmina.seed.alpha": seed.alpha,
        "kasmina.seed.stage": float(seed.stage),
        "kasmina.seed.loss": seed.seed_loss,
        "kasmina.seed.gradient_norm": seed.gradient_norm,
        "kasmina.seed.output_ratio": seed.output_ratio,
        "kasmina.isolation.violations": float(seed.num_isolation_violations),
    }
    if seed.contributions:
        samples["kasmina.probe.gain"] = seed.contributions[-1].mean
    return samples
