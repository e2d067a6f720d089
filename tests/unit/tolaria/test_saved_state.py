"""The whole trainer's state: saved at some step, loaded elsewhere or in the same run, and the same ever after."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset

from esperd.config.settings import TrainingSettings
from esperd.leyline.commands import SeedCommand
from esperd.leyline.vocabulary import Operation
from esperd.tolaria import saved_state
from esperd.tolaria.state_tree import BufferPool, capture, rebuild
from esperd.tolaria.task import Task
from tests.unit.tolaria.growing import growing, images_task
from tests.unit.tolaria.harness import Run, make_task
from tests.unit.tolaria.restoring import assert_equal

COMPUTED = ("host", "growth", "optimizers")
DRAWN = ("feed", "probe_set", "random", "loss", "packet_probe")


class Flipped(Dataset[tuple[Tensor, Tensor]]):
    """Images that are turned round at random, by the process's own generator."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return (image.flip(-1) if torch.rand(()) < 0.5 else image), self.targets[index]


def loaded() -> Task:
    """A DataLoader that augments in the main process, and a schedule."""
    task = images_task()
    data = task.train_data
    loader = DataLoader(Flipped(data.inputs, data.targets), batch_size=16, shuffle=True)  # type: ignore[attr-defined]
    optimizer = task.optimizer
    return replace(task, train_data=loader, scheduler=lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=500))


def begin(make: Callable[[], Task], **training: Any) -> Run:
    return growing(make(), ("stem", "body"), TrainingSettings(device="cpu", deterministic=True, **training))


def germinate(run: Run, site: str) -> None:
    run.submit(SeedCommand(Operation.GERMINATE, site=site, blueprint_id="residual_conv", auto_advance=True))


def saved(run: Run) -> dict[str, Any]:
    return rebuild(capture(saved_state.save(run.trainer.parts), BufferPool(torch.device("cpu"))))


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    """All but the times that were measured."""
    for section in COMPUTED:
        assert_equal(one[section], other[section], section)
    for name in DRAWN:
        assert_equal(one["trainer"][name], other["trainer"][name], name)


def assert_goes_on(make: Callable[[], Task], *moments: int, after: int, **training: Any) -> None:
    """From each moment on, in a fresh trainer and then in the one that has gone on."""
    run = begin(make, **training)
    germinate(run, "body")
    step, states = 0, []
    for moment in moments:
        run.steps(moment - step)
        germinate(run, "stem")
        run.steps(1)
        step = moment + 1
        states.append(saved(run))
        run.steps(after)
        step += after
        expected = saved(run)
        other = begin(make, **training)
        saved_state.restore(other.trainer.parts, states[-1], within_run=False)
        other.steps(after)
        assert_same_state(saved(other), expected)
        saved_state.restore(run.trainer.parts, states[-1], within_run=True)
        run.steps(after)
        assert_same_state(saved(run), expected)
    saved_state.restore(run.trainer.parts, states[0], within_run=True)
    assert_same_state(saved(run), states[0])


@pytest.mark.parametrize(("make", "channels_last"), [(images_task, True), (loaded, False)])
def test_a_growing_run_goes_on_exactly(make: Callable[[], Task], channels_last: bool) -> None:
    """While a seed trains, blends and is judged, in the middle of an epoch."""
    assert_goes_on(make, 7, 48, 70, after=13, channels_last=channels_last)


class Caching(nn.Module):
    """A host that builds a buffer when it is first used, widens it later, and draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.register_buffer("cache", None, persistent=False)
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            grown = torch.rand(1, generator=self.generator)
            self.cache = grown if self.cache is None else torch.cat([self.cache, grown])
        return self.layer(x) if self.cache is None else self.layer(x) + self.cache.mean()


def test_a_host_that_builds_its_buffers_as_it_goes_is_resumed() -> None:
    """The new process has none of them yet, the running one too many."""

    def begin_caching() -> Run:
        torch.manual_seed(0)
        return Run(make_task(model=Caching(), step_flops=1.0))

    run = begin_caching()
    run.steps(3)
    before = saved(run)
    run.steps(4)
    expected = saved(run)
    other = begin_caching()
    saved_state.restore(other.trainer.parts, before, within_run=False)
    other.steps(4)
    assert_same_state(saved(other), expected)
    saved_state.restore(run.trainer.parts, before, within_run=True)
    run.steps(4)
    assert_same_state(saved(run), expected)
