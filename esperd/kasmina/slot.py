"""The executor at one site: a forward hook that is there only while something grows, and what it lets through.

Training thread only. The hook passes the activation through the fossils, then either lets candidates look at it (the
output is then the host's own, bit for bit) or mixes the grafted seed in. Nothing becomes a child of the host: its
`state_dict` keys never change. Never `h + (s - s.detach())`: one NaN in the seed would be in the host.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esperd.kasmina.seed import Seed
from esperd.kasmina.site import Site, split_output
from esperd.kasmina.streams import Purpose, private_rng, stream_seed
from esperd.leyline.vocabulary import Stage

Override = Callable[[Tensor], Tensor]
"""Activation after the fossils to what goes on: how probes and checks take the seed's place."""


@dataclass(eq=False)
class Watch:
    """What candidates see of one pass: the activation, and the loss gradient there once the host's backward ran."""

    x: Tensor
    version: int
    g: Tensor | None = None

    def take(self, g: Tensor) -> None:
        """Tensor hook: keep the gradient, change nothing."""
        self.g = g.detach()

    @property
    def usable(self) -> bool:
        """Whether the gradient came and nobody has overwritten the activation since."""
        return self.g is not None and self.x._version == self.version


@dataclass(eq=False)
class Pass:
    """One pass of a grafted seed through the host's forward."""

    seed: Seed
    x: Tensor
    d: Tensor | None = None
    """The delta with its own graph; the host's graph holds only `leaf`."""
    leaf: Tensor | None = None
    delta_finite: Tensor | None = None
    mixed_finite: Tensor | None = None
    output_ratio: Tensor | None = None
    joint: bool = False
    fault: str = ""
    """What the seed's own code raised."""

    def backward(self) -> None:
        """Carry the host's gradient on into the seed, and no further; a seed that raises is only noted."""
        if self.d is None or self.leaf is None or self.leaf.grad is None or not self.d.requires_grad:
            return
        try:
            torch.autograd.backward(self.d, self.leaf.grad.to(self.d.dtype), inputs=self.seed.parameters)
        except torch.OutOfMemoryError:
            raise  # see Slot._graft
        except Exception as error:  # noqa: BLE001 - a seed's own code may raise anything; it is then culled
            self.fault = f"backward raised {type(error).__name__}: {error}"


