"""Folding: the host with its fossilized seeds as one module, for whoever uses the model without the daemon.

Training thread, or any process that has rebuilt a run. The copy computes in evaluation mode exactly what the grown
model computes there, bit for bit, since every fossil goes through the arithmetic of its own blend at its own alpha.
Live seeds are no part of it. Knows no file and no format.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from esperd.kasmina.blending import Blender
from esperd.kasmina.seed import Seed
from esperd.kasmina.site import split_output
from esperd.kasmina.slot import Slot
from esperd.kasmina.training_modes import overriding

HOST = "host"
"""Where the folded module keeps the host; below it every key is the host's own."""


class Fossil(nn.Module):
    """A settled seed as a plain module: activation in, activation with the seed's share out.

    Shapes: any that the site has, to the same.
    """

    alpha: Tensor

    def __init__(self, module: nn.Module, blender: Blender, alpha: Tensor, amplitude: float) -> None:
        super().__init__()
        self.module = module
        self.blender = blender
        self.amplitude = amplitude
        self.register_buffer("alpha", alpha)

    def forward(self, h: Tensor) -> Tensor:
        """The activation as it goes on."""
        x = h.contiguous()
        d: Tensor = self.module(x)
        if self.amplitude != 1.0:
            d = d * self.amplitude
        mixed: Tensor = self.blender(h, x, d, self.alpha)
        return mixed


class Folded(nn.Module):
    """The host under `host` with its own keys, the fossils under `seeds` by seed id; in evaluation mode.

    A site keeps its module, and the fossils follow it as a forward hook of the copy, in the place where the slot's hook
    is: so a module that is used twice, looked into by its parent, or given hooks by its author works as it did, and
    torch's fused encoder layers stay as aware of it as they were.
    """

    def __init__(
        self, host: nn.Module, seeds: nn.ModuleDict, autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__()
        self.host = host
        self.seeds = seeds
        self._autocast = autocast
        self.eval()

    def forward(self, inputs: Any) -> Any:
        """What the host gives for one batch of inputs."""
        with self._autocast():
            return self.host(inputs)


def fold(
    model: nn.Module,
    slots: Sequence[Slot],
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Folded:
    """A deep copy of the model in which each site is followed by its fossils, oldest first.

    `autocast` makes the context under which the run computes its forward pass. The model itself is not touched.

    Raises:
        Exception: what the model's own code raises when it is copied.
    """
    # The slots' hooks are not to be copied with the model: they would bring every seed and its random stream along.
    memo: dict[int, Any] = {id(slot): slot for slot in slots}
    host = copy.deepcopy(model, memo)
    seeds = nn.ModuleDict()
    for slot in slots:
        fossils = [_fossil(seed) for seed in slot.fossils]
        seeds.update({str(seed.seed_id): fossil for seed, fossil in zip(slot.fossils, fossils, strict=True)})
        _follow(memo[id(slot.site.module)], slot, fossils)
    for parameter in host.parameters():
        parameter.grad = None
    return Folded(host, seeds, autocast)


@contextmanager
def only_fossils(slots: Sequence[Slot]) -> Iterator[None]:
    """Leave live seeds out of the grown model's own forward during the body."""
    with ExitStack() as stack:
        for slot in slots:
            stack.enter_context(overriding(slot, _unchanged))
        yield


class _Followed:
    """The forward hook of a folded site."""

    def __init__(self, fossils: Sequence[Fossil]) -> None:
        self._fossils = fossils

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        h, rebuild = split_output(output)
        if h is None:
            return None
        for fossil in self._fossils:
            h = fossil(h)
        return rebuild(h)


def _follow(site: nn.Module, slot: Slot, fossils: Sequence[Fossil]) -> None:
    """Put the fossils where the slot's hook is in the copy, or take that hook out where nothing is fossilized."""
    key = slot.hook_key
    if key is None:
        return
    if fossils:
        site._forward_hooks[key] = _Followed(fossils)
    else:
        del site._forward_hooks[key]


def _fossil(seed: Seed) -> Fossil:
    generator = seed.blender.generator
    blender = copy.deepcopy(seed.blender, {id(generator): generator})
    blender.generator = None  # nothing is drawn in evaluation
    fossil = Fossil(copy.deepcopy(seed.module), blender, seed.alpha.detach().clone(), seed.amplitude)
    for parameter in fossil.parameters():
        parameter.grad = None
    return fossil


def _unchanged(h: Tensor) -> Tensor:
    return h
