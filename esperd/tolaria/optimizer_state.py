"""The state of one optimizer with its schedule as a tree of references, and back into a live one, bit for bit.

Training thread only. Parameters are named from outside, so that their order in the groups (which decides the order of
sums) is restored too, and a group or a parameter that has joined since goes. Knows no seed and decides nothing anew.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esperd.kasmina.module_state import laid_out
from esperd.leyline.errors import EsperdError
from esperd.tolaria import schedules
from esperd.tolaria.task import Scheduler

Name = tuple[str, int, int]
"""A parameter: (`host`, 0, its place in the optimizer as the task gave it) or (`seed`, the seed's id, its place)."""


def save(optimizer: torch.optim.Optimizer, names: Mapping[int, Name]) -> dict[str, Any]:
    """State and groups; `names` gives the name of a parameter by its `id`."""
    state = optimizer.state_dict()
    members = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    return {"members": members, "state": _referenced(state["state"]), "groups": _referenced(state["param_groups"])}


def load(
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler | None,
    saved: Mapping[str, Any],
    parameters: Mapping[Name, nn.Parameter],
) -> None:
    """Bring the optimizer's groups into the saved structure, then its state and options; tensors are copied.

    `parameters` holds at least everything that the state names.
    """
    members = [[parameters[tuple(name)] for name in group] for group in saved["members"]]
    _regroup(optimizer, scheduler, members)
    flat = [parameter for group in members for parameter in group]
    kept: dict[Any, Any] = {}
    for key, values in saved["state"].items():
        is_parameter = isinstance(key, int) and key < len(flat)
        kept[key] = _owned(values, flat[key], optimizer.state.get(flat[key], {})) if is_parameter else _copied(values)
    groups = [_options(live, options) for live, options in zip(optimizer.param_groups, saved["groups"], strict=True)]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})
    for key, values in kept.items():
        if isinstance(key, int) and key < len(flat):
            _keep_dtypes(optimizer.state[flat[key]], values)


def drop_parameters(optimizer: torch.optim.Optimizer, kept: Iterable[nn.Parameter]) -> None:
    """Take all but these out of the optimizer's groups and its state; groups stay, even when they become empty."""
    wanted = {id(parameter) for parameter in kept}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in wanted]
    for parameter in [p for p in optimizer.state if isinstance(p, Tensor) and id(p) not in wanted]:
        del optimizer.state[parameter]


def save_schedule(scheduler: Scheduler | None) -> dict[str, Any] | None:
    """A schedule's numbers, without the functions in it, which the task makes anew.

    Raises:
        EsperdError: CHECKPOINT_UNSAVABLE for a scheduler of the user's own without a `state_dict`.
    """
    if scheduler is None:
        return None
    if not hasattr(scheduler, "state_dict"):
        detail = f"the scheduler {type(scheduler).__name__} has no state_dict"
        raise EsperdError("CHECKPOINT_UNSAVABLE", path="optimizers/schedule", detail=detail)
    numbers: dict[str, Any] = _referenced(_without_functions(scheduler.state_dict()))
    return numbers


def load_schedule(scheduler: Scheduler | None, saved: Mapping[str, Any] | None) -> None:
    """Put a schedule where it was."""
    if scheduler is not None and saved is not None:
        scheduler.load_state_dict(_copied(saved))


def _regroup(
    optimizer: torch.optim.Optimizer, scheduler: Scheduler | None, members: Sequence[list[nn.Parameter]]
) -> None:
    """Give the groups exactly these members; further groups go or come, in the schedule's lists too."""
    schedules.cut_groups(optimizer, scheduler, len(members))
    for parameters in members[len(optimizer.param_groups) :]:
        schedules.add_group(optimizer, scheduler, {"params": list(parameters)}, 1.0)
    for group, parameters in zip(optimizer.param_groups, members, strict=True):
        group["params"] = list(parameters)
    drop_parameters(optimizer, (parameter for group in members for parameter in group))


def _owned(values: Any, parameter: nn.Parameter, live: Any) -> Any:
    """A copy of one parameter's state on its device and in its layout, in the tensors that are there already if any.

    `step` stays where it is: torch itself knows which optimizers want it on the device.
    """
    if isinstance(values, Mapping):
        now = live if isinstance(live, Mapping) else {}
        return {
            key: value.clone()
            if key == "step" and isinstance(value, Tensor)
            else _owned(value, parameter, now.get(key))
            for key, value in values.items()
        }
    if isinstance(values, (list, tuple)):
        return type(values)(_owned(value, parameter, None) for value in values)
    if not isinstance(values, Tensor):
        return copy.deepcopy(values)
    if _fits(live, values, parameter):
        live.copy_(values)
        return live
    strides = parameter.stride() if values.shape == parameter.shape else values.stride()
    return laid_out(values, strides, parameter.device)


def _fits(live: Any, saved: Tensor, parameter: nn.Parameter) -> bool:
    """Whether the live tensor can take the saved numbers."""
    return (
        isinstance(live, Tensor)
        and live.shape == saved.shape
        and live.dtype == saved.dtype
        and live.device == parameter.device
    )


def _keep_dtypes(live: Any, saved: Mapping[str, Any]) -> None:
    """Undo torch's cast of state to the parameter's dtype: this optimizer had it in another on purpose."""
    for key, value in saved.items():
        if key != "step" and isinstance(value, Tensor) and live[key].dtype != value.dtype:
            live[key] = value


def _options(live: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """A group's saved options, tensors among them (a learning rate, at times) where they live now."""
    options: dict[str, Any] = _copied(saved)
    for key, value in options.items():
        if isinstance(value, Tensor) and isinstance(live.get(key), Tensor):
            options[key] = value.to(live[key].device)
    return options


def _without_functions(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_functions(value) for key, value in state.items() if not callable(value)}
    if isinstance(state, list):
        return [_without_functions(value) for value in state]
    return state


def _referenced(value: Any) -> Any:
    """The same containers anew, with the same tensors."""
    return _mapped(value, Tensor.detach)


def _copied(value: Any) -> Any:
    """Everything anew."""
    return _mapped(value, Tensor.clone)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (dict, list, tuple):
        if isinstance(value, dict):
            return {key: _mapped(item, change) for key, item in value.items()}
        return type(value)(_mapped(item, change) for item in value)
    return copy.deepcopy(value)