class _JointBranch(torch.autograd.Function):
    """Lets the seed's gradient on to what lies upstream, without letting the seed's backward break the host's."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, value: Tensor, record: Pass) -> Tensor:  # noqa: ARG004 - h takes the gradient
        ctx.record = record
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None]:
        record = ctx.record
        x = record.x
        try:
            torch.autograd.backward(record.d, g, inputs=[x, *record.seed.parameters])
        except torch.OutOfMemoryError:
            raise  # see Slot._graft
        except Exception as error:  # noqa: BLE001 - as in Pass.backward
            record.fault = f"backward raised {type(error).__name__}: {error}"
            return None, None, None
        gradient, x.grad, record.d = x.grad, None, None
        # A seed that is not finite was masked in the forward; 0 * inf must not bring it back here.
        sound = torch.isfinite(gradient).all() & record.delta_finite & record.mixed_finite
        return torch.where(sound, gradient, torch.zeros((), dtype=gradient.dtype, device=gradient.device)), None, None


@dataclass(eq=False)
class Slot:
    """What grows at one site."""

    site: Site
    random_seed: int
    clock: Callable[[], float]
    fossils: list[Seed] = field(default_factory=list)
    grafted: Seed | None = None
    candidates: list[Seed] = field(default_factory=list)
    armed: bool = False
    """A training step is in progress."""
    step: int = 0
    measures_ratio: bool = False
    """This step, compute how large the delta is beside the activation."""
    override: Override | None = None
    watches: list[Watch] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    seed_s: float = 0.0
    """Seconds spent in seeds since the step was armed."""
    _handle: RemovableHandle | None = None

    @property
    def live(self) -> list[Seed]:
        """Live seeds of the site."""
        return [*self.candidates, *([self.grafted] if self.grafted is not None else [])]

    def refresh(self) -> None:
        """Install the hook if something grows here, remove it if nothing does."""
        needed = bool(self.fossils or self.live)
        if needed and self._handle is None:
            self._handle = self.site.module.register_forward_hook(self._hook)
        elif not needed and self._handle is not None:
            self._handle.remove()
            self._handle = None

    @property
    def has_hook(self) -> bool:
        """Whether the host's module carries a hook of this slot."""
        return self._handle is not None

    @property
    def hook_key(self) -> int | None:
        """Under what the host's module keeps that hook, None without one."""
        return None if self._handle is None else self._handle.id

    def arm(self, step: int) -> None:
        """Begin a training step."""
        self.step, self.armed, self.seed_s = step, True, 0.0
        self.disarm_records()

    def disarm(self) -> None:
        """End it; nothing of the step is kept."""
        self.armed = False
        self.disarm_records()

    def disarm_records(self) -> None:
        """Forget what was seen."""
        self.watches.clear()
        self.passes.clear()

    def discard(self, seed: Seed) -> None:
        """Take a seed out of the site."""
        self.candidates = [other for other in self.candidates if other is not seed]
        if self.grafted is seed:
            self.grafted = None
        self.passes = [record for record in self.passes if record.seed is not seed]
        self.refresh()

    @contextmanager
    def as_fossil(self, seed: Seed) -> Iterator[None]:
        """Let the grafted seed stand as a fossil during the body."""
        self.grafted, self.fossils = None, [*self.fossils, seed]
        try:
            yield
        finally:
            self.grafted, self.fossils = seed, self.fossils[:-1]

    def reseed(self, seed: Seed) -> None:
        """Put a seed's blending stream to where this step begins; so that stream needs no saving."""
        if seed.blender.generator is not None:
            seed.blender.generator.manual_seed(self._stream(seed, Purpose.BLEND))

    def _hook(self, module: nn.Module, _args: Any, output: Any) -> Any:
        h, rebuild = split_output(output)
        if h is None:
            return None
        passed = self._through(module, h)
        return None if passed is h else rebuild(passed)

    def _through(self, module: nn.Module, h: Tensor) -> Tensor:
        for fossil in self.fossils:
            h = self._fossil(fossil, h, module.training)
        if self.override is not None:
            return self.override(h)
        learning = self.armed and torch.is_grad_enabled()
        if self.grafted is not None:
            began = self.clock()
            h = self._graft(self.grafted, h, module.training, learning)
            self.seed_s += self.clock() - began
        elif learning and any(seed.stage is Stage.TRAINING for seed in self.candidates):
            h = self._watch(h)
        return h

    @staticmethod
    def _fossil(seed: Seed, h: Tensor, training: bool) -> Tensor:
        if seed.module.training is not training:
            seed.module.train(training)
        x = h.contiguous()
        return seed.blender(h, x, seed.delta(x), seed.alpha)  # type: ignore[no-any-return]

    def _watch(self, h: Tensor) -> Tensor:
        x = h.detach().contiguous()
        if self.site.spec.changed_in_place and x.data_ptr() == h.data_ptr():
            x = x.clone()
        if not h.requires_grad:
            # Everything upstream is frozen: a leaf here makes autograd compute the gradient that candidates need.
            h = h.detach().requires_grad_()
        watch = Watch(x, x._version)
        h.register_hook(watch.take)  # type: ignore[no-untyped-call]
        self.watches.append(watch)
        return h

    def _graft(self, seed: Seed, h: Tensor, training: bool, learning: bool) -> Tensor:
        for part in (seed.module, seed.blender):
            if part.training is not training:
                part.train(training)
        record = Pass(seed, h.detach().contiguous())
        if learning:
            self.passes.append(record)
        try:
            d = self._delta(seed, h, record, learning)
        except torch.OutOfMemoryError:
            raise  # the fault may be another seed's: the trainer makes room and does the step again
        except Exception as error:  # noqa: BLE001 - a seed's own code may raise anything; the host passes through
            record.fault = f"forward raised {type(error).__name__}: {error}"
            return h
        if d.shape != h.shape:
            record.fault = f"delta has shape {tuple(d.shape)}, the activation {tuple(h.shape)}"
            return h
        return self._mix(record, h, d, learning)

    def _delta(self, seed: Seed, h: Tensor, record: Pass, learning: bool) -> Tensor:
        """The delta as the host's graph may see it."""
        learns = learning and seed.learns
        joint = learns and seed.joint and h.requires_grad
        x = record.x.requires_grad_() if joint else record.x
        # The stream depends on the step and the call alone: dropout in a seed moves no generator of the host's, and one
        # that draws in evaluation as well draws the same in every variant of a probe.
        stream = self._stream(seed, Purpose.FORWARD, len(self.passes))
        with torch.set_grad_enabled(learns), private_rng(h.device, stream):
            record.d = seed.delta(x)
        if joint:
            record.joint = True
            branch: Tensor = _JointBranch.apply(h, record.d.detach(), record)  # type: ignore[no-untyped-call]
            return branch
        record.leaf = record.d.detach()
        return record.leaf.requires_grad_() if learns else record.leaf

    def _mix(self, record: Pass, h: Tensor, d: Tensor, learning: bool) -> Tensor:
        """Blend, with the activation passed through untouched where the seed is not finite (no device read)."""
        seed = record.seed
        record.delta_finite = torch.isfinite(d.detach()).all()
        settled = torch.where(record.delta_finite, d, torch.zeros((), dtype=d.dtype, device=d.device))
        mixed: Tensor = seed.blender(h, record.x.detach(), settled, seed.alpha)
        record.mixed_finite = torch.isfinite(mixed.detach()).all()
        if learning and self.measures_ratio:
            scale = rms(record.x).clamp_min(1e-12)
            record.output_ratio = rms(settled.detach()) * seed.alpha / scale
        return torch.where(record.mixed_finite & record.delta_finite, mixed, h)

    def _stream(self, seed: Seed, purpose: Purpose, call: int = 0) -> int:
        return stream_seed(self.random_seed, seed.seed_id, self.step, purpose, call)


def rms(tensor: Tensor) -> Tensor:
    """Root mean square over all elements, float32, 0-dim."""
    return tensor.detach().float().square().mean().sqrt()
