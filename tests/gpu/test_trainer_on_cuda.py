"""The trainer on a CUDA device: it learns, and skips non-finite steps without waiting for the device."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from esperd.config.settings import Settings, TrainingSettings
from esperd.leyline.vocabulary import EmergencyLevel
from tests.unit.tolaria.harness import Run, make_task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = Settings(training=TrainingSettings(device="cuda", log_every_steps=5))


class OneBadBatch:
    """A poisoned batch among good ones."""

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = torch.ones(4, 6), torch.tensor([0, 1, 0, 1])
        for number in range(40):
            yield (inputs * math.nan if number == 10 else inputs), targets


def test_it_learns_on_the_device():
    """bf16 autocast where the device has it, float32 weights, batches on the device."""
    run = Run(settings=CUDA).begin()
    run.trainer.safe_point.validate()
    before = run.view.val_loss
    run.steps(60)
    run.trainer.safe_point.validate()
    assert run.view.val_loss < before
    assert all(p.is_cuda and p.dtype is torch.float32 for p in run.task.model.parameters())


def test_a_non_finite_loss_is_skipped_on_the_device_and_told_later():
    """A fused optimizer keeps it from the weights at once; the level rises when the loss has been read."""
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    run = Run(make_task(model=model, optimizer=optimizer, train_data=OneBadBatch()), CUDA).begin()
    assert not run.trainer.loss_reader.is_immediate
    run.steps(15)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert run.view.emergency_level is EmergencyLevel.CONSERVATIVE
    assert run.trainer.parts.loss_window.num_non_finite == 1
