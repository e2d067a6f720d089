"""What a module holds beside its state_dict comes back too, into the tensors that are there."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esperd.kasmina.module_state import load_module, pack_batch, save_module, unpack_batch

CPU = torch.device("cpu")


class Everything(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("spread", torch.arange(3.0).expand(2, 3))
        self.tied = self.layer.weight
        self.generator = torch.Generator().manual_seed(1)
        self.calls = 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"calls": self.calls, "seen": [self.calls]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.hidden += torch.rand(3, generator=self.generator)
        return self.norm(self.layer(x))


def lived() -> Everything:
    torch.manual_seed(2)
    module = Everything()
    module(torch.rand(4, 2, 3, 3))
    module.norm.eval()
    module.late = torch.ones(2)
    return module


def test_everything_comes_back() -> None:
    """Parameters, all buffers, extra state, private generators and modes."""
    module = lived()
    other = Everything()
    load_module(other, save_module(module))
    for (name, one), (_, two) in zip(
        [*module.named_parameters(), *module.named_buffers()],
        [*other.named_parameters(), *other.named_buffers()],
        strict=True,
    ):
        assert torch.equal(one, two), name
    assert (other.calls, other.training, other.norm.training) == (1, True, False)
    assert torch.equal(torch.rand(3, generator=module.generator), torch.rand(3, generator=other.generator))


def test_tensors_keep_identity_and_strides() -> None:
    """Optimizers, hooks and captured graphs go on with the tensors that they hold; none is shared with the state."""
    module, other = lived(), Everything()
    weight, hidden = other.layer.weight, other.hidden
    strides, pointer = weight.stride(), weight.data_ptr()
    state = save_module(module)
    load_module(other, state)
    assert other.layer.weight is weight
    assert other.tied is weight
    assert other.hidden is hidden
    assert (weight.stride(), weight.data_ptr()) == (strides, pointer)
    with torch.no_grad():
        weight.zero_()
    other.late.zero_()
    assert state["parameters"]["tied"].abs().sum() > 0
    assert state["buffers"]["late"].sum() == 2


def test_a_buffer_that_came_later_goes_again() -> None:
    """A cache that was not there when the state was saved is not there afterwards."""
    module = Everything()
    before = save_module(module)
    before = {**before, "buffers": {name: tensor.clone() for name, tensor in before["buffers"].items()}}
    module.late = torch.ones(2)
    module.hidden = torch.ones(5)
    load_module(module, before)
    assert module.late is None
    assert torch.equal(module.hidden, torch.zeros(3))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (nn.Conv2d(2, 2, 1, bias=False), "other names"),
        (nn.Conv2d(2, 3, 1), "float32 \\(3, 2, 1, 1\\), and float32 \\(2, 2, 1, 1\\) was saved"),
        (nn.Conv2d(2, 2, 1, dtype=torch.float64), "float64"),
    ],
)
def test_another_module_is_refused_unchanged(other: nn.Module, words: str) -> None:
    """With words that say what differs."""
    before = [parameter.clone() for parameter in other.parameters()]
    module = nn.Sequential(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match=words):
        load_module(nn.Sequential(other), save_module(module))
    assert all(map(torch.equal, other.parameters(), before))


def test_a_module_without_the_generator_is_refused() -> None:
    """Its randomness would begin anew in silence."""
    module = nn.Linear(2, 2)
    module.generator = torch.Generator()
    with pytest.raises(ValueError, match="not built as it was"):
        load_module(nn.Linear(2, 2), save_module(module))


def test_batches_keep_their_layout_and_share_nothing() -> None:
    """Nested, with views, channels_last and plain values."""
    image = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    batch = ({"image": image, "name": "x"}, [image[:, 1:], torch.ones(()).expand(2)], 3)
    packed = pack_batch(batch)
    found = unpack_batch(packed, CPU)
    assert found[0]["name"] == "x"
    assert found[2] == 3
    assert torch.equal(found[0]["image"], image)
    assert found[0]["image"].stride() == image.stride()
    assert found[1][0].stride() == image[:, 1:].stride()
    assert torch.equal(found[1][1], torch.ones(2))
    assert found[0]["image"].data_ptr() != image.data_ptr()
