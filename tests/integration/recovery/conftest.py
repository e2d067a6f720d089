"""What every test of recovery stands on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from esperd.oona.checkpoints.store import CheckpointStore
from tests.integration.recovery.digits_run import timelines, to_the_end, train
from tests.unit.tolaria.conftest import _one_thread
from tests.unit.tolaria.harness import Run

__all__ = ["_one_thread"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    """A checkpoint directory of one's own."""
    store = CheckpointStore(tmp_path / "checkpoints")
    yield store
    store.release()


@pytest.fixture(scope="module")
def undisturbed() -> Run:
    """The run in which nothing goes wrong."""
    torch.set_num_threads(1)
    run = to_the_end(train())
    assert timelines(run) == []
    return run
