"""Trials of equality: outputs, gradients and buffers against the eager module's, both judged by double precision.

The validator's own process. An error is the largest deviation from the reference, relative to the reference's largest
value. What the eager module itself deviates goes with it: rounding that both suffer is nobody's fault.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.specimen import Specimen, double

SEEDS = (1, 2)
TIMES_EAGER = 2.0
"""A kernel may be so much farther from the truth than the eager module, whatever the limit."""
SMALL = 1e-3
"""Gradients smaller than this share of the largest one are judged by that: they may be zero in truth."""

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass forward and back came to."""

    output: Tensor
    activation_gradient: Tensor | None
    parameter_gradients: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Error:
    """How far a value is from the truth."""

    value: float
    floor: float
    """What rounding may cause here, by what it causes in the eager module."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to call a module."""

    batch: int
    seed: int
    upstream: str = "random"
    """Gradient of the delta: `random`, or one number for all, with strides of 0 (`spread`)."""
    needs_activation_gradient: bool = True

    def __str__(self) -> str:
        return f"batch {self.batch}, seed {self.seed}, {self.upstream} gradient"


def equality(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Everything that the libraries compute, over the range of batch sizes, with and without the activation's
    gradient.
    """
    for case in _cases(specimen):
        module = specimen.module(case.seed)
        x = specimen.activation(case.batch, case.seed)
        _compare(specimen, kernel, module, case, x, channel)
    _without_gradients(specimen, kernel, channel)


def layouts(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Activations that do not lie in memory as the libraries expect: the wrapper has to bring them into order."""
    module = specimen.module(SEEDS[0])
    case = Case(specimen.manifest.hint_batch, SEEDS[0])
    reference = _Reference(specimen, module, case)
    for name, x in _odd_layouts(specimen.activation(case.batch, case.seed)):
        got = run(specimen, module, Joined(kernel, module), x, case)
        error = worst(reference.errors(got))
        channel.measured("layouts", error.value, f"{name} activation", floor=error.floor)


def run(specimen: Specimen, module: nn.Module, function: Function, x: Tensor, case: Case) -> Passed:
    """One pass forward and back."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.zero_grad()
    leaf = x.detach()  # with its layout
    leaf.requires_grad_(case.needs_activation_gradient)
    leaf.grad = None
    with specimen.conditions() if x.dtype is not torch.float64 else torch.enable_grad():
        output = function(leaf)
    output.backward(_upstream(output, case, specimen))  # type: ignore[no-untyped-call]
    passed = Passed(
        output.detach(),
        None if leaf.grad is None else leaf.grad.detach().clone(),
        {name: p.grad.detach().clone() for name, p in module.named_parameters() if p.grad is not None},
        {name: buffer.clone() for name, buffer in module.named_buffers()},
    )
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])
    return passed


def worst(errors: Mapping[str, Error]) -> Error:
    """The one that is farthest from what rounding may cause."""
    return max(errors.values(), key=lambda error: (error.value - error.floor, error.value))


def worst_error(specimen: Specimen, module: nn.Module, function: Function, case: Case) -> Error:
    """The worst of one pass through a function that should compute what the module does."""
    x = specimen.activation(case.batch, case.seed)
    return worst(_Reference(specimen, module, case).errors(run(specimen, module, function, x, case)))


class _Reference:
    """What the module computes in double precision, and how far its own precision is from that."""

    def __init__(self, specimen: Specimen, module: nn.Module, case: Case) -> None:
        exact = double(module)
        x = specimen.activation(case.batch, case.seed)
        self._exact = run(specimen, exact, exact, x.double(), case)
        self._eager = self._raw(run(specimen, module, module, x, case))

    def errors(self, got: Passed) -> dict[str, Error]:
        """By what was compared."""
        return {name: Error(value, TIMES_EAGER * self._eager.get(name, 0.0)) for name, value in self._raw(got).items()}

    def _raw(self, got: Passed) -> dict[str, float]:
        exact = self._exact
        found = {"output": _relative(got.output, exact.output)}
        if exact.activation_gradient is not None:
            found["activation_gradient"] = _relative(got.activation_gradient, exact.activation_gradient)
        largest = max((float(g.abs().max()) for g in exact.parameter_gradients.values()), default=0.0)
        found["parameter_gradients"] = max(
            (
                _relative(got.parameter_gradients.get(name), gradient, SMALL * largest)
                for name, gradient in exact.parameter_gradients.items()
            ),
            default=0.0,
        )
        found["buffers"] = max((_relative(got.buffers[name], b) for name, b in exact.buffers.items()), default=0.0)
        return found


def _cases(specimen: Specimen) -> Iterator[Case]:
    hint = specimen.manifest.hint_batch
    for batch in specimen.batches():
        yield Case(batch, SEEDS[0])
        yield Case(batch, SEEDS[0], needs_activation_gradient=False)
    for seed in SEEDS[1:]:
        yield Case(hint, seed)
    yield Case(hint, SEEDS[0], upstream="spread")
    yield Case(hint, SEEDS[0], upstream="spread", needs_activation_gradient=False)


def _compare(specimen: Specimen, kernel: Kernel, module: nn.Module, case: Case, x: Tensor, channel: Channel) -> None:
    got = run(specimen, module, Joined(kernel, module), x, case)
    errors = _Reference(specimen, module, case).errors(got)
    for name, error in errors.items():
        alone = name == "parameter_gradients" and not case.needs_activation_gradient
        own = "parameter_gradients_alone" if alone else name
        channel.measured(own, error.value, str(case), floor=error.floor)


def _without_gradients(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """A pass of which nothing is kept gives the same output."""
    module = specimen.module(SEEDS[0])
    x = specimen.activation(specimen.manifest.hint_batch, SEEDS[0])
    with specimen.conditions():
        kept = Joined(kernel, module)(x)
        with torch.no_grad():
            lost = Joined(kernel, module)(x)
    channel.measured("output", _relative(lost, kept.detach().double()), "without gradients, against with them")


def _odd_layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    wide = torch.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype, device=x.device)
    wide[..., ::2] = x
    yield "sliced", wide[..., ::2]
    yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    shifted = torch.zeros(x.numel() + 1, dtype=x.dtype, device=x.device)
    shifted[1:] = x.flatten()
    yield "misaligned", shifted[1:].view(x.shape)
    if x.dim() == 4:
        yield "channels-last", x.to(memory_format=torch.channels_last)


def _upstream(output: Tensor, case: Case, specimen: Specimen) -> Tensor:
    if case.upstream == "spread":
        return torch.ones((), dtype=output.dtype, device=output.device).expand_as(output)
    generator = torch.Generator(specimen.device).manual_seed(1000 + case.seed)
    # Rounded first, so that double precision is given the same numbers.
    drawn = torch.randn(output.shape, generator=generator, device=output.device)
    return drawn.to(_delta_dtype(specimen)).to(output.dtype)


def _delta_dtype(specimen: Specimen) -> torch.dtype:
    return specimen.autocast_dtype or specimen.dtype


def _relative(got: Any, exact: Tensor, floor: float = 0.0) -> float:
    """The largest deviation, relative to the largest value; infinite when there is nothing, or no number."""
    if got is None or got.shape != exact.shape:
        return float("inf")
    scale = max(float(exact.abs().max()), floor) if exact.numel() else 1.0
    deviation = float((got.double() - exact.double()).abs().max()) if exact.numel() else 0.0
    error = deviation / scale if scale else deviation
    return error if error == error else float("inf")
