"""An open kernel: what fits it, and that it stands for its module in autograd."""

import pytest
import torch
from torch import nn

from esperd.kasmina.kernels.kernel import Joined
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import KernelFileRole
from tests.unit.kasmina.kernels.made import ROLES, WIDTH, linear_kernel


def test_what_fits_and_what_does_not_is_said_in_words():
    """Batch, shape, dtype and autocast each have to be those of the manifest."""
    kernel = linear_kernel()
    assert kernel.fits(torch.zeros(2, WIDTH))
    assert kernel.fits(torch.zeros(16, WIDTH))
    assert "the batch is 1, the kernel is for 2 to 16" in kernel.misfit(torch.zeros(1, WIDTH))
    assert "the batch is 17" in kernel.misfit(torch.zeros(17, WIDTH))
    assert "(8, 5)" in kernel.misfit(torch.zeros(8, 5))
    assert "(8, 4, 4)" in kernel.misfit(torch.zeros(8, 4, 4))
    assert "float64" in kernel.misfit(torch.zeros(8, WIDTH, dtype=torch.float64))
    assert "meta" in kernel.misfit(torch.zeros(8, WIDTH, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast is to torch.bfloat16" in kernel.misfit(torch.zeros(8, WIDTH))


@pytest.mark.parametrize("needs_activation", [True, False])
def test_outputs_and_gradients_are_the_modules(needs_activation: bool):
    """An activation that needs a gradient gets it from the backward, else the smaller library computes."""
    module, kernel = nn.Linear(WIDTH, WIDTH), linear_kernel()
    joined = Joined(kernel, module)
    x = torch.randn(5, WIDTH, requires_grad=needs_activation)
    leaves = [*module.parameters(), *([x] if needs_activation else [])]
    expected = torch.autograd.grad(module(x).square().sum(), leaves)
    found = torch.autograd.grad(joined(x).square().sum(), leaves)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    runners = {role: getattr(kernel, role.name.lower()).__self__ for role in ROLES}
    assert runners[KernelFileRole.BACKWARD].num_runs == needs_activation
    assert runners[KernelFileRole.PARAMETER_BACKWARD].num_runs == (not needs_activation)


def test_frozen_parameters_and_no_gradient_at_all():
    """Whatever asks for no gradient gets none."""
    module = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    joined = Joined(linear_kernel(), module)
    assert not joined(torch.zeros(4, WIDTH)).requires_grad
    x = torch.zeros(4, WIDTH, requires_grad=True)
    joined(x).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is None


def test_slices_and_strides_are_made_plain():
    """The libraries see contiguous, aligned memory only, and a gradient of stride 0 is spread out."""
    module, kernel = nn.Linear(WIDTH, WIDTH), linear_kernel()
    joined = Joined(kernel, module)
    wide = torch.randn(8, 2 * WIDTH)
    torch.testing.assert_close(joined(wide[:, ::2]), module(wide[:, ::2]))
    flat = torch.randn(8 * WIDTH + 1)
    odd = flat[1:].view(8, WIDTH)
    torch.testing.assert_close(joined(odd), module(odd))
    joined(odd).sum().backward()
    assert module.bias.grad is not None
    torch.testing.assert_close(module.bias.grad, torch.full((WIDTH,), 8.0))


def test_a_change_in_place_between_forward_and_backward_is_found_out():
    """As with every step of autograd."""
    module = nn.Linear(WIDTH, WIDTH)
    delta = Joined(linear_kernel(), module)(torch.randn(4, WIDTH, requires_grad=True))
    with torch.no_grad():
        module.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        delta.sum().backward()


def test_a_gradient_of_a_gradient_is_refused():
    """A kernel knows first derivatives only, and says so."""
    x = torch.randn(4, WIDTH, requires_grad=True)
    delta = Joined(linear_kernel(), nn.Linear(WIDTH, WIDTH))(x)
    (gradient,) = torch.autograd.grad(delta.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("module", [nn.Linear(WIDTH, 5), nn.Linear(WIDTH, WIDTH, bias=False), nn.Identity()])
def test_another_module_is_refused(module: nn.Module):
    """A tensor that is missing or of another shape is a misfit before anything runs."""
    with pytest.raises(EsperdError) as refused:
        Joined(linear_kernel(), module)
    assert refused.value.reason == "KERNEL_MISFIT"


def test_warming_up_runs_every_library_once():
    """No seed's first step is slower than its second on account of its kernel."""
    kernel = linear_kernel()
    kernel.warm_up()
    assert [getattr(kernel, role.name.lower()).__self__.num_runs for role in ROLES] == [1, 1, 1]


def test_what_a_library_raises_goes_on():
    """Whoever wants it otherwise says how (`Attached`)."""
    kernel = linear_kernel()
    kernel.parameter_backward = _raise
    delta = Joined(kernel, nn.Linear(WIDTH, WIDTH))(torch.randn(4, WIDTH))
    with pytest.raises(RuntimeError, match="gives up"):
        delta.sum().backward()


def _raise(_inputs: object) -> list[torch.Tensor]:
    raise RuntimeError("gives up")
