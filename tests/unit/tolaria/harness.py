"""A tiny real task and a trainer driven inline, with a clock that stands still unless it is moved."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings, TrainingSettings
from esperd.leyline.commands import ApplyAt, Command, Outcome, Payload
from esperd.leyline.views import NoticeEvent, RunView, Snapshot, StatePacket
from esperd.leyline.vocabulary import TrainerPhase
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task
from esperd.tolaria.trainer import Trainer

NUM_TRAIN, NUM_HELD_OUT, BATCH = 48, 20, 8


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def table(num_rows: int, random_seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(random_seed)
    rows = torch.randn(num_rows, 6, generator=generator)
    return rows, (rows[:, 0] * rows[:, 1] > 0).long()


def make_model(random_seed: int = 0) -> nn.Module:
    torch.manual_seed(random_seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))


def make_task(random_seed: int = 0, **changes: Any) -> Task:
    model = changes.pop("model", None) or make_model(random_seed)
    optimizer = changes.pop("optimizer", None) or torch.optim.AdamW(model.parameters(), lr=0.01)
    held_out = table(NUM_HELD_OUT, 2)
    task = Task(
        model=model,
        optimizer=optimizer,
        loss_fn=functional.cross_entropy,
        train_data=TensorBatches(*table(NUM_TRAIN, 1), BATCH, shuffle_seed=random_seed),
        eval_data=TensorBatches(*held_out, BATCH),
        metrics={"accuracy": lambda output, targets: (output.argmax(1) == targets).float().mean()},
    )
    return replace(task, **changes)


class Run:
    """A trainer with its bridge, as a test sees both."""

    def __init__(self, task: Task | None = None, settings: Settings | None = None, **trainer_options: Any) -> None:
        self.clock = Clock()
        first = Snapshot(1, RunView("run", "tiny", TrainerPhase.STARTING, 0, 0, 0, math.nan, math.nan))
        self.bridge = Bridge(first_snapshot=first)
        self.task = make_task() if task is None else task
        settings = Settings(training=TrainingSettings(device="cpu")) if settings is None else settings
        options = {"run_id": "run", "task_name": "tiny", "clock": self.clock, **trainer_options}
        self.trainer = Trainer(self.task, settings, self.bridge, **options)
        self.events: list[Any] = []
        self._num_commands = 0

    def submit(self, payload: Payload, **fields: Any) -> str:
        """Put a command into the box; returns its id."""
        self._num_commands += 1
        command_id = fields.pop("command_id", f"c{self._num_commands}")
        if "at_step" in fields:
            fields["apply_at"] = ApplyAt(global_step=fields.pop("at_step"))
        self.bridge.reserve()
        self.bridge.submit(Command(command_id, payload, fields.pop("principal", "operator"), **fields))
        return command_id

    def begin(self) -> "Run":
        self.trainer.prepare()
        return self

    def steps(self, count: int) -> "Run":
        for _ in range(count):
            self.trainer.step()
        return self

    def take(self) -> list[Any]:
        self.events += self.bridge.take_events(1 << 30)
        return self.events

    def outcome(self, command_id: str) -> Outcome:
        """The one final outcome of a command."""
        found = [e for e in self.take() if isinstance(e, Outcome) and e.command_id == command_id]
        assert len(found) == 1, f"{command_id} has {len(found)} outcomes"
        return found[0]

    def notices(self, kind: str) -> list[NoticeEvent]:
        return [e for e in self.take() if isinstance(e, NoticeEvent) and e.kind == kind]

    def packets(self) -> list[StatePacket]:
        return [e for e in self.take() if isinstance(e, StatePacket)]

    @property
    def view(self) -> RunView:
        return self.bridge.snapshot().run


def bare_losses(task: Task, num_steps: int, *, clip: float = 0.0) -> list[float]:
    """The same training, written as the plain loop that everybody knows."""
    losses: list[float] = []

    def endless() -> Iterator[Any]:
        while True:
            yield from task.train_data

    batches = endless()
    for _ in range(num_steps):
        inputs, targets = next(batches)
        loss = task.loss_fn(task.model(inputs), targets)
        loss.backward()
        if clip > 0:
            nn.utils.clip_grad_norm_(task.model.parameters(), clip)
        task.optimizer.step()
        if task.scheduler is not None:
            task.scheduler.step()  # type: ignore[call-arg]  # never a plateau here
        task.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def recording_losses(run: Run, losses: list[float]) -> Callable[..., torch.Tensor]:
    """Have every training loss of a run appended to a list."""
    see = run.trainer._troubles.see_loss

    def spy(value: float) -> Any:
        losses.append(value)
        return see(value)

    run.trainer._troubles.see_loss = spy  # type: ignore[method-assign]
    return spy
