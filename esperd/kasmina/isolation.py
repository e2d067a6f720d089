"""Proof that the host feels nothing of a seed but its blended output: ownership, a watch, and a differential probe.

Training thread only. The isolation itself is structural (detached inputs, separate graphs); this module verifies it.
Nothing here raises into a step: what it finds is counted, and the executor culls (design 03, Isolation).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esperd.kasmina.ports import Batch, Host, SeedOptimizers
from esperd.kasmina.seed import Seed
from esperd.kasmina.site import quiet_eval
from esperd.kasmina.slot import Slot
from esperd.kasmina.streams import Purpose, private_rng, stream_seed

NUM_PROBE_UNITS = 8
"""Units in the micro-batch of the differential probe."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The host's parameters and gradients at one moment, as counts and one number on the device."""

    versions: int
    """Sum of autograd's version counters: any write in place moves it."""
    num_gradients: int
    projection: Tensor | None
    """A random projection of the gradients' norms: catches what the counters cannot."""


class HostWatch:
    """Compares the host before and after the seeds' own work of a step, without a device read."""

    def __init__(self, model: nn.Module, random_seed: int) -> None:
        self._parameters = list(model.parameters())
        generator = torch.Generator().manual_seed(stream_seed(random_seed, Purpose.DRY_RUN))
        weights = torch.rand(max(1, len(self._parameters)), generator=generator) + 0.5
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self._weights = weights.to(device)

    def tally(self) -> Tally:
        """Take the numbers now: one fused pass over the gradients."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        versions = sum(p._version for p in self._parameters) + sum(g._version for g in gradients)
        projection = None
        if gradients:
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])
            projection = torch.dot(norms, self._weights[: len(gradients)])
        return Tally(versions, len(gradients), projection)

    @staticmethod
    def difference(before: Tally, after: Tally) -> Tensor | None:
        """How far the projection moved, on the device; None if there is no gradient. NaN is no movement."""
        if before.projection is None or after.projection is None:
            return None
        return torch.nan_to_num((after.projection - before.projection).abs(), nan=0.0)

    @staticmethod
    def was_touched(before: Tally, after: Tally) -> bool:
        """Whether the counters moved."""
        return before.versions != after.versions or before.num_gradients != after.num_gradients


def owns_exactly(optimizers: SeedOptimizers, seed: Seed, host_parameters: Iterable[nn.Parameter]) -> str:
    """Empty if the seed's optimizer owns exactly the seed's parameters and none of the host's, else what is wrong."""
    owned = {id(parameter) for parameter in optimizers.owned_by(seed.seed_id)}
    wanted = {id(parameter) for parameter in seed.parameters}
    if owned & {id(parameter) for parameter in host_parameters}:
        return "its optimizer owns parameters of the host"
    if owned != wanted:
        return f"its optimizer owns {len(owned)} tensors, the seed has {len(wanted)}"
    return ""


def micro_batch(batch: Batch) -> Batch:
    """The first units of a batch of tensors; any other batch whole."""
    inputs, targets = batch
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor):
        return inputs[:NUM_PROBE_UNITS], targets[:NUM_PROBE_UNITS]
    return batch


def differential_probe(host: Host, slots: Sequence[Slot], slot: Slot, seed: Seed, batch: Batch) -> tuple[bool, str]:
    """Whether the host's gradients are the same with the seed's branch and without it, on one micro-batch.

    While the seed is a candidate the comparison is with an untouched host; once it is grafted, with the same blended
    forward in which its delta is a constant. Exact where the arithmetic repeats exactly; where the host does not
    even agree with itself (some CUDA kernels), its own spread is the tolerance.
    """
    if seed.joint:
        return True, "joint: the host adapts to the seed by choice"
    with_branch = _host_gradients(host, slots, slot, seed, batch, branch=True)
    without = _host_gradients(host, slots, slot, seed, batch, branch=False)
    gap = _largest_gap(with_branch, without)
    if gap == 0.0:
        return True, "bit-equal"
    spread = _largest_gap(without, _host_gradients(host, slots, slot, seed, batch, branch=False))
    return gap <= 4.0 * spread, f"largest difference {gap:.3g}, the host's own {spread:.3g}"


def _host_gradients(
    host: Host, slots: Sequence[Slot], slot: Slot, seed: Seed, batch: Batch, *, branch: bool
) -> list[Tensor | None]:
    parameters = [p for p in host.model.parameters() if p.requires_grad]
    stream = stream_seed(slot.random_seed, seed.seed_id, slot.step, Purpose.DRY_RUN)
    slot.reseed(seed)
    kept = slot.watches, slot.passes
    slot.watches, slot.passes = [], []
    for other in slots:
        other.armed = False
    slot.armed = branch
    inputs, targets = micro_batch(batch)
    try:
        with quiet_eval(host.model), private_rng(host.device, stream), torch.enable_grad():
            loss = host.loss(host.forward(inputs), targets)
            return list(torch.autograd.grad(loss, parameters, allow_unused=True))
    finally:
        slot.armed = False
        slot.watches, slot.passes = kept


def _largest_gap(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    gap = 0.0
    for a, b in zip(one, other, strict=True):
        if (a is None) != (b is None):
            return float("inf")
        if a is not None and b is not None and not torch.equal(a, b):
            difference = (a - b).abs().max()
            gap = max(gap, float(torch.nan_to_num(difference, nan=float("inf"))))
    return gap


def reaches_host(loss: Tensor, parameters: Sequence[nn.Parameter]) -> int:
    """How many parameters of the host a seed's own loss depends on; the graph is kept."""
    found = torch.autograd.grad(loss, [p for p in parameters if p.requires_grad], allow_unused=True, retain_graph=True)
    return sum(gradient is not None for gradient in found)
