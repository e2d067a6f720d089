"""Everything that a module holds, as references, and back into a module of the same build: for exact resumption.

Training thread only; used for the host and for seeds alike. Holds what `state_dict` leaves out too: buffers that are
not persistent, random generators that a module keeps, each submodule's own mode. What else a module keeps in plain
attributes it must give through torch's `get_extra_state`.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def save_module(module: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by name (references, detached), extra state, private generators, modes."""
    return {
        "parameters": {name: parameter.detach() for name, parameter in module.named_parameters()},
        "buffers": {name: buffer.detach() for name, buffer in module.named_buffers()},
        "extra": {name: part.get_extra_state() for name, part in _with_extra_state(module)},
        "generators": {name: generator.get_state() for name, generator in _generators(module)},
        "training": [part.training for part in module.modules()],
    }


def check_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless `load_module` can put this state into the module."""
    _paired(module, state)
    generators = {name for name, _ in _generators(module)}
    extra = {name for name, _ in _with_extra_state(module)}
    num_parts = sum(1 for _ in module.modules())
    if generators != set(state["generators"]) or extra != set(state["extra"]) or num_parts != len(state["training"]):
        raise ValueError(f"{type(module).__name__} is not built as it was when it was saved")


def load_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Copy a saved state into the module; parameters and buffers keep identity, device and strides.

    A buffer that has another shape now, is new or is gone is replaced as a whole.

    Raises:
        ValueError: the module is not built as it was when it was saved; nothing has been changed then.
    """
    check_module(module, state)
    pairs = _paired(module, state)
    with torch.no_grad():
        if pairs:
            torch._foreach_copy_([live.detach() for live, _ in pairs], [saved for _, saved in pairs])
        _load_buffers(module, state["buffers"])
    for name, part in _with_extra_state(module):
        part.set_extra_state(copy.deepcopy(state["extra"][name]))
    for name, generator in _generators(module):
        generator.set_state(state["generators"][name].cpu())
    for part, training in zip(module.modules(), state["training"], strict=True):
        part.training = training


def pack_batch(batch: Any) -> dict[str, Any]:
    """A batch (any nest of tensors and plain values) as references, with the strides of its tensors."""
    detached = pytree.tree_map_only(Tensor, Tensor.detach, batch)
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    return {"tree": detached, "strides": [tuple(tensor.stride()) for tensor in tensors]}


def unpack_batch(saved: Mapping[str, Any], device: torch.device) -> Any:
    """A copy of a packed batch on a device, its tensors laid out in memory as they were."""
    strides = iter(saved["strides"])
    return pytree.tree_map_only(Tensor, lambda tensor: laid_out(tensor, next(strides), device), saved["tree"])


def laid_out(tensor: Tensor, strides: Sequence[int], device: torch.device) -> Tensor:
    """A copy of a tensor on a device with the given strides (contiguous where these would overlap)."""
    if _overlap(strides, tensor.shape):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    else:
        copy = torch.empty_strided(tuple(tensor.shape), tuple(strides), dtype=tensor.dtype, device=device)
    return copy.copy_(tensor)


def _paired(module: nn.Module, state: Mapping[str, Any]) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter with what was saved of it."""
    live, saved = dict(module.named_parameters()), state["parameters"]
    if live.keys() != saved.keys():
        different = sorted(live.keys() ^ saved.keys())
        raise ValueError(f"its parameters have other names than those saved: {', '.join(different[:5])}")
    for name, parameter in live.items():
        if parameter.shape != saved[name].shape or parameter.dtype != saved[name].dtype:
            now, then = _described(parameter), _described(saved[name])
            raise ValueError(f"parameter {name} is {now}, and {then} was saved")
    return [(parameter, saved[name]) for name, parameter in live.items()]


def _load_buffers(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    live = dict(module.named_buffers())
    for name in live.keys() - saved.keys():
        owner, _, attribute = name.rpartition(".")
        module.get_submodule(owner)._buffers[attribute] = None
    device = next((tensor.device for tensor in (*module.parameters(), *live.values())), torch.device("cpu"))
    for name, tensor in saved.items():
        now = live.get(name)
        if (
            now is not None
            and now.shape == tensor.shape
            and now.dtype == tensor.dtype
            and not _overlap(now.stride(), now.shape)
        ):
            now.copy_(tensor)
        else:
            owner, _, attribute = name.rpartition(".")
            place = device if now is None else now.device
            module.get_submodule(owner)._buffers[attribute] = tensor.detach().to(place, copy=True)


def _with_extra_state(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_modules():
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            yield name, part


def _generators(module: nn.Module) -> Iterator[tuple[str, torch.Generator]]:
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if type(value) is torch.Generator:  # its isinstance is slow, and this looks at every attribute
                yield f"{name}.{attribute}", value


def _overlap(strides: Sequence[int], shape: Sequence[int]) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(strides, shape, strict=True))


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
