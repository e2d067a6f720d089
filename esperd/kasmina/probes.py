"""Paired measurements on held-out data: the same batch with the seed and without it, and nothing else different.

Training thread, outside the training autocast region. Evaluation mode with every module's flag given back, no
gradients, a random stream of its own. `torch.no_grad` instead of inference mode: a host that caches a tensor on first
use would otherwise keep an inference tensor, and its next backward would fail.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from esperd.kasmina.blending import residual
from esperd.kasmina.ports import Batch, Host
from esperd.kasmina.seed import Seed
from esperd.kasmina.site import num_units, quiet_eval
from esperd.kasmina.slot import Slot
from esperd.kasmina.streams import Purpose, private_rng, stream_seed
from esperd.kasmina.training_modes import overriding
from esperd.leyline.vocabulary import BlendMode


@dataclass(frozen=True, slots=True)
class Variant:
    """One way in which the seed may take part in a probe."""

    alpha: float
    amplitude: float | None = None
    """None: the seed's own."""
    averaged: bool = False
    """Use the moving average of the weights."""


OFF: Variant | None = None
"""The host alone."""


class Prober:
    """Runs probes and counts what they cost."""

    def __init__(self, host: Host, slots: Sequence[Slot], random_seed: int) -> None:
        self._host = host
        self._slots = slots
        self._random_seed = random_seed
        self.flops = 0.0
        """Spent on probes so far."""

    def losses(
        self,
        slot: Slot,
        seed: Seed,
        variants: Sequence[Variant | None],
        batches: Sequence[Batch],
        *,
        shared: bool = True,
    ) -> list[list[float]]:
        """Per-unit losses of every variant over the batches; row i belongs to variant i, columns are paired.

        With `shared`, the host's prefix runs once for all variants where that was found to change nothing.
        """
        rows: list[list[Tensor]] = [[] for _ in variants]
        with self._quiet(seed):
            for batch in batches:
                found = self._shared(slot, seed, variants, batch) if shared and seed.shared_prefix else None
                for row, losses in zip(rows, found or self._one_by_one(slot, seed, variants, batch), strict=True):
                    row.append(losses.float())
                self._account(slot, len(variants), num_units(batch[1], batch[0]), bool(found))
        stacked = torch.stack([torch.cat(row) for row in rows])
        return stacked.tolist()

    def outputs(self, slot: Slot, seed: Seed, variant: Variant | None, batch: Batch) -> Tensor:
        """The model's output in evaluation mode with the seed as it stands (None), or in one variant."""
        with self._quiet(seed):
            if variant is None:
                return self._host.forward(batch[0])
            with overriding(slot, lambda h: blended(seed, h, variant)):
                return self._host.forward(batch[0])

    def activation(self, slot: Slot, seed: Seed, batch: Batch) -> Tensor:
        """What the seed would see at its site, in evaluation mode."""
        seen: list[Tensor] = []

        def look(h: Tensor) -> Tensor:
            seen.append(h.detach().contiguous().clone())
            return h

        with self._quiet(seed), overriding(slot, look):
            self._host.forward(batch[0])
        return seen[0]

    def verify_shared_prefix(self, slot: Slot, seed: Seed, batch: Batch) -> bool:
        """Whether two passes of a batch give the losses of one pass that doubles it at the site.

        They do not where a later layer mixes samples or takes something from before the site.
        """
        shifts = (1.0, 1.01)
        with self._quiet(seed):
            apart = []
            for shift in shifts:
                with overriding(slot, lambda h, shift=shift: h * shift):  # type: ignore[misc]
                    apart.append(self._host.unit_losses(self._host.forward(batch[0]), batch[1]))
            try:
                with overriding(slot, lambda h: torch.cat([h * shift for shift in shifts])):
                    output = self._host.forward(batch[0])
                    together = self._host.unit_losses(output, _tiled(batch[1], len(shifts)))
            except Exception:  # noqa: BLE001 - a host that cannot be doubled says so in its own way
                return False
        tolerance = 1e-4 if slot.site.spec.autocast_dtype is None else 2e-2
        expected = torch.cat(apart)
        return together.shape == expected.shape and torch.allclose(together, expected, rtol=tolerance, atol=tolerance)

    def first_order_gain(self, slot: Slot, seed: Seed, batch: Batch) -> float:
        """`-<g, d>`: the gain if the loss were linear in the activation; a screen, too high for strong seeds."""
        inputs, targets = batch
        seen: list[tuple[Tensor, Tensor]] = []

        def look(h: Tensor) -> Tensor:
            leaf = h.detach().requires_grad_()
            seen.append((leaf, seed.averaged_delta(leaf.detach().contiguous(), 1.0).detach()))
            return leaf.clone()  # the host may go on in place, which a leaf does not allow

        with self._quiet(seed), torch.enable_grad(), overriding(slot, look):
            loss = self._host.loss(self._host.forward(inputs), targets)
            gradients = torch.autograd.grad(loss, [leaf for leaf, _ in seen], allow_unused=True)
        total = 0.0
        for gradient, (_, d) in zip(gradients, seen, strict=True):
            total -= float((gradient.float() * d.float()).sum()) if gradient is not None else 0.0
        return total

    def _shared(self, slot: Slot, seed: Seed, variants: Sequence[Variant | None], batch: Batch) -> list[Tensor] | None:
        """All variants in one pass that is doubled (or more) at the site."""
        inputs, targets = batch
        with overriding(slot, lambda h: torch.cat([blended(seed, h, variant) for variant in variants])):
            output = self._host.forward(inputs)
        losses = self._host.unit_losses(output, _tiled(targets, len(variants)))
        return list(losses.chunk(len(variants)))

    def _one_by_one(self, slot: Slot, seed: Seed, variants: Sequence[Variant | None], batch: Batch) -> list[Tensor]:
        inputs, targets = batch
        losses = []
        for variant in variants:
            with overriding(slot, lambda h, variant=variant: blended(seed, h, variant)):  # type: ignore[misc]
                losses.append(self._host.unit_losses(self._host.forward(inputs), targets))
        return losses

    def _account(self, slot: Slot, num_variants: int, units: int, shared: bool) -> None:
        """Shared passes are counted as if half of the host lay behind the site, which is not exact."""
        passes = 1.0 + 0.5 * (num_variants - 1) if shared else float(num_variants)
        self.flops += slot.site.spec.host_forward_flops * units * passes

    @contextmanager
    def _quiet(self, seed: Seed) -> Iterator[None]:
        armed = [slot.armed for slot in self._slots]
        for slot in self._slots:
            slot.armed = False
        stream = stream_seed(self._random_seed, seed.seed_id, Purpose.PROBE)
        try:
            with (
                quiet_eval(self._host.model),
                quiet_eval(seed.module),
                quiet_eval(seed.blender),
                torch.no_grad(),
                private_rng(self._host.device, stream),
            ):
                yield
        finally:
            for slot, was_armed in zip(self._slots, armed, strict=True):
                slot.armed = was_armed


def blended(seed: Seed, h: Tensor, variant: Variant | None) -> Tensor:
    """The activation as it goes on in one variant of a probe."""
    if variant is None:
        return h
    x = h.contiguous()
    amplitude = seed.amplitude if variant.amplitude is None else variant.amplitude
    d = seed.averaged_delta(x, amplitude) if variant.averaged else seed.module(x) * amplitude
    alpha = torch.full((), variant.alpha, device=h.device)
    if seed.plan.blend_mode is BlendMode.BERNOULLI:
        return residual(h, d, alpha)  # its expectation, without the cap that holds only while it blends
    return seed.blender(h, x, d, alpha)  # type: ignore[no-any-return]


def _tiled(targets: object, times: int) -> object:
    """Targets for a batch that was repeated."""
    if isinstance(targets, Tensor):
        return torch.cat([targets] * times)
    if isinstance(targets, (tuple, list)):
        return type(targets)(_tiled(value, times) for value in targets)
    if isinstance(targets, dict):
        return {name: _tiled(value, times) for name, value in targets.items()}
    return targets
