"""Every metric by name, with its unit: the one list that telemetry, exporters and docs read.

Any thread. Names are `<part>.<what>_<unit>`; the label of a sample is a slot number (index of the site, from 1), or 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Sample = tuple[str, int, int, float, int]
"""(metric name, slot number or 0, global step, value, unix time in ns): what the training thread emits."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what its numbers mean."""

    name: str
    unit: str
    """UCUM-like unit; `1` for a pure number."""
    description: str


TIMELINE = "tolaria.timeline.number"
"""The first sample of each log step, and the first one after a rollback: what follows it lies on this timeline."""

_METRICS = (
    Metric(TIMELINE, "1", "the branch of the run's history, from 1; a rollback opens a new one"),
    Metric("tolaria.step.loss", "1", "training loss of a logged step"),
    Metric("tolaria.step.time_ms", "ms", "median step time since the last log step"),
    Metric("tolaria.step.samples_per_s", "1/s", "training throughput"),
    Metric("tolaria.step.learning_rate", "1", "the host's learning rate"),
    Metric(
        "tolaria.step.gradient_norm",
        "1",
        "L2 norm of the host's gradient before clipping, when it is clipped",
    ),
    Metric("tolaria.validation.loss", "1", "loss on the validation split"),
    Metric("tolaria.validation.accuracy", "1", "accuracy on the validation split, if the task reports it"),
    Metric("tolaria.epoch.number", "1", "epochs finished"),
    Metric("tolaria.emergency.level", "1", "0 all clear, 1 notice to 4 halt"),
    Metric("tolaria.safe_point.time_us", "us", "median time of a safe point since the last log step"),
    Metric("kasmina.seed.alpha", "1", "alpha of the seed at the slot"),
    Metric("kasmina.seed.stage", "1", "stage number of the seed at the slot"),
    Metric("kasmina.seed.loss", "1", "the seed's own training loss"),
    Metric("kasmina.seed.gradient_norm", "1", "L2 norm of the seed's gradient"),
    Metric("kasmina.seed.output_ratio", "1", "rms of the seed's delta over rms of the activation"),
    Metric("kasmina.probe.gain", "1", "mean paired loss difference of the last probe, positive: the seed helps"),
    Metric("kasmina.kernel.fetch_ms", "ms", "time to copy, prove and open a kernel"),
    Metric("kasmina.prewarm.latency_ms", "ms", "time of an opened kernel's first forward and backward"),
    Metric("kasmina.kernel.num_open", "1", "kernels in memory"),
    Metric("kasmina.kernel.open_bytes", "By", "memory of the kernels that are open"),
    Metric("kasmina.isolation.violations", "1", "isolation violations of the seed at the slot"),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
