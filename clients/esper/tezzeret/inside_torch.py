"""Every name that the compiler takes from the inside of torch, in one file: what to look at when torch moves on.

The compiler's process only. Written for torch 2.11 to 2.13; knows nothing of kernels.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch._inductor
import torch._inductor.config as inductor_config
from torch import Tensor, fx, nn
from torch._functorch.aot_autograd import (
    aot_compile_joint_with_descriptors,
    aot_export_joint_with_descriptors,
    boxed_nop_preserve_node_meta,
)
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

Options = Mapping[str, Any]
UNBOUNDED = 2**30
"""Stands for a batch size of which nothing is assumed."""


class BatchWorld:
    """Tensors without data in which the batch size is a symbol, and what is assumed of that symbol."""

    def __init__(self) -> None:
        self._shape_env = ShapeEnv(duck_shape=False)
        self._fake = FakeTensorMode(shape_env=self._shape_env, allow_non_fake_inputs=True)

    def activation(self, example: Tensor) -> Tensor:
        """A tensor like the example, of any batch size."""
        sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (example.dim() - 1)
        context = StatelessSymbolicContext(dynamic_sizes=sizes, constraint_sizes=[None] * example.dim())
        return self._fake.from_tensor(example, symbolic_context=context)

    def trace(self, module: nn.Module, x: Tensor) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Forward and backward of the module as graphs of plain tensor operations."""
        graphs: dict[str, fx.GraphModule] = {}

        def keep(name: str) -> Any:
            def compiler(graph: fx.GraphModule, inputs: Any) -> Any:
                graphs[name] = graph
                return boxed_nop_preserve_node_meta(graph, inputs)

            return compiler

        with contextlib.ExitStack() as stack:
            joint = aot_export_joint_with_descriptors(stack, module, (x,), decompositions=select_decomp_table())
            aot_compile_joint_with_descriptors(
                joint,
                partition_fn=min_cut_rematerialization_partition,
                fw_compiler=keep("forward"),
                bw_compiler=keep("backward"),
            )
        return graphs["forward"], graphs["backward"]

    def library(self, graph: fx.GraphModule, options: Options) -> str:
        """Compile a graph into a native library. Returns its path."""
        inputs = tuple(node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder")
        with tracing(TracingContext(self._fake)):
            files = torch._inductor.aot_compile(graph, inputs, options=dict(options))
        return next(str(file) for file in cast("list[Any]", files) if str(file).endswith(".so"))

    def batch_range(self) -> tuple[int, int]:
        """The batch sizes for which everything assumed so far is true; reads narrower after each compilation."""
        (found,) = self._shape_env.var_to_range.values()
        return max(1, int(found.lower)), int(found.upper) if found.upper <= UNBOUNDED else UNBOUNDED

    def assumptions(self) -> list[str]:
        """What was assumed of the batch size, as inequalities."""
        return [str(guard.expr) for guard in self._shape_env.guards]


@dataclass(frozen=True, slots=True)
class Description:
    """What an input or output of a traced graph stands for, by torch's own words."""

    kind: str
    target: str
    """Name of the parameter or buffer."""
    mutated: str
    """Name of the buffer whose new value an output is."""


def description(node: fx.Node | None, found: Any = None) -> Description:
    """What a node of a traced graph stands for; or what such a description itself says."""
    found = node.meta.get("desc") if node is not None else found
    mutated = getattr(getattr(found, "mutated_input", None), "target", "")
    return Description(type(found).__name__, str(getattr(found, "target", "")), str(mutated))


def is_symbolic_size(value: Any) -> bool:
    """Whether a size depends on the batch size."""
    return isinstance(value, torch.SymInt)


def multiple(size: torch.SymInt, of: Any) -> int:
    """How many times another size a size is; 0 when it is no whole number of times, or the other one is constant."""
    if not is_symbolic_size(of):
        return 0
    times = size.node.expr / of.node.expr
    return int(times) if times.is_Integer else 0


def known_options(options: Options) -> dict[str, Any]:
    """Those options that this version of torch knows."""
    known = inductor_config.get_config_copy()
    return {name: value for name, value in options.items() if name in known}
