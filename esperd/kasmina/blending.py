"""How a seed's output joins the host's activation: one pure tensor function per blend mode, and what each needs.

Runs on the training thread, device-agnostic. Knows no seed, stage or schedule. In every function `h` is the host's
activation, `d` the seed's delta of the same shape, and `alpha` a 0-dim tensor buffer (a tensor, so that a new value
never recompiles anything). The result has the shape and dtype of `h`. `detach_host` cuts the host's own gradient
too (`isolation = "strict"`); otherwise an additive blend (all but MULTIPLY) hands the host exactly the gradient it
would get alone, bit for bit except in CONVEX, whose two shares `(1 - alpha) g + alpha g` round.

At alpha = 0 and finite `d` every mode returns a tensor equal to `h`. MULTIPLY is then also equal bit for bit (the
additive ones turn -0.0 into 0.0), and BERNOULLI in training is, whatever `d` holds, NaN included. A delta that is
not finite must be caught before any other mode sees it: 0 * inf is NaN. Source: design 03, Blending.
"""

from typing import Final

import torch
from torch import Tensor, nn

from esperd.leyline.vocabulary import BlendMode

CONFIDENCE_SHARPNESS: Final = 4.0
CONFIDENCE_THRESHOLD: Final = 0.2
BERNOULLI_CAP: Final = 0.9
"""While blending at least one sample in ten does without the seed, so that the host never comes to need it."""
MIN_GATE_HIDDEN: Final = 8


class BlendRefusedError(ValueError):
    """A blend mode cannot be used at this activation; the message says what it needs."""


def convex(h: Tensor, d: Tensor, alpha: Tensor, *, detach_host: bool = False) -> Tensor:
    """`lerp(h, h + d, alpha)`: from the host's activation to the seed's replacement of it."""
    host = _host_term(h, detach_host)
    return torch.lerp(host, host + d.to(h.dtype), alpha.to(h.dtype))


def residual(h: Tensor, d: Tensor, alpha: Tensor, *, detach_host: bool = False) -> Tensor:
    """`h + alpha * d`."""
    return _host_term(h, detach_host) + alpha.to(h.dtype) * d.to(h.dtype)


def channel(h: Tensor, d: Tensor, alpha: Tensor, v: Tensor, channel_dim: int, *, detach_host: bool = False) -> Tensor:
    """`h + alpha * v[c] * d` with one share `v[c]` in [0, 1] for each channel.

    Shapes: `v` is `(C,)` where C is the size of `h` along `channel_dim`.

    Raises:
        BlendRefusedError: `v` has not exactly one entry for each channel.
    """
    num_channels = h.shape[channel_dim]
    if v.dim() != 1 or v.shape[0] != num_channels:
        raise BlendRefusedError(
            f"CHANNEL needs one share for each of the {num_channels} channels, got shape {tuple(v.shape)}"
        )
    shape = [1] * h.dim()
    shape[channel_dim] = num_channels
    return _host_term(h, detach_host) + alpha.to(h.dtype) * v.to(h.dtype).view(shape) * d.to(h.dtype)


def confidence(
    h: Tensor,
    d: Tensor,
    alpha: Tensor,
    *,
    sharpness: float = CONFIDENCE_SHARPNESS,
    threshold: float = CONFIDENCE_THRESHOLD,
    detach_host: bool = False,
) -> Tensor:
    """`h + alpha * sigmoid(sharpness * (top1 - top2 - threshold)) * d`, for logits `h` along the last dimension.

    The gate is detached: confidence decides how much of the seed is heard, it is not something to learn.

    Raises:
        BlendRefusedError: the last dimension has fewer than two classes.
    """
    if h.dim() < 2 or h.shape[-1] < 2:
        raise BlendRefusedError(f"CONFIDENCE needs logits of two classes or more, got shape {tuple(h.shape)}")
    top = h.detach().topk(2, dim=-1).values
    gate = torch.sigmoid(sharpness * (top[..., :1] - top[..., 1:] - threshold))
    return _host_term(h, detach_host) + alpha.to(h.dtype) * gate * d.to(h.dtype)


