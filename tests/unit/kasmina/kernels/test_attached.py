"""A seed's kernel: what does not fit or fails is computed by the module, and told."""

import pytest
import torch
from torch import nn

from esperd.kasmina.kernels.attached import MAX_TOLD, Attached
from tests.unit.kasmina.kernels.made import WIDTH, linear_kernel


class Listener:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.fallbacks: list[str] = []
        self.failures: list[str] = []

    def fell_back(self, seed_id: int, reason: str) -> None:
        self.fallbacks.append(f"{seed_id}: {reason}")

    def failed(self, seed_id: int, detail: str) -> None:
        self.failures.append(f"{seed_id}: {detail}")


def attached() -> tuple[Attached, nn.Linear, Listener]:
    module, listener = nn.Linear(WIDTH, WIDTH), Listener()
    return Attached(linear_kernel(), module, 7, listener), module, listener


def broken(_inputs: object) -> list[torch.Tensor]:
    raise RuntimeError("gives up\nat length")


def test_each_reason_is_told_once():
    """A last batch that is smaller is told in the first epoch, not in every one; and never more than a few reasons."""
    kernel, _, listener = attached()
    for _ in range(3):
        assert kernel.delta(torch.zeros(1, WIDTH)) is None
        assert kernel.delta(torch.zeros(8, WIDTH)) is not None
    assert listener.fallbacks == ["7: the batch is 1, the kernel is for 2 to 16"]
    for size in range(17, 40):
        kernel.delta(torch.zeros(size, WIDTH))
    assert len(listener.fallbacks) == MAX_TOLD


def test_a_forward_that_raises_leaves_the_step_to_the_module():
    """Its delta, and the fault is told."""
    kernel, module, listener = attached()
    kernel.kernel.forward = broken
    x = torch.randn(8, WIDTH)
    delta = kernel.delta(x)
    assert delta is not None
    assert torch.equal(delta, module(x))
    assert listener.failures == ["7: its forward raised RuntimeError: gives up"]


@pytest.mark.parametrize("needs_activation", [True, False])
def test_a_backward_that_raises_is_computed_by_the_module(needs_activation: bool):
    """The gradients are exact, so that neither the seed nor a host behind a fossil notices."""
    kernel, module, listener = attached()
    kernel.kernel.backward = kernel.kernel.parameter_backward = broken
    x = torch.randn(8, WIDTH, requires_grad=needs_activation)
    leaves = [*module.parameters(), *([x] if needs_activation else [])]
    expected = torch.autograd.grad(module(x).square().sum(), leaves)
    delta = kernel.delta(x)
    assert delta is not None
    found = torch.autograd.grad(delta.square().sum(), leaves)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    assert listener.failures == ["7: its backward raised RuntimeError: gives up"]


class Counting(nn.Linear):
    """Counts in a buffer what it computes, as a batch norm does."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.register_buffer("num_batches", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_batches += 1
        return super().forward(x)


def test_a_module_that_stands_in_for_the_backward_sees_no_batch_twice():
    """What the native forward has put into the buffers is right already."""
    module = Counting()
    kernel = Attached(linear_kernel(), module, 7, Listener())
    kernel.kernel.parameter_backward = broken
    delta = kernel.delta(torch.randn(8, WIDTH))
    assert delta is not None
    delta.sum().backward()
    assert module.weight.grad is not None
    assert module.num_batches == 0, "this kernel writes no buffer"


def test_frozen_parameters_get_no_gradient_when_the_module_stands_in():
    """What was frozen at the backward stays without."""
    kernel, module, _ = attached()
    module.bias.requires_grad_(False)
    kernel.kernel.parameter_backward = broken
    delta = kernel.delta(torch.randn(8, WIDTH))
    assert delta is not None
    delta.sum().backward()
    assert module.bias.grad is None
    assert module.weight.grad is not None


def test_want_of_memory_is_no_fault_of_the_kernel():
    """It goes on to the trainer, which makes room and does the step again."""
    kernel, _, listener = attached()

    def full(_inputs: object) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError

    kernel.kernel.forward = full
    with pytest.raises(torch.OutOfMemoryError):
        kernel.delta(torch.zeros(8, WIDTH))
    # A library says that it failed, and no more: it is the module that finds no memory either.
    kernel.kernel.forward = broken
    kernel._module = Full()
    with pytest.raises(torch.OutOfMemoryError):
        kernel.delta(torch.zeros(8, WIDTH))
    assert not listener.failures


class Full(nn.Module):
    """A module for which there is no memory."""

    def forward(self, _x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError
