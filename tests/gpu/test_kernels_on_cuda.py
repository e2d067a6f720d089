"""Kernels on a CUDA device: the gradients of the eager module, no waiting, and for its own capability only."""

from pathlib import Path

import pytest
import torch

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.kasmina.kernels.machine import Machine, this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline.errors import EsperdError
from tests.bench.kernels.sealing import sealed_copy, trust
from tests.kernels import compiled

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),
]
CASES = (("residual_mlp", (64, 128)), ("gated_ffn", (8, 64, 128)), ("residual_conv", (16, 32, 16, 16)))
CUDA = torch.device("cuda", 0)
MAX_ERROR = 1e-4
"""Relative; looser than on the CPU, since reductions on a GPU add up in another order."""


@pytest.fixture(autouse=True)
def _full_precision():
    """No TF32: errors are held against double precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def opened(blueprint_id: str, shape: tuple[int, ...], folder: Path) -> Kernel:
    """Compiled on this GPU, signed and opened."""
    into = sealed_copy(compiled(blueprint_id, shape, device_type="cuda"), folder / blueprint_id)
    return open_kernel(into, trust(), this_machine(CUDA), device=CUDA)


@pytest.mark.parametrize(("blueprint_id", "shape"), CASES)
def test_output_and_gradients_are_those_of_the_module(
    blueprint_id: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """At several batch sizes of the kernel's range, with and without a gradient of the activation."""
    kernel = opened(blueprint_id, shape, tmp_path)
    torch.manual_seed(0)
    with CUDA:
        module = standard_registry().get(blueprint_id).build(shape)
        for parameter in module.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
        joined = Joined(kernel, module)
        for batch in {kernel.manifest.min_batch, shape[0], shape[0] + 1}:
            for needs_activation in (True, False):
                x = torch.randn((batch, *shape[1:]), requires_grad=needs_activation)
                g = torch.randn_like(x)
                wanted = [*module.parameters(), *([x] if needs_activation else [])]
                expected, found = module(x), joined(x)
                assert_close(found, expected)
                for ours, theirs in zip(
                    torch.autograd.grad(found, wanted, g), torch.autograd.grad(expected, wanted, g), strict=True
                ):
                    assert_close(ours, theirs)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The largest difference, over the largest value."""
    error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    assert error <= MAX_ERROR, float(error)


def test_a_warm_kernel_makes_a_step_wait_for_nothing(tmp_path: Path) -> None:
    """After the warm-up, neither pass synchronises with the device: torch would raise."""
    kernel = opened(*CASES[0], tmp_path)
    kernel.warm_up()
    with CUDA:
        module = standard_registry().get(CASES[0][0]).build(CASES[0][1])
        joined = Joined(kernel, module)
        x = torch.randn(CASES[0][1])
        joined(x).sum().backward()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            joined(x).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_kernel_for_another_capability_is_never_opened(tmp_path: Path) -> None:
    """Refused by what the manifest says, before any library is touched."""
    folder = sealed_copy(compiled(*CASES[0], device_type="cuda"), tmp_path / "kernel")
    here = this_machine(CUDA)
    elsewhere = Machine(here.device_type, "sm_10", here.machine, here.torch_version)
    with pytest.raises(EsperdError) as caught:
        open_kernel(folder, trust(), elsewhere)
    assert caught.value.reason == "KERNEL_MISFIT"
