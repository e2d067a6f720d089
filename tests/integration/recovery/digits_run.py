"""A run of the digits task that can be poisoned at one exact step, and what is asked of it afterwards."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from esperd.config.settings import (
    BudgetSettings,
    CheckpointSettings,
    RunSettings,
    Settings,
    TrainingSettings,
)
from esperd.examples import digits
from esperd.leyline.views import CheckpointEvent, NoticeEvent, TimelineEvent
from esperd.leyline.vocabulary import Operation, TrainerPhase
from esperd.tolaria.task import Task
from tests.unit.tolaria.growing import EAGER, apply
from tests.unit.tolaria.harness import Run

NUM_STEPS = 300
TROUBLE = 152
"""The step at which it goes wrong; the newest good state is then of step 140."""
SETTINGS = Settings(
    run=RunSettings(num_steps=NUM_STEPS),
    training=TrainingSettings(device="cpu", deterministic=True),
    checkpoints=CheckpointSettings(every_steps=100, snapshot_every_steps=20, good_after_steps=10),
    budgets=BudgetSettings(window_steps=10, anomaly_window=20, slow_ratio=1e6),
)
GROWING = replace(SETTINGS, growth=replace(EAGER, sites=("block1",), alpha_steps=20))
ON_DEMAND = CheckpointSettings(every_steps=0, snapshot_every_steps=0)
WORSE = 1.1
"""At most so many times the validation loss of the undisturbed run, where data or steps are lost for good."""


def make_task() -> Task:
    torch.manual_seed(0)
    return digits.build(num_steps=NUM_STEPS)


def train(task: Task | None = None, settings: Settings = SETTINGS, **options: Any) -> Run:
    """A run that is set up and has not begun."""
    run = Run(make_task() if task is None else task, settings, **options)
    torch.manual_seed(7)
    return run


def to_the_end(run: Run) -> Run:
    run.trainer.run()
    assert run.view.phase is TrainerPhase.FINISHED, run.view.failure
    return run


def timelines(run: Run) -> list[TimelineEvent]:
    return [event for event in run.take() if isinstance(event, TimelineEvent)]


def emergencies(run: Run) -> list[tuple[str, str]]:
    """(what, emergency id) of everything raised and cleared."""
    found = [e for e in run.take() if isinstance(e, NoticeEvent) and e.kind.startswith("emergency.")]
    return [(event.kind.removeprefix("emergency."), event.attributes["emergency_id"]) for event in found]


def assert_same_end(run: Run, other: Run) -> None:
    """Weights, buffers, optimizer state and the last numbers, bit for bit."""
    assert run.view.global_step == other.view.global_step == NUM_STEPS
    assert (run.view.train_loss, run.view.val_loss) == (other.view.train_loss, other.view.val_loss)
    ours, theirs = run.task, other.task
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, theirs.model.state_dict()[name]), name
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        for name, value in ours.optimizer.state[p].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs.optimizer.state[q][name])), name


def in_thread(run: Run) -> threading.Thread:
    thread = threading.Thread(target=run.trainer.run, name="trainer under test")
    thread.start()
    return thread


def wait_for(run: Run, condition: Callable[[Any], bool]) -> None:
    for _ in range(30_000):
        if condition(run.view):
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"never came: {run.view}")


def checkpoints_of(run: Run) -> list[CheckpointEvent]:
    return [event for event in run.take() if isinstance(event, CheckpointEvent)]


def plant(run: Run, name: str, **parameters: float) -> int:
    """A seed that goes its way by itself as far as its gates let it."""
    return apply(run, Operation.GERMINATE, site="block1", blueprint_id=name, auto_advance=True, parameters=parameters)


def written(run: Run) -> None:
    """Wait until the writer has done what it was given."""
    assert run.trainer._keeper._writer is not None
    assert run.trainer._keeper._writer.wait_idle(30.0)
