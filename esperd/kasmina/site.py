"""Places in the host where seeds may grow: found by module path or glob in any `nn.Module`, with what flows there.

Training thread only. Knows no seed; wraps nothing and registers nothing that stays.
"""

import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from esperd.kasmina.ports import Host
from esperd.kasmina.streams import private_rng
from esperd.leyline.errors import EsperdError


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """What flows at a site, as seen on a dry run."""

    shape: tuple[int, ...]
    """Batch size first."""
    dtype: torch.dtype
    autocast_dtype: torch.dtype | None
    """The dtype of the autocast under which the host computes it (seeds then keep float32 weights), None without."""
    yields_logits: bool
    """The activation is the model's output."""
    changed_in_place: bool
    """A later module overwrites it, so that whoever looks at it afterwards needs a copy."""
    num_classes: int
    """Size of the model output's last dimension."""
    host_forward_flops: float
    """Of the whole host, for one sample."""
    num_units: int = 0
    """Samples in the dry run."""

    @property
    def seed_dtype(self) -> torch.dtype:
        """The dtype of a seed's weights here."""
        return self.dtype if self.autocast_dtype is None else torch.float32

    def batch_size(self, num_units: int) -> int:
        """Size of the activation's first dimension for a batch of so many samples; 0 where nothing tells it."""
        per_unit, rest = divmod(self.shape[0], self.num_units) if self.num_units else (0, 0)
        return 0 if rest else per_unit * num_units


@dataclass(eq=False)
class Site:
    """One place of the host."""

    path: str
    module: nn.Module
    spec: ActivationSpec
    embargoed_until_step: int = 0
    embargoed_until_unix_s: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    """Culls for cause of each blueprint here."""


def resolve_sites(host: Host, patterns: Sequence[str]) -> list[Site]:
    """The sites that the patterns name, in the order of the model's modules, a shared module once.

    A pattern is matched path segment by path segment: `blocks.*` names `blocks.0`, not `blocks.0.attn`.

    Raises:
        EsperdError: SITE_PATTERN if a pattern names no module, TASK_INVALID if a site yields no tensor.
    """
    paths = _matching(host.model, patterns)
    seen = _observe(host, [module for _, module in paths])
    sites = []
    for (path, module), spec in zip(paths, seen, strict=True):
        if spec is None:
            raise EsperdError("TASK_INVALID", task="", detail=f"the site {path} yields no floating-point tensor")
        sites.append(Site(path, module, spec))
    return sites


def split_output(output: Any) -> tuple[Tensor | None, Callable[[Tensor], Any]]:
    """The activation in a module's output (itself, or the first of a tuple or list), and how to put it back."""
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        rest = output[1:]
        if hasattr(output, "_fields"):
            return output[0], lambda tensor: type(output)(tensor, *rest)
        return output[0], lambda tensor: (tensor, *rest)
    if isinstance(output, list) and output and isinstance(output[0], Tensor):
        return output[0], lambda tensor: [tensor, *output[1:]]
    return None, lambda tensor: tensor


def num_units(targets: Any, inputs: Any) -> int:
    """Units in a batch: the size of the first dimension of the first tensor found."""
    for value in (targets, inputs):
        if isinstance(value, Tensor) and value.dim() > 0:
            return int(value.shape[0])
        if isinstance(value, (tuple, list)) and value:
            return num_units(value[0], value[0])
        if isinstance(value, dict) and value:
            first = next(iter(value.values()))
            return num_units(first, first)
    return 1


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[tuple[str, nn.Module]]:
    named = [(path, module) for path, module in model.named_modules(remove_duplicate=False) if path]
    taken: dict[int, tuple[str, nn.Module]] = {}
    for pattern in patterns:
        found = [(path, module) for path, module in named if _names(pattern, path)]
        if not found:
            known = ", ".join(path for path, _ in named[:30])
            raise EsperdError("SITE_PATTERN", pattern=pattern, known=known)
        for path, module in found:
            taken.setdefault(id(module), (path, module))
    order = {id(module): index for index, (_, module) in reversed(list(enumerate(named)))}
    return sorted(taken.values(), key=lambda item: order[id(item[1])])


def _names(pattern: str, path: str) -> bool:
    wanted, segments = pattern.split("."), path.split(".")
    return len(wanted) == len(segments) and all(map(fnmatch.fnmatchcase, segments, wanted))


def _observe(host: Host, modules: Sequence[nn.Module]) -> list[ActivationSpec | None]:
    """Run the host once on a sample batch, in eval mode and with a random stream of its own, and look."""
    seen: dict[int, tuple[Tensor, int, torch.dtype | None]] = {}
    kind = host.device.type

    def look(module: nn.Module, _args: Any, output: Any) -> None:
        activation, _ = split_output(output)
        if activation is not None and activation.is_floating_point() and activation.dim() >= 2:
            autocast_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
            seen[id(module)] = (activation, activation._version, autocast_dtype)

    handles = [module.register_forward_hook(look) for module in modules]
    inputs, targets = host.sample_inputs()
    try:
        with (
            quiet_eval(host.model),
            torch.no_grad(),
            private_rng(host.device, 0),
            FlopCounterMode(display=False) as counter,
        ):
            output = host.forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
    units = num_units(targets, inputs)
    flops = counter.get_total_flops() / max(1, units)
    logits, _ = split_output(output)
    return [_spec(seen.get(id(module)), logits, flops, units) for module in modules]


def _spec(
    seen: tuple[Tensor, int, torch.dtype | None] | None, logits: Tensor | None, host_forward_flops: float, units: int
) -> ActivationSpec | None:
    if seen is None:
        return None
    activation, version, autocast_dtype = seen
    return ActivationSpec(
        shape=tuple(activation.shape),
        dtype=activation.dtype,
        autocast_dtype=autocast_dtype,
        yields_logits=logits is activation,
        changed_in_place=activation._version != version,
        num_classes=int(logits.shape[-1]) if logits is not None and logits.dim() else 2,
        host_forward_flops=host_forward_flops if math.isfinite(host_forward_flops) else 0.0,
        num_units=units,
    )


class quiet_eval:  # noqa: N801 - a context manager that reads as a verb phrase where it is used
    """Put every module into evaluation mode for the body and give each exactly its own flag back.

    Sets the flags themselves: `Module.train` may be overridden, and would make all of them equal.
    """

    def __init__(self, model: nn.Module) -> None:
        self._flags = [(module, module.training) for module in model.modules()]

    def __enter__(self) -> None:
        for module, _ in self._flags:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, training in self._flags:
            module.training = training
