"""Held-out data: the validation split read whole, and the probe set that contributions are measured on.

Training thread only. Neither touches a global random generator, the training data, or the mode of any module.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from esperd.kasmina.ports import Batch
from esperd.leyline.errors import EsperdError
from esperd.tolaria.feed import DeviceCopier
from esperd.tolaria.losses import UnitLosses, num_units
from esperd.tolaria.precision import seed_everything, untouched_rng
from esperd.tolaria.task import LossFn

MAX_PROBE_UNITS = 8192
"""Units of the probe data kept on the device, at most."""

MAX_PROBE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Validation:
    """What the validation split says: means over its units, the smaller last batch counted by its size."""

    loss: float
    metrics: Mapping[str, float]
    num_units: int


def validate(
    model: nn.Module,
    forward: Callable[[Any], torch.Tensor],
    loss_fn: LossFn,
    metrics: Mapping[str, LossFn],
    batches: Iterable[Batch],
    copier: DeviceCopier,
) -> Validation:
    """Loss and metrics over all of `batches`, in eval mode, without gradients; the model is left as it was."""
    sums: dict[str, torch.Tensor] = {}
    count = 0
    with untouched_rng(), evaluating(model), torch.inference_mode():
        for batch in batches:
            inputs, targets = copier.copy((batch[0], batch[1]))
            output = forward(inputs)
            size = num_units(targets)
            for name, function in (("", loss_fn), *metrics.items()):
                value = torch.as_tensor(function(output, targets)).double() * size
                sums[name] = sums[name] + value if name in sums else value
            count += size
    means = {name: float(total) / count for name, total in sums.items()}
    return Validation(means.pop("", math.nan), means, count)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and afterwards each exactly in the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class ProbeSet:
    """Held-out units on the device, drawn without replacement by a random stream of their own.

    The data is read once, at the first use, up to MAX_PROBE_UNITS.
    """

    def __init__(self, data: Iterable[Batch], copier: DeviceCopier, random_seed: int, task_name: str) -> None:
        self._data = data
        self._copier = copier
        self._random_seed = random_seed
        self._generator = torch.Generator().manual_seed(random_seed)
        self._task_name = task_name
        self._pool: Batch | None = None
        self._order = torch.empty(0, dtype=torch.long)
        self._next = 0

    def __len__(self) -> int:
        return num_units(self._read())

    def draw(self, num_wanted: int) -> Sequence[Batch]:
        """Batches with `num_wanted` units together (fewer if the data has fewer); reshuffled when exhausted."""
        pool_size = len(self)
        num_wanted = min(num_wanted, pool_size)
        drawn: list[Batch] = []
        while num_wanted > 0:
            if self._next >= len(self._order):
                self._order = torch.randperm(pool_size, generator=self._generator)
                self._next = 0
            chosen = self._order[self._next : self._next + num_wanted]
            self._next += len(chosen)
            num_wanted -= len(chosen)
            drawn.append(self._take(chosen))
        return drawn

    def fixed(self, num_wanted: int) -> Batch:
        """The same units at every call, spread evenly over the data: what two moments are compared on."""
        pool_size = len(self)
        num_wanted = min(num_wanted, pool_size)
        return self._take(torch.arange(num_wanted) * pool_size // num_wanted)

    def state_dict(self) -> dict[str, Any]:
        """The random stream and what is left of this pass."""
        return {"generator": self._generator.get_state(), "order": self._order, "next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._generator.set_state(state["generator"])
        self._order, self._next = state["order"].clone(), state["next"]

    def _take(self, chosen: torch.Tensor) -> Batch:
        on_device = chosen.to(self._copier.device)
        taken: Batch = pytree.tree_map_only(torch.Tensor, lambda t: t.index_select(0, on_device), self._read())
        return taken

    def _read(self) -> Batch:
        if self._pool is None:
            with untouched_rng():
                seed_everything(self._random_seed)  # the same units whenever they are read, after a restart too
                self._pool = self._join(list(self._first_batches()))
        return self._pool

    def _first_batches(self) -> Iterator[Batch]:
        count = size_bytes = 0
        for batch in self._data:
            yield (batch[0], batch[1])
            count += num_units(batch)
            leaves = (leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor))
            size_bytes += sum(leaf.numel() * leaf.element_size() for leaf in leaves)
            if count >= MAX_PROBE_UNITS or size_bytes >= MAX_PROBE_BYTES:
                return

    def _join(self, batches: list[Batch]) -> Batch:
        if not batches:
            raise EsperdError("TASK_INVALID", task=self._task_name, detail="the probe data gave no batch")
        try:
            joined = pytree.tree_map(lambda *tensors: torch.cat(tensors), *batches)
        except (RuntimeError, TypeError, ValueError) as error:
            detail = f"the batches of the probe data cannot be joined along their first dimension ({error})"
            raise EsperdError("TASK_INVALID", task=self._task_name, detail=detail) from error
        return self._copier.copy(joined)


def mean_loss(model: nn.Module, forward: Callable[[Any], torch.Tensor], unit_losses: UnitLosses, batch: Batch) -> float:
    """Mean loss over the units of a held-out batch, in eval mode, without gradients."""
    with untouched_rng(), evaluating(model), torch.inference_mode():
        return float(unit_losses(forward(batch[0]), batch[1]).mean())
