"""Every name that the compiler takes from the inside of torch, in one file: what to look at when torch moves on.

The compiler's process only. Written for torch 2.11 to 2.13; knows nothing of kernels.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
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
from torch._inductor.codegen.cpp import CppKernel
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    StrictMinMaxConstraint,
)
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

Options = Mapping[str, Any]
MIN_TRACED_BATCH = 2
"""Tracing takes sizes of 0 and 1 for constants."""
SUM_IN_ONE = 4096
"""Most numbers that Inductor adds up without care for rounding."""


class BatchWorld:
    """Tensors without data in which the batch size is a symbol, and what is assumed of that symbol."""

    def __init__(self, max_batch: int) -> None:
        self._batches = ValueRanges(MIN_TRACED_BATCH, max_batch)
        self._shape_env = ShapeEnv(duck_shape=False)
        self._fake = FakeTensorMode(shape_env=self._shape_env, allow_non_fake_inputs=True)

    def activation(self, example: Tensor) -> Tensor:
        """A tensor like the example, of any batch size up to the largest."""
        fixed = example.dim() - 1
        context: StatelessSymbolicContext[Any, Any] = StatelessSymbolicContext(
            dynamic_sizes=[DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * fixed,
            constraint_sizes=[StrictMinMaxConstraint(warn_only=False, vr=self._batches), *([None] * fixed)],
        )
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
        with tracing(TracingContext(self._fake)), _sums_fit_for_the_largest(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's words to itself, about its own code
            files = torch._inductor.aot_compile(graph, inputs, options=dict(options))
        return next(str(file) for file in cast("list[Any]", files) if str(file).endswith(".so"))

    def batch_range(self) -> tuple[int, int]:
        """The batch sizes for which everything assumed so far is true; reads narrower after each compilation."""
        (found,) = self._shape_env.var_to_range.values()
        lower = int(found.lower)
        return lower if lower > MIN_TRACED_BATCH else 1, int(found.upper)


@contextlib.contextmanager
def no_mkldnn() -> Iterator[None]:
    """Trace as if there were no oneDNN. The public switch sets more, and warns where there is no GPU of Intel's."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@contextlib.contextmanager
def _sums_fit_for_the_largest() -> Iterator[None]:
    """Add up in parts, which rounds less, wherever the largest batch needs it.

    Left to itself, Inductor looks at the batch size of the example, and binds the library to all that are on the same
    side of the limit.
    """
    chosen: Any = CppKernel.need_use_acc_helper

    def choose(kernel: Any, reduction_type: str, dtype: torch.dtype, use_scalar: bool) -> bool:
        if reduction_type != "sum" or dtype is not torch.float:
            return bool(chosen(kernel, reduction_type, dtype, use_scalar))
        num_terms = math.prod(kernel.call_ranges[kernel.reduction_depth :])
        ranges = V.graph.sizevars.shape_env.var_to_range
        return bool(bound_sympy(num_terms, ranges).upper > SUM_IN_ONE)

    CppKernel.need_use_acc_helper = choose  # type: ignore[method-assign]
    try:
        yield
    finally:
        CppKernel.need_use_acc_helper = chosen  # type: ignore[method-assign]


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
