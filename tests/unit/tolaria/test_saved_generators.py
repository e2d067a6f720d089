"""The state of a random generator comes back whole, wherever it lay in the file."""

from typing import Any

import numpy as np
import pytest
import torch

from esperd.tolaria.state_tree import BufferPool, capture, rebuild


@pytest.mark.parametrize("num_before", [0, 1, 3])
def test_generator_goes_on_from_a_rebuilt_state(num_before: int) -> None:
    """torch reads a state from its storage's beginning: a rebuilt one must not share storage with others."""
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    before: dict[str, Any] = {f"b{i}": torch.arange(i + 1, dtype=torch.uint8) for i in range(num_before)}
    tree = {"trainer": {**before, "state": generator.get_state(), "array": np.arange(3.0)}}
    found = rebuild(capture(tree, BufferPool(torch.device("cpu"))))["trainer"]
    other = torch.Generator()
    other.set_state(found["state"])
    assert torch.equal(torch.rand(9, generator=other), torch.rand(9, generator=generator))
    assert all(torch.equal(found[name], tensor) for name, tensor in before.items())
