"""An exported graph as Python source that needs torch alone: how a model is rebuilt from a file of weights.

Any thread; pure text from values. The source has the graph's operators line by line, in the order in which they run,
and the names of the weights as the model had them. Nothing is pickled.
"""

import builtins
import keyword
import math
import operator
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, OutputKind, OutputSpec
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from esperd.leyline.errors import EsperdError
from esperd.tolaria.exported_graph import ExportedGraph, user_inputs, weights

_RESERVED = {"device", "inf", "inputs", "math", "nan", "nn", "operator", "self", "torch"}
_MODULES = {math: "math", operator: "operator", torch: "torch", builtins: ""}
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled

_HEAD = '''"""{about}

Made by esperd {version} from the operators that the model runs; needs torch and nothing else:

    from model import load

    model = load("model.safetensors")
    output = model(inputs)

It computes what the trained model computes in evaluation mode; `train()` changes nothing. {batch}
"""

import json
import math
import operator
import struct
from math import inf, nan
from pathlib import Path

import torch
from torch import device, nn

DTYPES = {{
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}}
BUFFERS = {buffers}
SHARED = {shared}
"""Further names of a weight, to the name under which the file has it."""


def load(path):
    """The model with the weights of a safetensors file, in evaluation mode, on the CPU."""
    return Model(read_tensors(path)).eval()


def read_tensors(path):
    """The tensors of a safetensors file by name."""
    data = bytearray(Path(path).read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    start = 8 + length
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {{}}
    for name, entry in header.items():
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if begin == end:
            tensors[name] = torch.empty(shape, dtype=dtype)
        else:
            count = (end - begin) // dtype.itemsize
            # Copied, so that no tensor lies at an odd address or holds the whole file.
            tensors[name] = torch.frombuffer(data, dtype=dtype, count=count, offset=start + begin).clone().view(shape)
    return tensors


class Model(nn.Module):
    """The model; its `state_dict` has the names of the file."""

    def __init__(self, tensors):
        super().__init__()
        held = {{name: self._held(name, tensor) for name, tensor in tensors.items()}}
        for name, value in [*held.items(), *((name, held[first]) for name, first in SHARED.items())]:
            path, _, leaf = name.rpartition(".")
            module = self._module(path)
            if isinstance(value, nn.Parameter):
                module.register_parameter(leaf, value)
            else:
                module.register_buffer(leaf, value)

    @staticmethod
    def _held(name, tensor):
        return tensor if name in BUFFERS else nn.Parameter(tensor, requires_grad=tensor.is_floating_point())

    def _module(self, path):
        module = self
        for name in path.split(".") if path else ():
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module._modules[name]
        return module
'''


def model_source(graph: ExportedGraph, names: Mapping[str, str], *, about: str, version: str) -> str:
    """The source; `names` gives each weight's name in the file of weights.

    Weights that are one tensor in the model come under one name in the file, see `shared_names`. Raises EsperdError
    EXPORT_FAILED where the graph holds something that has no plain text.
    """
    program = graph.program
    batch = (
        "Any batch size will do."
        if graph.is_batch_dynamic
        else f"It takes batches of {graph.batch_size} only: {graph.note}."
    )
    shared = shared_names(graph)
    buffers = sorted({names[w.name] for w in weights(program) if not w.is_parameter and w.name not in shared})
    head = _HEAD.format(
        about=_quotable(about),
        version=version,
        batch=_quotable(batch),
        buffers=_literal(buffers),
        shared=_literal({names[other]: names[first] for other, first in shared.items()}),
    )
    writer = _Writer()
    forward = list(_forward(graph, names, writer))
    functions = [line for function in writer.functions for line in ("", "", *function)]
    return "\n".join([head, *forward, *functions, ""])


def shared_names(graph: ExportedGraph) -> dict[str, str]:
    """Weights that are the same tensor as an earlier one, to that one's name."""
    first: dict[tuple[Any, ...], str] = {}
    shared = {}
    for weight in weights(graph.program):
        tensor = weight.tensor
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        name = first.setdefault(key, weight.name) if tensor.numel() else weight.name
        if name != weight.name:
            shared[weight.name] = name
    return shared


def _forward(graph: ExportedGraph, names: Mapping[str, str], writer: "_Writer") -> Iterator[str]:
    program = graph.program
    yield "    def forward(self, inputs):"
    yield '        """What the trained model gives for one batch of inputs."""'
    lines = _Lines(writer, program.graph_module)
    for weight in weights(program):
        getter = "get_parameter" if weight.is_parameter else "get_buffer"
        if lines.is_used(weight.placeholder):
            yield f"        {lines.names[weight.placeholder]} = self.{getter}({names[weight.name]!r})"
    yield from (f"        {lines.names[name]} = {text}" for name, text in _unpacked(program))
    for line in lines.body():
        yield f"        {line}"
    outputs = [_output(spec, lines) for spec in program.graph_signature.output_specs]
    packed = pytree.tree_unflatten(outputs, program.call_spec.out_spec)
    yield f"        return {_literal(packed)}"


