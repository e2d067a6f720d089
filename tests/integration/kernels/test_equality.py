"""Compiled blueprints against their eager modules and a reference in double precision."""

import copy
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from tests.kernels import compiled
from tests.unit.kasmina.kernels.offered import Witness, offered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
"""The first test on a machine compiles for all."""

SHAPES = {4: (8, 8, 6, 6), 3: (8, 12, 16), 2: (8, 16)}
LIMITS = {"": 1e-5, "bfloat16": 1e-2}
EAGER_RATIO = 4.0
NUM_SEEDS = 2
LARGEST_TRIED = 128


@dataclass(frozen=True)
class Case:
    blueprint_id: str
    parameters: tuple[tuple[str, float], ...] = ()
    autocast: str = ""
    strategy: str = "standard"
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        values = [f"{name}={value:g}" for name, value in self.parameters]
        shape = ["x".join(map(str, self.shape))] if self.shape else []
        return "-".join([self.blueprint_id, *values, *filter(None, [self.autocast]), self.strategy, *shape])

    @property
    def site(self) -> tuple[int, ...]:
        return self.shape or SHAPES[min(standard_registry().get(self.blueprint_id).ranks)]


CASES = [
    *(Case(descriptor.blueprint_id) for descriptor in standard_registry()),
    Case("residual_mlp", autocast="bfloat16"),
    Case("causal_attention", strategy="conservative"),
]
"""Every blueprint, autocast, and the other strategy."""
FURTHER_CASES = [
    Case("conv1x1", (("expansion", 1.0),)),
    Case("gated_ffn", (("expansion", 1.5),)),
    Case("transformer_block", (("num_layers", 2.0),)),
    Case("causal_attention", autocast="bfloat16"),
    Case("residual_conv", autocast="bfloat16"),
    Case("residual_mlp", strategy="conservative"),
    Case("residual_conv", strategy="conservative"),
    Case("bottleneck_mlp", shape=(64, 64, 16)),
    Case("residual_conv", shape=(32, 8, 6, 6)),
]
"""With `--every-kernel`: other values of parameters, more of autocast and strategies, and sizes at which Inductor
divides sums."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cases of this start."""
    if "case" in metafunc.fixturenames:
        further = FURTHER_CASES if metafunc.config.getoption("--every-kernel") else []
        metafunc.parametrize("case", [*CASES, *further], ids=str)


@pytest.fixture(scope="module")
def compilations(request: pytest.FixtureRequest) -> Mapping[Case, Future[Path]]:
    """The kernels of all chosen cases, compiled two at a time, before any test: none may leave a process behind."""
    chosen = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    cases = dict.fromkeys(case for case in chosen if isinstance(case, Case))
    with ThreadPoolExecutor(2) as pool:
        return {case: pool.submit(compilation, case) for case in cases}


@pytest.fixture
def kernel(case: Case, compilations: Mapping[Case, Future[Path]], tmp_path: Path) -> Kernel:
    folder = compilations[case].result()
    return open_kernel(tmp_path / offered(folder, tmp_path), Witness(), this_machine(torch.device("cpu")))


def compilation(case: Case) -> Path:
    return compiled(
        case.blueprint_id,
        case.site,
        parameters=dict(case.parameters),
        autocast_dtype=case.autocast,
        strategy=case.strategy,
    )


def test_equal_at_the_edges_of_the_range(case: Case, kernel: Kernel) -> None:
    """Outputs and all gradients are right for the smallest, a single, an odd, the hint's and a large batch size."""
    for random_seed in range(NUM_SEEDS):
        module = module_of(case, random_seed)
        for batch in batches(kernel):
            x, g = drawn(case, batch, random_seed)
            found = step(case, Joined(kernel, module), module, x, g)
            assert_right(case, found, module, x, g)


def test_parameters_alone(case: Case, kernel: Kernel) -> None:
    """Where the activation needs no gradient, the library for parameters alone finds the same gradients."""
    module = module_of(case, 0)
    x, g = drawn(case, 5, 0)
    whole = step(case, Joined(kernel, module), module, x, g)
    alone = step(case, Joined(kernel, module), module, x.detach(), g)
    assert alone.activation is None
    for name, gradient in alone.parameters.items():
        assert relative(gradient, whole.parameters[name]) <= LIMITS[case.autocast], name


