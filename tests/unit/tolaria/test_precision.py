"""Devices, number formats and generators."""

import random

import numpy as np
import pytest
import torch

from esperd.config.settings import Settings, TrainingSettings
from esperd.leyline.errors import EsperdError
from esperd.tolaria.precision import Precision, resolve_device, seed_everything, untouched_rng
from tests.unit.tolaria.harness import Run


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "nonsense", "mps"])
def test_a_device_that_is_not_there_is_an_error(name: str):
    """Never a silent move to the CPU."""
    with pytest.raises(EsperdError) as failure:
        resolve_device(name)
    assert failure.value.reason == "DEVICE_UNAVAILABLE"


def test_auto_takes_what_there_is():
    """CUDA where torch sees it, else the CPU."""
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"


def test_only_fp16_gets_a_scaler():
    """bf16 has the range of float32 and needs none; off is no autocast at all."""
    cpu = torch.device("cpu")
    assert Precision("off", cpu).dtype is None
    assert Precision("auto", cpu).dtype is None
    assert Precision("bf16", cpu).new_scaler is None
    assert Precision("fp16", cpu).new_scaler is not None
    with Precision("bf16", cpu).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_training_under_autocast_learns(amp: str):
    """The loss falls, and weights stay float32."""
    run = Run(settings=Settings(training=TrainingSettings(device="cpu", amp=amp))).begin()
    run.trainer.safe_point.validate()
    before = run.view.val_loss
    run.steps(60)
    run.trainer.safe_point.validate()
    assert run.view.val_loss < before
    assert all(p.dtype is torch.float32 for p in run.task.model.parameters())


def test_every_generator_is_seeded_and_put_back():
    """Python's, NumPy's and torch's."""

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(5)
    first = draw()
    seed_everything(5)
    with untouched_rng():
        draw()
    assert draw() == first