def _output(spec: OutputSpec, lines: "_Lines") -> Any:
    if spec.kind is not OutputKind.USER_OUTPUT:
        raise EsperdError("EXPORT_FAILED", detail=f"the model changes {spec.target} when it is used")
    return spec.arg.value if isinstance(spec.arg, ConstantArgument) else lines.names[spec.arg.name]


def _unpacked(program: torch.export.ExportedProgram) -> Iterator[tuple[str, str]]:
    """Each input of the graph with the expression that takes it out of `inputs`."""
    in_spec = program.call_spec.in_spec
    leaves = pytree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    paths, _ = pytree.tree_flatten_with_path(leaves[0][0])
    for (path, _leaf), name in zip(paths, user_inputs(program), strict=True):
        yield name, f"inputs{pytree.keystr(path)}"


class _Text(str):
    """Source text that is its own `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Writer:
    """Collects the functions that hold the nested parts of a graph."""

    def __init__(self) -> None:
        self.functions: list[list[str]] = []

    def add(self, module: GraphModule) -> _Text:
        """Write a nested part; returns the name of its function."""
        lines = _Lines(self, module)
        arguments = [lines.names[node.name] for node in module.graph.nodes if node.op == "placeholder"]
        body = list(lines.body())
        name = _Text(f"_part_{len(self.functions) + 1}")
        result = next(iter(module.graph.output_node().args))
        ends = f"return {_literal(lines.named(result))}"
        self.functions.append([f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in [*body, ends])])
        return name


class _Lines:
    """The statements of one graph."""

    def __init__(self, writer: _Writer, module: GraphModule) -> None:
        self._writer = writer
        self._module = module
        self.names: dict[str, _Text] = {}
        """Each node's name in the source."""
        taken: set[str] = set()
        for node in module.graph.nodes:
            self.names[node.name] = _Text(_plain(node.name, taken))
            taken.add(self.names[node.name])

    def is_used(self, name: str) -> bool:
        """Whether anything reads this value."""
        return any(node.name == name and node.users for node in self._module.graph.nodes)

    def named(self, value: Any) -> Any:
        """The same structure with names in the place of nodes."""
        return map_arg(value, lambda node: self.names[node.name])

    def body(self) -> Iterator[str]:
        """One statement for each node, in order."""
        for node in self._module.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            if node.op == "get_attr":
                self._take_part(node)
            elif node.target is _AUTOCAST:
                device_type, dtype, enabled, cache, part, *arguments = self.named(node.args)
                options = f"{device_type!r}, dtype={dtype}, enabled={enabled}, cache_enabled={cache}"
                yield f"with torch.autocast({options}):"
                yield f"    {self.names[node.name]} = {part}({_joined(arguments)})"
            elif node.target is _GRADIENTS:
                enabled, part, *arguments = self.named(node.args)
                yield f"with torch.set_grad_enabled({enabled}):"
                yield f"    {self.names[node.name]} = {part}({_joined(arguments)})"
            else:
                yield self._call(node)

    def _take_part(self, node: Node) -> None:
        part = self._module.get_submodule(str(node.target))
        if not isinstance(part, GraphModule):
            raise EsperdError("EXPORT_FAILED", detail=f"{node.target} of the graph is {type(part).__name__}")
        self.names[node.name] = self._writer.add(part)

    def _call(self, node: Node) -> str:
        keywords = [f"{name}={_literal(self.named(value))}" for name, value in node.kwargs.items()]
        text = _joined([*map(_as_text, self.named(node.args)), *map(_Text, keywords)])
        call = f"{_function_name(node.target)}({text})"
        return f"{self.names[node.name]} = {call}" if node.users else call


def _function_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target}"
    own_name = str(getattr(target, "__name__", ""))
    for module, name in _MODULES.items():
        if own_name and getattr(module, own_name, None) is target:
            return f"{name}.{own_name}" if name else own_name
    raise EsperdError("EXPORT_FAILED", detail=f"the model uses {target}, which has no plain source")


def _as_text(value: Any) -> _Text:
    return _Text(_literal(value))


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values))


def _literal(value: Any) -> str:
    """Source text of a value made of numbers, text, names, torch's small constants and plain containers."""
    for leaf in _leaves(value):
        if not isinstance(leaf, _PLAIN):
            raise EsperdError("EXPORT_FAILED", detail=f"a {type(leaf).__name__} has no plain source")
    return repr(value)


_PLAIN = (
    str, bool, int, float, complex, types.NoneType, types.EllipsisType,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


def _leaves(value: Any) -> Iterator[Any]:
    if type(value) in (list, tuple) or isinstance(value, torch.fx.immutable_collections.immutable_list):
        for item in value:
            yield from _leaves(item)
    elif type(value) is dict or isinstance(value, torch.fx.immutable_collections.immutable_dict):
        yield from _leaves([*value.keys(), *value.values()])
    elif isinstance(value, slice):
        yield from _leaves([value.start, value.stop, value.step])
    else:
        yield value


def _quotable(text: str) -> str:
    """The text as it may stand inside a docstring."""
    return "".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"', "'")


def _plain(name: str, taken: Collection[str]) -> str:
    """The name, or one like it that means nothing else."""
    while keyword.iskeyword(name) or name in _RESERVED or hasattr(builtins, name) or name in taken:
        name += "_"
    return name