def multiply(h: Tensor, d: Tensor, alpha: Tensor, *, detach_host: bool = False) -> Tensor:
    """`h * (1 + alpha * tanh(d))`: the host scaled by a factor within [1 - alpha, 1 + alpha].

    The host's gradient is scaled by the same factor, unlike in the additive modes.
    """
    return _host_term(h, detach_host) * (1.0 + alpha.to(h.dtype) * torch.tanh(d.to(h.dtype)))


def gated(h: Tensor, d: Tensor, alpha: Tensor, gate: Tensor, *, detach_host: bool = False) -> Tensor:
    """`h + alpha * gate * d` with a gate in (0, 1) for each sample, as `SampleGate` gives it.

    Shapes: `gate` is `(B, 1, ..., 1)` with as many dimensions as `h`.
    """
    return _host_term(h, detach_host) + alpha.to(h.dtype) * gate.to(h.dtype) * d.to(h.dtype)


def bernoulli(h: Tensor, d: Tensor, taken: Tensor, *, detach_host: bool = False) -> Tensor:
    """`h + d` for the samples that take the seed, `h` untouched for the others (drop-blend in training).

    Shapes: `taken` is boolean, `(B, 1, ..., 1)` with as many dimensions as `h`, from `draw_taken`.
    """
    host = _host_term(h, detach_host)
    return torch.where(taken, host + d.to(h.dtype), host)


def bernoulli_expectation(h: Tensor, d: Tensor, alpha: Tensor, cap: Tensor, *, detach_host: bool = False) -> Tensor:
    """`h + min(alpha, cap) * d`: what drop-blend gives on average, for evaluation."""
    return residual(h, d, torch.minimum(alpha, cap), detach_host=detach_host)


def draw_taken(h: Tensor, alpha: Tensor, cap: Tensor, generator: torch.Generator) -> Tensor:
    """Which samples take the seed: true with probability `min(alpha, cap)`, one draw for each sample.

    Uses exactly B numbers of `generator` whatever alpha is, and none of the global generators. Stands outside the
    pure functions because a generator cannot go through a full-graph compilation. No device synchronisation.

    Shapes: returns boolean `(B, 1, ..., 1)` with as many dimensions as `h`. `generator` lives on the device of `h`.
    """
    draws = torch.rand(h.shape[0], generator=generator, device=h.device, dtype=torch.float32)
    return (draws < torch.minimum(alpha, cap)).view(-1, *([1] * (h.dim() - 1)))


