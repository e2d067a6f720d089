"""A state on a CUDA device is copied into pinned memory, whole before `capture` returns."""

import pytest
import torch

from esperd.tolaria.safetensors_header import DTYPES
from esperd.tolaria.state_tree import BufferPool, capture, rebuild

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(torch.device("cuda"))


def test_every_dtype_comes_over_from_the_device(pool: BufferPool) -> None:
    """Together with tensors that are on the CPU, transposed ones, 0-dim and empty ones."""
    tree = {
        "model": {str(dtype): torch.ones(3, 5, device="cuda").to(dtype).mT for dtype in DTYPES},
        "rest": [torch.tensor(7), torch.zeros(0, 2, device="cuda"), torch.get_rng_state(), torch.cuda.get_rng_state()],
    }
    captured = capture(tree, pool)
    for name, value in rebuild(captured)["model"].items():
        assert value.is_pinned()
        assert torch.equal(value.view(torch.uint8), tree["model"][name].cpu().contiguous().view(torch.uint8))
    assert all(map(torch.equal, rebuild(captured)["rest"], [value.cpu() for value in tree["rest"]]))


def test_work_queued_after_the_capture_does_not_reach_it(pool: BufferPool) -> None:
    """The copy sees what was queued before, nothing that was queued after, many times over with the same memory."""
    weight = torch.zeros(1 << 22, device="cuda")
    for number in range(1, 20):
        weight.fill_(number)
        captured = capture({"model": {"w": weight}}, pool)
        weight.fill_(-1.0)
        copy = rebuild(captured)["model"]["w"]
        assert (copy.min(), copy.max()) == (number, number)
        captured.release()