def test_a_gradient_without_strides(case: Case, kernel: Kernel) -> None:
    """The gradient of a sum is one number seen many times; it is taken as the tensor that it stands for."""
    module = module_of(case, 0)
    x, _ = drawn(case, 5, 0)
    g = torch.ones(()).expand(x.shape)
    found = step(case, Joined(kernel, module), module, x, g)
    assert_right(case, found, module, x, g, scale=1.0)


def test_buffers_are_left_alone(case: Case, kernel: Kernel) -> None:
    """No blueprint of ours changes a buffer, and neither does its kernel."""
    assert kernel.manifest.mutated_buffers == ()
    module = module_of(case, 0)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    x, g = drawn(case, 3, 0)
    step(case, Joined(kernel, module), module, x, g)
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_training_stays_beside_eager(case: Case, kernel: Kernel) -> None:
    """200 steps of AdamW with changing batch sizes end where the eager module ends."""
    module = module_of(case, 0, std=0.1)
    twin = copy.deepcopy(module)
    target = drawn(case, 7, 99)[0].detach()
    ends = [train(case, Joined(kernel, module), module, target), train(case, twin, twin, target)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3 if not case.autocast else 5e-2)


def test_draws_nothing(case: Case, kernel: Kernel) -> None:
    """No blueprint of ours draws random numbers, attention without dropout included."""
    assert not kernel.manifest.draws_random


@dataclass
class Step:
    delta: Tensor
    activation: Tensor | None
    parameters: Mapping[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """All of it by name."""
        activation = {} if self.activation is None else {"activation": self.activation}
        return {"delta": self.delta, **activation, **self.parameters}


def module_of(case: Case, random_seed: int, std: float = 0.5) -> nn.Module:
    """A module whose last layer has learned something."""
    module = standard_registry().get(case.blueprint_id).build(case.site, dict(case.parameters))
    generator = torch.Generator().manual_seed(random_seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, std, generator=generator)
    return module.train()


def batches(kernel: Kernel) -> Iterator[int]:
    manifest = kernel.manifest
    assert manifest.min_batch == 1
    assert manifest.max_batch == 16 * manifest.hint_batch
    largest = manifest.max_batch if manifest.max_batch <= 8 * LARGEST_TRIED else LARGEST_TRIED
    yield from sorted({1, 2, 3, manifest.hint_batch, manifest.hint_batch + 5, largest})


def drawn(case: Case, batch: int, random_seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + random_seed)
    x = torch.randn(batch, *case.site[1:], generator=generator).requires_grad_()
    return x, torch.randn(x.shape, generator=generator)


def step(case: Case, run: Joined | nn.Module, module: nn.Module, x: Tensor, g: Tensor) -> Step:
    names = [name for name, _ in module.named_parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=bool(case.autocast), cache_enabled=False):
        delta = run(x)
    wanted = [x] if x.requires_grad else []
    found = torch.autograd.grad(delta, [*wanted, *module.parameters()], g.to(delta.dtype))
    activation = found[0] if wanted else None
    return Step(delta.detach(), activation, dict(zip(names, found[len(wanted) :], strict=True)))


def assert_right(case: Case, found: Step, module: nn.Module, x: Tensor, g: Tensor, scale: float = 0.0) -> None:
    """Within the limit of the reference in double precision, or as near to it as the eager module is.

    Where almost nothing is left of a sum, as behind a closed ReLU, both are off. `scale` is the least that an error is
    measured against.
    """
    double = copy.deepcopy(module).double()
    true = step(Case(case.blueprint_id), double, double, x.detach().double().requires_grad_(), g.double()).named()
    eager = step(case, module, module, x, g).named()
    for name, tensor in found.named().items():
        limit = max(LIMITS[case.autocast], EAGER_RATIO * relative(eager[name], true[name], scale))
        assert relative(tensor, true[name], scale) <= limit, name


def relative(found: Tensor, true: Tensor, scale: float = 0.0) -> float:
    return float((found.double() - true.double()).abs().max() / true.double().abs().max().clamp_min(max(scale, 1e-30)))


def train(case: Case, run: Joined | nn.Module, module: nn.Module, target: Tensor) -> float:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros(())
    for index in range(200):
        x = torch.randn(target[: 7 if index % 2 else 3].shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(case.autocast), cache_enabled=False):
            delta = run(x)
        loss = (delta.float() - torch.roll(x, 1, dims=-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())
