"""One loss per unit from a loss that is a mean over the batch: what paired measurements need.

Training thread only. A unit is a sample, or for token-level outputs a whole sequence, whose tokens are not independent.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from esperd.tolaria.task import Task

UnitLosses = Callable[[torch.Tensor, Any], torch.Tensor]


def unit_losses(task: Task) -> UnitLosses:
    """(output, targets) to one float32 loss per unit, shape (units,).

    The task's own `per_sample_loss` if there is one; else torch's plain cross entropy and squared error without their
    reduction; else one call of `loss_fn` per sample, which is exact for any mean over samples, and slow.
    """
    own = task.per_sample_loss
    if own is not None:
        return lambda output, targets: own(output, targets).float()
    loss_fn = task.loss_fn
    if _is_plain(loss_fn, nn.CrossEntropyLoss, functional.cross_entropy):
        smoothing = float(getattr(loss_fn, "label_smoothing", 0.0))
        return lambda output, targets: _cross_entropy(output.float(), targets, smoothing)
    if _is_plain(loss_fn, nn.MSELoss, functional.mse_loss):
        return lambda output, targets: _per_unit(functional.mse_loss(output.float(), targets, reduction="none"))
    return lambda output, targets: _one_by_one(loss_fn, output, targets)


def num_units(batch: Any) -> int:
    """Samples in a batch (or any part of one): the first dimension of its first tensor."""
    first = batch[0] if isinstance(batch, tuple) else None
    if isinstance(first, torch.Tensor) and first.dim() > 0:  # nearly always: no tree to walk
        return len(first)
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 0:
            return len(leaf)
    return 1


def select(batch: Any, start: int, stop: int) -> Any:
    """The samples `start` to `stop` of every tensor in a batch."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor[start:stop], batch)


def _is_plain(loss_fn: object, module_type: type[nn.Module], function: object) -> bool:
    if loss_fn is function:
        return True
    if type(loss_fn) is not module_type:
        return False
    return getattr(loss_fn, "weight", None) is None and getattr(loss_fn, "reduction", "") == "mean"


def _cross_entropy(output: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    losses = functional.cross_entropy(output, targets, reduction="none", label_smoothing=smoothing)
    if losses.dim() == 1:
        return losses
    counted = (targets != -100).flatten(1)  # torch's ignore_index: those positions are not in the mean
    return losses.flatten(1).sum(1) / counted.sum(1).clamp(min=1)


def _per_unit(losses: torch.Tensor) -> torch.Tensor:
    return losses if losses.dim() == 1 else losses.flatten(1).mean(1)


def _one_by_one(
    loss_fn: Callable[[torch.Tensor, Any], torch.Tensor], output: torch.Tensor, targets: Any
) -> torch.Tensor:
    singles = [loss_fn(output[i : i + 1], select(targets, i, i + 1)) for i in range(len(output))]
    return torch.stack(singles).float()
