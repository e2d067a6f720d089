"""Reads a module's training step as two graphs that hand each other nothing but tensors.

The compiler's process only. The forward graph takes parameters, buffers and the activation, in this order, and yields
the new values of the buffers that it changes, the delta, and what the backward needs; the backward graph takes the
saved tensors and the gradient of the delta. Method and traps: design research, ahead-of-time kernels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from esper.tezzeret.inside_torch import BatchWorld, no_mkldnn
from esper.tezzeret.parting import PartingError, part
from esperd.kasmina.kernels.variant import dtype_name
from esperd.leyline.kernels import KernelInput, SavedTensor
from esperd.leyline.vocabulary import KernelInputKind


class CaptureError(ValueError):
    """The module is none that can be compiled; the message says why."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A training step as graphs, and how their inputs and outputs belong together."""

    world: BatchWorld
    forward: fx.GraphModule
    backward: fx.GraphModule
    parameter_backward: fx.GraphModule
    inputs: tuple[KernelInput, ...]
    mutated_buffers: tuple[str, ...]
    saved: tuple[SavedTensor, ...]
    gradients: tuple[int, ...]
    parameter_gradients: tuple[int, ...]
    draws_random: bool


def capture(module: nn.Module, example: Tensor, max_batch: int, autocast_dtype: torch.dtype | None = None) -> Captured:
    """Read the training step of a module in training mode at an activation like the example (batch size first).

    It is read for batches of up to `max_batch`; compiling may narrow the range.

    Raises:
        CaptureError: it yields no single tensor of the activation's shape, or cannot be read.
    """
    world = BatchWorld(max_batch)
    x = world.activation(example).requires_grad_(True)
    with training_conditions(example.device.type, autocast_dtype):
        forward, backward = world.trace(module, x)
    try:
        parted = part(forward, backward)
    except PartingError as error:
        raise CaptureError(str(error)) from error
    if parted.delta_shape != tuple(x.shape):
        raise CaptureError(f"the delta has the shape {parted.delta_shape}, the activation {tuple(x.shape)}")
    return Captured(
        world=world,
        forward=parted.forward,
        backward=parted.backward,
        parameter_backward=parted.parameter_backward,
        inputs=tuple(_inputs(module, example, parted.input_names)),
        mutated_buffers=parted.mutated_buffers,
        saved=parted.saved,
        gradients=parted.gradients,
        parameter_gradients=parted.parameter_gradients,
        draws_random=draws_random(forward) or draws_random(backward),
    )


@contextmanager
def training_conditions(device_type: str, autocast_dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast as at the site; and convolutions of no library: choosing one would tie them to batches below 16.

    Which library computes one is chosen when it runs.
    """
    with (
        torch.backends.nnpack.flags(enabled=False),
        no_mkldnn(),
        torch.autocast(device_type, autocast_dtype or torch.bfloat16, enabled=autocast_dtype is not None),
    ):
        yield


def draws_random(graph: fx.GraphModule) -> bool:
    """Whether an operation of the graph draws random numbers."""
    return any(_draws(node, graph) for node in graph.graph.nodes if node.op == "call_function")


def _draws(node: fx.Node, graph: fx.GraphModule) -> bool:
    """Whether the operation draws; attention without dropout counts as drawing in torch's own books."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    named = node.normalized_arguments(graph, normalize_to_only_use_kwargs=True)
    return named is None or named.kwargs.get("dropout_p") != 0.0


def _inputs(module: nn.Module, example: Tensor, names: tuple[str, ...]) -> Iterator[KernelInput]:
    parameters: Mapping[str, Tensor] = dict(module.named_parameters())
    buffers: Mapping[str, Tensor] = dict(module.named_buffers())
    for name in names:
        if not name:
            yield _input(KernelInputKind.ACTIVATION, "", example, tuple(example.shape[1:]), requires_grad=True)
        elif name in parameters:
            found = parameters[name]
            yield _input(KernelInputKind.PARAMETER, name, found, tuple(found.shape), found.requires_grad)
        else:
            yield _input(KernelInputKind.BUFFER, name, buffers[name], tuple(buffers[name].shape), requires_grad=False)


def _input(
    kind: KernelInputKind, name: str, tensor: Tensor, shape: tuple[int, ...], requires_grad: bool
) -> KernelInput:
    return KernelInput(kind, name, dtype_name(tensor.dtype), shape, requires_grad)
