"""Fits a forward and a backward graph together: only tensors cross, and what was an input crosses as that input.

The compiler's process only; pure graph surgery. A library can neither return a size nor be given one, so the backward
reads sizes from its tensors; and an input that is saved as itself lets autograd notice when it was changed between.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from esper.tezzeret.inside_torch import description, is_symbolic_size, multiple
from esperd.leyline.kernels import SavedTensor

VIEWS = frozenset({"permute", "view", "t", "transpose", "unsqueeze", "squeeze", "alias", "detach"})
INFERRED = -1
"""In the shape of a view: whatever is left."""


class PartingError(ValueError):
    """The graphs cannot be fitted together; the message says why."""


@dataclass(frozen=True, slots=True)
class Parted:
    """Graphs that fit together, and how."""

    forward: fx.GraphModule
    backward: fx.GraphModule
    parameter_backward: fx.GraphModule
    delta_shape: tuple[Any, ...]
    """The batch size in it is a symbol."""
    input_names: tuple[str, ...]
    """Of the forward graph's inputs; empty for the activation."""
    mutated_buffers: tuple[str, ...]
    saved: tuple[SavedTensor, ...]
    gradients: tuple[int, ...]
    parameter_gradients: tuple[int, ...]


def part(forward: fx.GraphModule, backward: fx.GraphModule) -> Parted:
    """Change both graphs so that they fit together.

    Raises:
        PartingError: several results, or a size that no tensor of the backward has.
    """
    inputs = _placeholders(forward)
    names = tuple(_input_name(node) for node in inputs)
    outputs, mutated = _results(forward)
    crossing = _Crossing(inputs, outputs, backward)
    num_given = len(mutated) + 1
    saved = crossing.rewire(num_given)
    _set_outputs(forward, [*outputs[:num_given], *crossing.extra_outputs])
    gradients = [node is not None for node in _outputs(backward)]
    whole = _numbered(gradients)
    for_parameters = _numbered([given and bool(name) for given, name in zip(gradients, names, strict=True)])
    parameter_backward = _copy(backward)
    _keep_outputs(backward, whole)
    _keep_outputs(parameter_backward, for_parameters)
    for graph in (forward, backward, parameter_backward):
        graph.graph.eliminate_dead_code()
        graph.graph.lint()
        graph.recompile()
    delta_shape = tuple(outputs[len(mutated)].meta["val"].shape)
    return Parted(forward, backward, parameter_backward, delta_shape, names, mutated, saved, whole, for_parameters)


class _Crossing:
    """Rewires the backward graph's inputs."""

    def __init__(self, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], backward: fx.GraphModule) -> None:
        self._inputs = list(inputs)
        self._sources = {node.name: node for node in outputs}
        self._backward = backward.graph
        self._saved: list[tuple[SavedTensor, fx.Node]] = []
        self.extra_outputs: list[fx.Node] = []
        """What the forward graph has to yield besides its results, in order."""

    def rewire(self, num_given: int) -> tuple[SavedTensor, ...]:
        """Give the backward graph the saved tensors, then the gradient, as its only inputs."""
        places = [node for node in self._backward.nodes if node.op == "placeholder"]
        tangents = [node for node in places if description(node).kind == "TangentAOTInput"]
        if len(tangents) != 1:
            raise PartingError(f"a blueprint must yield exactly one tensor that learns, this yields {len(tangents)}")
        sizes = []
        for place in places:
            source = self._sources.get(place.name)
            if place in tangents:
                continue
            if source is None:
                raise PartingError(f"the backward pass needs {place.name}, which the forward pass does not yield")
            if is_symbolic_size(source.meta["val"]):
                sizes.append((place, source.meta["val"]))
            else:
                self._save(place, source, num_given)
        order = [*(node for _, node in self._saved), *tangents]
        for place, size in sizes:
            self._read_size(place, size, order)
        for node in reversed(order):
            self._backward._root.append(node)
        return tuple(saved for saved, _ in self._saved)

    def _save(self, place: fx.Node, source: fx.Node, num_given: int) -> None:
        """Save a tensor: as the input that it is, or is a mere view of, else as an output of the forward graph."""
        views: list[fx.Node] = []
        root = source
        while _is_pure_view(root):
            views.append(root)
            (root, *_) = root.all_input_nodes
        if root.op != "placeholder":
            if source not in self.extra_outputs:
                self.extra_outputs.append(source)
            self._saved.append((SavedTensor(False, num_given + self.extra_outputs.index(source)), place))
            return
        node = self._saved_input(root)
        with self._backward.inserting_before(self._first_operation()):
            for view in reversed(views):
                arguments = fx.node.map_arg(view.args[1:], lambda _: INFERRED)
                target: Any = view.target
                node = self._backward.call_function(target, (node, *arguments), view.kwargs)
                node.meta = dict(view.meta)
        place.replace_all_uses_with(node)
        self._backward.erase_node(place)

    def _saved_input(self, root: fx.Node) -> fx.Node:
        entry = SavedTensor(True, self._inputs.index(root))
        known = next((node for saved, node in self._saved if saved == entry), None)
        if known is not None:
            return known
        with self._backward.inserting_before(next(iter(self._backward.nodes))):
            node = self._backward.placeholder(f"input_{entry.index}")
        node.meta = dict(root.meta)
        self._saved.append((entry, node))
        return node

    def _read_size(self, place: fx.Node, size: Any, order: Sequence[fx.Node]) -> None:
        """Read a size from a tensor that has it, the gradient first."""
        found = (
            (node, dim, times)
            for node in reversed(order)
            for dim, length in enumerate(node.meta["val"].shape)
            if (times := multiple(size, length))
        )
        node, dim, times = next(found, (None, 0, 0))
        if node is None:
            raise PartingError(f"no tensor of the backward pass has the size {size}")
        with self._backward.inserting_before(self._first_operation()):
            length = self._backward.call_function(torch.ops.aten.sym_size.int, (node, dim))
            length.meta = {"val": node.meta["val"].shape[dim]}
            read = length if times == 1 else self._backward.call_function(operator.mul, (length, times))
        read.meta = {"val": size}
        place.replace_all_uses_with(read)
        self._backward.erase_node(place)

    def _first_operation(self) -> fx.Node:
        found: fx.Node = next(node for node in self._backward.nodes if node.op != "placeholder")
        return found


