"""A seed's step by its kernel, beside its eager module and `torch.compile` of it, in one process.

One torch thread. A step is a forward and a backward with a given gradient of the delta: of parameters and activation,
as of a seed that is blended in, or of the parameters alone, as of one that learns behind the host. All ways compute on
the same module.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from esperd.kasmina.kernels.kernel import Joined
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from tests.bench.kernels.duel import Step, ratios, spread, step_ms
from tests.bench.kernels.sealing import trust
from tests.bench.kernels.subjects import Subject
from tests.bench.report import Row

STEP_GOAL = 0.9
ERROR_GOAL = 1e-5
Delta = Callable[[Tensor], Tensor]


def rows(subject: Subject, num_rounds: int, *, with_compile: bool) -> Iterator[Row]:
    """Step ratios in both modes, and the largest relative error of output and gradients."""
    torch.manual_seed(0)
    module = subject.descriptor.build(subject.shape)
    stir(module)
    kernel = open_kernel(subject.folder, trust(), this_machine(torch.device("cpu")))
    ways: dict[str, Delta] = {"eager": module, "kernel": Joined(kernel, module)}
    if with_compile:
        torch._dynamo.reset()
        ways["torch.compile"] = torch.compile(module)
    x, g = torch.randn(subject.shape), torch.randn(subject.shape)
    for mode, needs_activation in (("step", True), ("step, parameters only", False)):
        activation = x.clone().requires_grad_(needs_activation)
        steps = {name: stepping(way, module, activation, g) for name, way in ways.items()}
        eager_ms = step_ms(steps["eager"])
        against_eager = ratios(steps, "eager", num_rounds)
        goal = STEP_GOAL if needs_activation else None
        yield Row(
            f"{subject.name}: {mode}, of eager ({eager_ms:.3g} ms)", *spread(against_eager["kernel"]), "ratio", goal
        )
        if with_compile:
            compiled = [
                ours / theirs
                for ours, theirs in zip(against_eager["kernel"], against_eager["torch.compile"], strict=True)
            ]
            yield Row(f"{subject.name}: {mode}, of torch.compile", *spread(compiled), "ratio")
    error = largest_error(module, ways["kernel"], x, g)
    yield Row(f"{subject.name}: error", error, error, error, "rel", ERROR_GOAL)


def stir(module: nn.Module) -> None:
    """Give every parameter a value: a last layer of zeros would make most gradients zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def stepping(way: Delta, module: nn.Module, x: Tensor, g: Tensor) -> Step:
    """One step of a way, with gradients that nobody keeps."""
    wanted = [*module.parameters(), *([x] if x.requires_grad else [])]

    def step() -> None:
        torch.autograd.grad(way(x), wanted, g)

    return step


def largest_error(module: nn.Module, way: Delta, x: Tensor, g: Tensor) -> float:
    """Largest difference from the eager module in double precision, over the largest value of each tensor."""
    wide = copy.deepcopy(module).double()
    exact = _results(wide, wide, x.double(), g.double())
    found = _results(way, module, x, g)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in zip(found, exact, strict=True))


def _results(way: Delta, module: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    activation = x.clone().requires_grad_()
    delta = way(activation)
    return [
        delta.detach().double(),
        *(gradient.double() for gradient in torch.autograd.grad(delta, [*module.parameters(), activation], g)),
    ]