class SampleGate(nn.Module):
    """How much each sample wants of the seed, learned from its pooled features; in (0, 1).

    `sigmoid(W2 gelu(W1 pool(x)))` with a hidden width of `max(8, C / 4)`; the last layer starts at zero, so every
    gate starts at one half.

    Shapes: x `(B, C, ...)` or `(B, ..., C)` by `channel_dim`; returns `(B, 1, ..., 1)` with as many dimensions.
    """

    def __init__(self, num_channels: int, channel_dim: int) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        num_hidden = max(MIN_GATE_HIDDEN, num_channels // 4)
        self.hidden = nn.Linear(num_channels, num_hidden)
        self.out = nn.Linear(num_hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The gate of each sample."""
        channel_dim = self.channel_dim % x.dim()
        pooled_dims = [dim for dim in range(1, x.dim()) if dim != channel_dim]
        pooled = x.mean(dim=pooled_dims) if pooled_dims else x
        gate = torch.sigmoid(self.out(nn.functional.gelu(self.hidden(pooled))))
        return gate.view(-1, *([1] * (x.dim() - 1)))


class Blender(nn.Module):
    """One seed's blend: the mode with what only that mode needs.

    CHANNEL holds learned shares, GATE a learned gate (both are the seed's parameters), BERNOULLI a random stream of
    its own. A fossilized seed keeps its blender, so that fossilizing at alpha 1 changes no output.

    Args:
        mode: any but UNSPECIFIED.
        site_shape: shape of the activation, batch size first.
        generator: BERNOULLI's random stream, on the site's device; the other modes ignore it.
        yields_logits: whether the site's activation is the model's logits; only then is CONFIDENCE admitted.
        detach_host: strict isolation.

    Raises:
        BlendRefusedError: the mode cannot work at this site, or lacks its generator.
    """

    cap: Tensor

    def __init__(
        self,
        mode: BlendMode,
        site_shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        yields_logits: bool = False,
        detach_host: bool = False,
    ) -> None:
        super().__init__()
        _check_mode(mode, site_shape, generator, yields_logits)
        self.mode = mode
        self.generator = generator
        self.detach_host = detach_host
        self.channel_dim = channel_dim_of(site_shape)
        num_channels = site_shape[self.channel_dim]
        self.shares = nn.Parameter(torch.ones(num_channels)) if mode is BlendMode.CHANNEL else None
        self.gate = SampleGate(num_channels, self.channel_dim) if mode is BlendMode.GATE else None
        self.register_buffer("cap", torch.tensor(BERNOULLI_CAP))

    def lift_cap(self) -> None:
        """Let BERNOULLI reach probability 1: for PROBATIONARY and later, when the host may come to need the seed."""
        self.cap.fill_(1.0)

    def forward(self, h: Tensor, x: Tensor, d: Tensor, alpha: Tensor) -> Tensor:
        """Blend.

        Shapes: `h`, `x` and `d` alike; `alpha` 0-dim. `x` is what the seed saw (`h`, detached while the seed is
        isolated); only GATE reads it.
        """
        keep = self.detach_host
        match self.mode:
            case BlendMode.CONVEX:
                return convex(h, d, alpha, detach_host=keep)
            case BlendMode.RESIDUAL:
                return residual(h, d, alpha, detach_host=keep)
            case BlendMode.CHANNEL:
                assert self.shares is not None
                # A share outside [0, 1] gets no gradient; weight decay brings it back.
                return channel(h, d, alpha, self.shares.clamp(0.0, 1.0), self.channel_dim, detach_host=keep)
            case BlendMode.CONFIDENCE:
                return confidence(h, d, alpha, detach_host=keep)
            case BlendMode.MULTIPLY:
                return multiply(h, d, alpha, detach_host=keep)
            case BlendMode.GATE:
                assert self.gate is not None
                return gated(h, d, alpha, self.gate(x), detach_host=keep)
            case _:
                return self._bernoulli(h, d, alpha)

    def _bernoulli(self, h: Tensor, d: Tensor, alpha: Tensor) -> Tensor:
        if not self.training:
            return bernoulli_expectation(h, d, alpha, self.cap, detach_host=self.detach_host)
        assert self.generator is not None
        taken = draw_taken(h, alpha, self.cap, self.generator)
        return bernoulli(h, d, taken, detach_host=self.detach_host)


def channel_dim_of(site_shape: tuple[int, ...]) -> int:
    """Where the channels of an activation are: 1 for images `(B, C, H, W)`, else the last dimension."""
    return 1 if len(site_shape) == 4 else len(site_shape) - 1


def _check_mode(
    mode: BlendMode, site_shape: tuple[int, ...], generator: torch.Generator | None, yields_logits: bool
) -> None:
    if mode is BlendMode.UNSPECIFIED:
        raise BlendRefusedError("the blend mode is unspecified; choose one of the modes of BlendMode")
    if len(site_shape) < 2:
        raise BlendRefusedError(f"a blend needs a batch and a channel dimension, got shape {site_shape}")
    if mode is BlendMode.CONFIDENCE and (not yields_logits or site_shape[-1] < 2):
        raise BlendRefusedError("CONFIDENCE works only at a site that yields logits of two classes or more")
    if mode is BlendMode.BERNOULLI and generator is None:
        raise BlendRefusedError("BERNOULLI needs a random generator of its own on the site's device")


def _host_term(h: Tensor, detach_host: bool) -> Tensor:
    return h.detach() if detach_host else h
