"""What a seed in TRAINING learns from: three losses, none of which touches the host's graph, buffers or generators.

Training thread, after the host's own backward. Each takes what the site's hook has seen of the step just done (the
activation x, and the loss gradient g there) and returns the seed's own loss. Design 03, What a seed learns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from esperd.kasmina.ports import Batch, Host
from esperd.kasmina.seed import Seed
from esperd.kasmina.site import quiet_eval
from esperd.kasmina.slot import Override, Slot, Watch, rms
from esperd.kasmina.streams import Purpose, private_rng, stream_seed
from esperd.leyline.vocabulary import TrainingMode

GRADIENT_RMS_DECAY = 0.95
STRAIGHT_THROUGH_BOUND = 0.1
"""Largest rms(d) / rms(x) in straight-through mode; healthy seeds are at 0.01 to 0.04."""
TINY = 1e-12


def training_loss(
    host: Host, slot: Slot, seed: Seed, batch: Batch, *, rho: float, frozen: Iterable[nn.Parameter]
) -> Tensor | None:
    """The seed's loss for this step, None if the host's backward brought no gradient to the site.

    `frozen` are the parameters of host and grown seeds; the shadow pass computes no gradient for them.
    """
    watches = [watch for watch in slot.watches if watch.usable]
    if not watches:
        return None
    if seed.plan.training_mode is TrainingMode.SHADOW_FORWARD:
        return _shadow_loss(host, slot, seed, batch, watches, frozen)
    losses = [_local_loss(host, slot, seed, watch, rho, call) for call, watch in enumerate(watches)]
    return torch.stack(losses).mean()


def gradient_matching_loss(d: Tensor, x: Tensor, g: Tensor, g_scale: Tensor, rho: float) -> Tensor:
    """`mse(d, -rho * rms(x) * g / g_scale) / (rho * rms(x))^2`: functional-gradient boosting of the host at x.

    Bounded whatever the seed does, and equal for any scaling of g (a loss scaler's included).
    """
    length = (rho * rms(x)).clamp_min(TINY)
    target = g.float() * (-length / g_scale.clamp_min(TINY))
    return (d.float() - target).square().mean() / length.square()


def straight_through_loss(d: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """`<g, d>`, whose gradient is exactly what an identity in the forward would hand the seed.

    Linear in d, so d is first brought within a bound of rms(x): without it the seed runs away (design 03).
    """
    longest = STRAIGHT_THROUGH_BOUND * rms(x)
    size = d.float().square().mean().add(TINY * TINY).sqrt()
    bounded = d.float() * (longest / size).clamp_max(1.0)
    return (g.float() * bounded).sum()


def _local_loss(host: Host, slot: Slot, seed: Seed, watch: Watch, rho: float, call: int) -> Tensor:
    assert watch.g is not None
    stream = stream_seed(slot.random_seed, seed.seed_id, slot.step, Purpose.FORWARD, call)
    with private_rng(host.device, stream), as_host_casts(host, slot):
        d = seed.delta(watch.x)
    if slot.measures_ratio:
        seed.health.output_ratio = rms(d) / rms(watch.x).clamp_min(TINY)
    if seed.plan.training_mode is TrainingMode.STRAIGHT_THROUGH:
        return straight_through_loss(d, watch.x, watch.g)
    return gradient_matching_loss(d, watch.x, watch.g, _gradient_scale(seed, watch.g), rho)


def _gradient_scale(seed: Seed, g: Tensor) -> Tensor:
    """EMA of rms(g), with steps whose gradient is not finite left out; no device read."""
    now = rms(g)
    old = seed.health.gradient_rms
    if old is None:
        old = now
    averaged = torch.lerp(old, now, 1.0 - GRADIENT_RMS_DECAY)
    seed.health.gradient_rms = torch.where(torch.isfinite(averaged), averaged, old)
    return seed.health.gradient_rms


def _shadow_loss(
    host: Host, slot: Slot, seed: Seed, batch: Batch, watches: Sequence[Watch], frozen: Iterable[nn.Parameter]
) -> Tensor:
    """The loss of a second pass in which the seed stands at alpha 1 on the very activation that the host had."""
    inputs, targets = batch
    remaining = iter(watches)

    def stand_in(h: Tensor) -> Tensor:
        watch = next(remaining)
        d = seed.delta(watch.x)
        if slot.measures_ratio:
            seed.health.output_ratio = rms(d) / rms(watch.x).clamp_min(TINY)
        return (watch.x + d.to(watch.x.dtype)).to(h.dtype)

    stream = stream_seed(slot.random_seed, seed.seed_id, slot.step, Purpose.SHADOW)
    with without_gradient(frozen), quiet_eval(host.model), private_rng(host.device, stream), overriding(slot, stand_in):
        return host.loss(host.forward(inputs), targets)


@contextmanager
def as_host_casts(host: Host, slot: Slot) -> Iterator[None]:
    """The autocast under which the host computes this site, with a weight cache of its own."""
    dtype = slot.site.spec.autocast_dtype
    # A cache shared with another region could hand out casts made without a graph.
    with torch.autocast(host.device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
        yield


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let autograd take these parameters for constants during the body."""
    changed = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)


@contextmanager
def overriding(slot: Slot, stand_in: Override) -> Iterator[None]:
    """Let `stand_in` take the place of what grows at the slot during the body."""
    before = slot.override
    slot.override = stand_in
    try:
        yield
    finally:
        slot.override = before
