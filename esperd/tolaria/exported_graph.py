"""One model and one batch as a graph of torch operators, and what is known of that graph.

Any thread of a process that computes nothing else. Knows no seed, no run and no file. Its batch dimension is left open
where the model allows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.utils import _pytree as pytree

from esperd.leyline.errors import EsperdError

_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)
"""Operators that compute nothing and only tie the graph to the device it was captured on."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the graph that is not an input: a parameter, a buffer or a constant."""

    placeholder: str
    """Its name in the graph."""
    name: str
    """Its name in the module."""
    tensor: Tensor
    is_parameter: bool


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """A captured model."""

    program: ExportedProgram
    batch_size: int
    """Of the batch it was captured with."""
    is_batch_dynamic: bool
    note: str
    """Why the batch size is fixed; empty when it is not."""


def capture(model: nn.Module, inputs: Any, batch_size: int) -> ExportedGraph:
    """Trace `model(inputs)`, with any batch size where the model allows that, else with exactly this one.

    Raises:
        EsperdError: EXPORT_FAILED.
    """
    note = ""
    try:
        program = _trace(model, inputs, _open_batch(inputs))
    except Exception as error:  # noqa: BLE001 - tracing runs the user's model: whatever it raises, one more way is left
        note = f"the batch size could not be left open: {_first_line(error)}"
        try:
            program = _trace(model, inputs, None)
        except Exception as last:
            raise EsperdError("EXPORT_FAILED", detail=f"torch.export gave up: {_first_line(last)}") from last
    is_dynamic = not note and any(_is_open(size) for size in _batch_sizes(program))
    if not is_dynamic and not note:
        note = "the model itself fixes the batch size"
    _drop_checks(program.graph_module)
    program.example_inputs = None  # training data, which is not for whoever gets the model
    return ExportedGraph(program, batch_size, is_dynamic, note)


def weights(program: ExportedProgram) -> list[Weight]:
    """Everything the graph needs besides its inputs, in its own order.

    Raises:
        EsperdError: EXPORT_FAILED if it needs something that is no tensor.
    """
    found = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        if spec.kind not in _STATE or spec.target is None:
            raise EsperdError("EXPORT_FAILED", detail=f"the model holds {spec.target}, which is no tensor")
        tensor = _tensor_of(program, spec)
        found.append(Weight(spec.arg.name, spec.target, tensor.detach(), spec.kind is InputKind.PARAMETER))
    return found


def user_inputs(program: ExportedProgram) -> list[str]:
    """The names in the graph of the model's own inputs, flattened."""
    return [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]


def foreign_libraries(program: ExportedProgram) -> list[str]:
    """Whoever else's operators the graph calls: these must be imported before it is loaded."""
    targets = [node.target for part in _parts(program.graph_module) for node in part.graph.nodes]
    names = {target.namespace for target in targets if isinstance(target, torch._ops.OpOverload)}
    return sorted(names - {"aten", "prim", "prims"})


def _trace(model: nn.Module, inputs: Any, dynamic_shapes: Any) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(model, (inputs,), dynamic_shapes=dynamic_shapes)


def _open_batch(inputs: Any) -> Any:
    def shape_of(leaf: Any) -> Any:
        return {0: Dim.AUTO} if isinstance(leaf, Tensor) and leaf.dim() > 0 else None

    return (pytree.tree_map(shape_of, inputs),)


def _batch_sizes(program: ExportedProgram) -> Iterator[Any]:
    names = set(user_inputs(program))
    for node in program.graph.nodes:
        if node.name in names and isinstance(node.meta.get("val"), Tensor) and node.meta["val"].dim() > 0:
            yield node.meta["val"].shape[0]


def _is_open(size: Any) -> bool:
    """Whether a size is a symbol that may still be any number."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def _tensor_of(program: ExportedProgram, spec: InputSpec) -> Tensor:
    assert spec.target is not None
    held: Any = program.state_dict.get(spec.target)
    tensor: Tensor = program.constants[spec.target] if held is None else held
    return tensor


def _parts(module: torch.fx.GraphModule) -> list[torch.fx.GraphModule]:
    """A graph with the graphs that are nested in it."""
    return [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]


def _drop_checks(module: torch.fx.GraphModule) -> None:
    for part in _parts(module):
        for node in list(part.graph.nodes):
            if node.target in _CHECKS and not node.users:
                part.graph.erase_node(node)
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
        part.recompile()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
