"""Reading a module's training step; nothing is compiled here, so the graphs themselves are run."""

import pytest
import torch
from esper.tezzeret.capture import Captured, CaptureError, capture
from torch import Tensor, nn

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.leyline.kernels import KernelInput
from esperd.leyline.vocabulary import KernelInputKind

HINT, MAX_BATCH = 4, 64
SHAPES = {4: (HINT, 4, 3, 3), 3: (HINT, 5, 8), 2: (HINT, 8)}
STANDARD = [descriptor.blueprint_id for descriptor in standard_registry()]


class Counting(nn.Module):
    """Changes a buffer, as a norm with running statistics does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("average", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.average.mul_(0.9).add_(x.mean(0), alpha=0.1)
        out: Tensor = self.linear(x) * self.average
        return out


class Two(nn.Module):
    """Yields two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x)
        return y, y + 1


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Every start draws the same: now and then others round beyond the tolerance."""
    torch.manual_seed(0)


@pytest.mark.parametrize("blueprint_id", STANDARD)
def test_the_graphs_compute_the_module_at_any_batch_size(blueprint_id: str) -> None:
    """Forward and both backwards, run as graphs, give the module's delta and gradients."""
    module, shape = built(blueprint_id)
    captured = capture(module, torch.zeros(shape), MAX_BATCH)
    for batch in (1, HINT, 9):
        x, g = torch.randn(batch, *shape[1:], requires_grad=True), torch.randn(batch, *shape[1:])
        wanted = module(x)
        gradients = torch.autograd.grad(wanted, [*module.parameters(), x], g)
        delta, found, found_alone = run(captured, module, x, g)
        torch.testing.assert_close(delta, wanted)
        named = [*(name for name, _ in module.named_parameters()), ""]
        for name, gradient in zip(named, gradients, strict=True):
            torch.testing.assert_close(found[name], gradient)
            if name:
                torch.testing.assert_close(found_alone[name], gradient)
        assert "" not in found_alone


@pytest.mark.parametrize("blueprint_id", STANDARD)
def test_only_tensors_cross(blueprint_id: str) -> None:
    """No graph takes or yields a size; nothing of these blueprints draws; every batch size is still admitted."""
    module, shape = built(blueprint_id)
    captured = capture(module, torch.zeros(shape), MAX_BATCH)
    for graph in (captured.forward, captured.backward, captured.parameter_backward):
        places = graph.graph.find_nodes(op="placeholder")
        (output,) = graph.graph.find_nodes(op="output")
        assert all(isinstance(node.meta["val"], Tensor) for node in (*places, *output.args[0]))
    assert not captured.draws_random
    assert captured.world.batch_range() == (1, MAX_BATCH)


def test_inputs_are_named_as_in_the_module() -> None:
    """Parameters and buffers by name, the activation without its batch size."""
    captured = capture(Counting(), torch.zeros(HINT, 8), MAX_BATCH)
    activation = KernelInput(KernelInputKind.ACTIVATION, "", "float32", (8,), True)
    buffer = KernelInput(KernelInputKind.BUFFER, "average", "float32", (8,), False)
    assert activation in captured.inputs
    assert buffer in captured.inputs
    assert {i.name for i in captured.inputs} == {"linear.weight", "linear.bias", "average", ""}


def test_a_changed_buffer_is_yielded_first() -> None:
    """New values of buffers come before the delta, by name."""
    module = Counting()
    captured = capture(module, torch.zeros(HINT, 8), MAX_BATCH)
    assert captured.mutated_buffers == ("average",)
    x = torch.randn(6, 8)
    outputs = captured.forward(*inputs(captured, module, x))
    delta = module(x)
    torch.testing.assert_close(outputs[0], module.average)
    torch.testing.assert_close(outputs[1], delta)


def test_an_input_is_saved_as_that_input() -> None:
    """So that autograd notices when a weight was changed between forward and backward."""
    module, shape = built("residual_mlp")
    captured = capture(module, torch.zeros(shape), MAX_BATCH)
    saved = {captured.inputs[one.index].name for one in captured.saved if one.is_input}
    assert {"hidden.weight", "out.weight", ""} <= saved


def test_dropout_draws() -> None:
    """A module that draws random numbers is told from one that does not."""
    captured = capture(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).train(), torch.zeros(HINT, 8), MAX_BATCH)
    assert captured.draws_random


def test_autocast_is_part_of_the_graph() -> None:
    """Under autocast the delta comes out in its dtype, from an activation in the site's."""
    module, shape = built("residual_mlp")
    captured = capture(module, torch.zeros(shape), MAX_BATCH, torch.bfloat16)
    x = torch.randn(shape)
    (delta, *_) = captured.forward(*inputs(captured, module, x))
    with torch.autocast("cpu", torch.bfloat16):
        wanted = module(x)
    assert delta.dtype is wanted.dtype is torch.bfloat16
    torch.testing.assert_close(delta, wanted)


def test_two_results_are_refused() -> None:
    """A blueprint yields one tensor."""
    with pytest.raises(CaptureError, match="one tensor"):
        capture(Two(), torch.zeros(HINT, 8), MAX_BATCH)


def test_another_shape_is_refused() -> None:
    """The delta has the activation's shape."""
    with pytest.raises(CaptureError, match="shape"):
        capture(nn.Linear(8, 9), torch.zeros(HINT, 8), MAX_BATCH)


def built(blueprint_id: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module whose last layer has learned something."""
    descriptor = standard_registry().get(blueprint_id)
    shape = SHAPES[min(descriptor.ranks)]
    module = descriptor.build(shape).train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module, shape


def inputs(captured: Captured, module: nn.Module, x: Tensor) -> list[Tensor]:
    owned = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [owned[one.name].detach().clone() if one.name else x.detach() for one in captured.inputs]


def run(
    captured: Captured, module: nn.Module, x: Tensor, g: Tensor
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The delta, all gradients by name, and those of the parameters alone."""
    given = inputs(captured, module, x)
    outputs = captured.forward(*given)
    saved = [given[one.index] if one.is_input else outputs[one.index] for one in captured.saved]
    whole, alone = captured.backward(*saved, g), captured.parameter_backward(*saved, g)
    names = [one.name for one in captured.inputs]
    return (
        outputs[len(captured.mutated_buffers)],
        {name: whole[at] for name, at in zip(names, captured.gradients, strict=True) if at >= 0},
        {name: alone[at] for name, at in zip(names, captured.parameter_gradients, strict=True) if at >= 0},
    )
