"""What computing costs: floating-point operations of a training step, and the true cost of a blueprint at a site.

Runs on the training thread. Computes with fake tensors: no memory is taken, no parameter, buffer or random generator
moves, and the numbers are those of the real device. One multiply-accumulate counts as 2; matrix products,
convolutions and attention count, elementwise work and norms do not (the convention of PyTorch's own counter, and of
the literature). Causal attention counts as full attention.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Shape
from esperd.leyline.views import Cost

Step = Callable[..., Any]


class FlopCountError(ValueError):
    """The operations cannot be counted without real values; the message says why."""


@dataclass(frozen=True, slots=True)
class FlopCount:
    """Floating-point operations of one training step."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward together."""
        return self.forward + self.backward


def count_flops(module: nn.Module, *inputs: Any) -> FlopCount:
    """Operations of the module's forward on these inputs, and of the backward to every parameter.

    Also to the inputs that require a gradient. Works on copies without data; nothing of the module changes.

    Raises:
        FlopCountError: the module's course depends on the values in its tensors.
    """
    return count_step_flops(module, lambda model, *arguments: model(*arguments), *inputs)


def count_step_flops(module: nn.Module, step: Step, *inputs: Any) -> FlopCount:
    """Operations of `step(module, *inputs)`, which returns a loss (or any tensors), and of its backward.

    Raises:
        FlopCountError: the step's course depends on the values in its tensors.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake_mode:
        bound = _Bound(module, step)
        state = {**dict(bound.named_parameters()), **dict(bound.named_buffers())}
        fakes = {name: _fake(fake_mode, tensor) for name, tensor in state.items()}
        arguments = tree_map(lambda leaf: _fake(fake_mode, leaf), inputs)
        return _count(lambda: functional_call(bound, fakes, arguments))


def estimate_cost(
    descriptor: BlueprintDescriptor,
    site_shape: Shape,
    dtype: torch.dtype = torch.float32,
    parameters: Mapping[str, float] | None = None,
) -> Cost:
    """What a seed of this blueprint costs at an activation of this shape: parameters, operations, memory.

    Operations and bytes are for one sample. The backward goes to the parameters and to the seed's input. Activation
    bytes are what the backward keeps beyond parameters and the host's own activation.

    Raises:
        BlueprintParameterError: a parameter is unknown or out of bounds.
        SiteNotAdmissibleError: the blueprint cannot grow at this shape.
    """
    with FakeTensorMode():
        module = descriptor.build(site_shape, parameters)
        tensors = (*module.named_parameters(), *module.named_buffers())
        state = {name: _cast(tensor, dtype) for name, tensor in tensors}
        x = torch.empty((1, *site_shape[1:]), dtype=dtype, requires_grad=True)
        kept = _KeptBytes([*state.values(), x])
        with saved_tensors_hooks(kept.pack, kept.unpack):
            flops = _count(lambda: functional_call(module, state, (x,)))
    return Cost(
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        forward_flops=flops.forward,
        backward_flops=flops.backward,
        activation_bytes=kept.num_bytes,
    )


class _Bound(nn.Module):
    """A step with its module inside, so that the module's tensors can be exchanged for the call."""

    def __init__(self, module: nn.Module, step: Step) -> None:
        super().__init__()
        self.module = module
        self._step = step

    def forward(self, *inputs: Any) -> Any:
        return self._step(self.module, *inputs)


class _KeptBytes:
    """Bytes of the storages that autograd keeps for the backward, each once, without the given tensors'."""

    def __init__(self, owned: list[Tensor]) -> None:
        self.num_bytes = 0
        self._tensors: list[Tensor] = list(owned)  # held, so that no address is used twice
        self._seen = {_storage_key(tensor) for tensor in owned}

    def pack(self, tensor: Tensor) -> Tensor:
        key = _storage_key(tensor)
        if key not in self._seen:
            self._seen.add(key)
            self._tensors.append(tensor)
            self.num_bytes += tensor.untyped_storage().nbytes()
        return tensor

    @staticmethod
    def unpack(tensor: Tensor) -> Tensor:
        return tensor


def _count(forward: Callable[[], Any]) -> FlopCount:
    """Count under the fake mode that is on."""
    with FlopCounterMode(display=False, custom_mapping=_CORRECTIONS) as counter:
        try:
            outputs = forward()
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise FlopCountError(
                f"the operations cannot be counted, since the step reads values from its tensors: {error}"
            ) from error
        forward_flops = counter.get_total_flops()
        leaves = [leaf for leaf in _tensors(outputs) if leaf.requires_grad]
        if leaves:
            torch.autograd.backward(leaves, [torch.ones_like(leaf) for leaf in leaves])
        return FlopCount(forward_flops, counter.get_total_flops() - forward_flops)


def _tensors(outputs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, outputs)
    return found


def _fake(fake_mode: FakeTensorMode, leaf: Any) -> Any:
    return fake_mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A fake tensor in another dtype; a module of fake tensors cannot be converted in place."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)


def _storage_key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two products, (T, K) x (K, S) and (T, S) x (S, V), for each batch entry and head."""
    batch, heads, num_queries, key_dim = query
    num_keys, value_dim = key[2], value[3]
    return int(2 * batch * heads * num_queries * num_keys * (key_dim + value_dim))


def _attention_backward_flops(_grad_out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Five products: the scores once more, then the gradients of weights, values, queries and keys."""
    batch, heads, num_queries, key_dim = query
    num_keys, value_dim = key[2], value[3]
    return int(2 * batch * heads * num_queries * num_keys * (3 * key_dim + 2 * value_dim))


def _convolution_backward_flops(
    grad_out: Any,
    x: Any,
    weight: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Any,
    **__: Any,
) -> int:
    """The gradients of input and weight, where asked for, each as many products as the forward."""
    batch, _, *pixels = x if transposed else grad_out
    return int(2 * batch * math.prod(pixels) * math.prod(weight) * sum(map(bool, output_mask[:2])))


_CORRECTIONS = {
    # PyTorch counts a grouped convolution's weight gradient as if it had no groups.
    torch.ops.aten.convolution_backward: _convolution_backward_flops,
    # PyTorch knows the attention kernels of CUDA only, and counts the CPU's as nothing.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
