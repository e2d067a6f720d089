"""The arms that a grown model is held against, as bare loops: no daemon, no lifecycle, nothing but PyTorch.

Used by the demo and by the growth benchmark, in worker processes. Design 03, Honest claims: every headline names the
host alone at equal steps and at equal FLOPs, naive insertion, the final shape from scratch, and a well-chosen static
model.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from esperd.kasmina.blueprints.costs import count_step_flops, estimate_cost
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.tolaria.feed import DeviceCopier
from esperd.tolaria.held_out import evaluating, validate
from esperd.tolaria.losses import num_units
from esperd.tolaria.precision import untouched_rng
from esperd.tolaria.task import Task

BuildTask = Callable[[int], Task]
"""Makes the task for a number of steps, on which its learning-rate schedule depends."""


@dataclass(frozen=True, slots=True)
class Insertion:
    """One blueprint put at one site."""

    site: str
    blueprint_id: str
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one training run came to."""

    val_loss: float
    val_accuracy: float
    """NaN when the task reports no accuracy."""
    params: int
    train_flops: float
    steps: int


def train_arm(
    build_task: BuildTask,
    num_steps: int,
    *,
    random_seed: int,
    insertions: Sequence[Insertion] = (),
    insert_at_step: int = 0,
    random_init: bool = False,
) -> ArmResult:
    """Train for `num_steps`; `insertions` join at `insert_at_step` at full strength, everything trained jointly.

    At step 0 that is the final shape from scratch, later it is naive insertion. `random_init` draws the zeroed
    output layers anew, so that the insertion does not preserve the function.
    """
    torch.manual_seed(random_seed)
    task = build_task(num_steps)
    inserted: list[nn.Module] = []
    step_flops, train_flops = 0.0, 0.0
    for step, (inputs, targets) in zip(range(num_steps), _endless(task), strict=False):
        if step == 0:
            step_flops = float(count_step_flops(task.model, _Loss(task), inputs, targets).total)
        if step == insert_at_step:
            for insertion in insertions:
                module, flops = _insert(task.model, insertion, inputs)
                inserted.append(_redrawn(module) if random_init else module)
                task.optimizer.param_groups[0]["params"].extend(module.parameters())
                step_flops += flops
        train_flops += step_flops
        _train_step(task, inputs, targets)
    return _judge(task, inserted, train_flops, num_steps)


def steps_for_flops(build_task: BuildTask, flops: float, insertions: Sequence[Insertion] = ()) -> int:
    """How many steps of the host (with `insertions` from the start) `flops` pay for; at least 1."""
    task = build_task(1)
    inputs, targets = next(_endless(task))
    per_step = float(count_step_flops(task.model, _Loss(task), inputs, targets).total)
    per_step += sum(_insert(task.model, insertion, inputs)[1] for insertion in insertions)
    return max(1, round(flops / per_step))


class _Loss:
    """The training loss of a model on a batch, as the FLOP counter wants it."""

    def __init__(self, task: Task) -> None:
        self._loss_fn = task.loss_fn

    def __call__(self, model: nn.Module, inputs: Any, targets: Any) -> torch.Tensor:
        return self._loss_fn(model(inputs), targets)


def _train_step(task: Task, inputs: Any, targets: Any) -> None:
    loss = task.loss_fn(task.model(inputs), targets)
    torch.autograd.backward(loss)
    task.optimizer.step()
    task.optimizer.zero_grad(set_to_none=True)
    if task.scheduler is not None and not isinstance(task.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        task.scheduler.step()


def _endless(task: Task) -> Iterator[tuple[Any, Any]]:
    while True:
        for batch in task.train_data:
            yield batch[0], batch[1]


def _insert(model: nn.Module, insertion: Insertion, inputs: Any) -> tuple[nn.Module, float]:
    """Hook a new module behind the site; returns it and the FLOPs it adds to a step."""
    site = model.get_submodule(insertion.site)
    shape = _activation_shape(model, site, inputs)
    descriptor = standard_registry().get(insertion.blueprint_id)
    module = descriptor.build(shape, insertion.parameters)

    def add(_site: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        blended: torch.Tensor = output + module(output)
        return blended

    site.register_forward_hook(add)
    cost = estimate_cost(descriptor, shape, parameters=insertion.parameters)
    return module, float(cost.forward_flops + cost.backward_flops) * num_units(inputs)


def _activation_shape(model: nn.Module, site: nn.Module, inputs: Any) -> tuple[int, ...]:
    shapes: list[tuple[int, ...]] = []
    handle = site.register_forward_hook(lambda _site, _inputs, output: shapes.append(tuple(output.shape)))
    with untouched_rng(), evaluating(model), torch.no_grad():
        model(inputs)
    handle.remove()
    return shapes[-1]


def _redrawn(module: nn.Module) -> nn.Module:
    for part in module.modules():
        weight = getattr(part, "weight", None)
        if isinstance(part, nn.Conv2d | nn.Linear) and weight is not None and not bool(weight.any()):
            part.reset_parameters()
    return module


def _judge(task: Task, inserted: Sequence[nn.Module], train_flops: float, num_steps: int) -> ArmResult:
    copier = DeviceCopier(torch.device("cpu"), prefetch=False, channels_last=False)
    judged = validate(task.model, task.model, task.loss_fn, task.metrics, task.eval_data, copier)
    own = sum(parameter.numel() for parameter in task.model.parameters())
    grown = sum(parameter.numel() for module in inserted for parameter in module.parameters())
    return ArmResult(judged.loss, judged.metrics.get("accuracy", math.nan), own + grown, train_flops, num_steps)