def _is_pure_view(node: fx.Node) -> bool:
    """Whether it is a view of one tensor, whose shape has one size at most that depends on the batch."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    name, num_sizes = node.target.overloadpacket.__name__, len(node.all_input_nodes) - 1
    return name in VIEWS and (num_sizes == 0 or (name == "view" and num_sizes == 1))


def _input_name(node: fx.Node) -> str:
    found = description(node)
    if found.kind in ("ParamAOTInput", "BufferAOTInput"):
        return found.target
    if found.kind == "PlainAOTInput":
        return ""
    raise PartingError(f"the forward pass has an input of a kind that is not known: {found.kind}")


def _results(forward: fx.GraphModule) -> tuple[list[fx.Node], tuple[str, ...]]:
    """All outputs of the forward graph, and the buffers whose new values the first of them are."""
    output = _output(forward)
    outputs = _outputs(forward)
    kinds = [description(None, found) for found in output.meta["desc"]]
    given = [found for found in kinds if found.kind != "SavedForBackwardsAOTOutput"]
    mutated = tuple(found.mutated for found in given if found.mutated)
    if len(given) != len(mutated) + 1 or given[-1].mutated:
        raise PartingError(f"a blueprint must yield one tensor, this yields {len(given) - len(mutated)}")
    return outputs, mutated


def _placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _output(graph: fx.GraphModule) -> fx.Node:
    node: fx.Node
    (node,) = graph.graph.find_nodes(op="output")
    return node


def _outputs(graph: fx.GraphModule) -> list[Any]:
    """The nodes that a graph yields; None among a backward graph's for what has no gradient."""
    values: Any = _output(graph).args[0]
    return list(values)


def _set_outputs(graph: fx.GraphModule, outputs: Sequence[fx.Node]) -> None:
    _output(graph).args = (tuple(outputs),)


def _numbered(given: Sequence[bool]) -> tuple[int, ...]:
    """The place of each among those that are given, -1 for the others."""
    return tuple(sum(given[:index]) if is_given else -1 for index, is_given in enumerate(given))


def _keep_outputs(graph: fx.GraphModule, places: Sequence[int]) -> None:
    _set_outputs(graph, [node for node, place in zip(_outputs(graph), places, strict=True) if place >= 0])


def _copy(graph: fx.GraphModule) -> fx.GraphModule:
    """A second graph over the same operations."""
    copy = fx.Graph()
    output = copy.graph_copy(graph.graph, {})
    copy.output(output)
    return fx.GraphModule(graph, copy)
