"""Checkpoints of runs that have grown, without the growing; and tasks that are hard to export."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from esperd.bridge.bridge import Bridge
from esperd.config.settings import GrowthSettings, RunSettings, Settings, TrainingSettings
from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.site import quiet_eval
from esperd.leyline.views import RunView, Snapshot
from esperd.leyline.vocabulary import CheckpointKind, Stage, TrainerPhase
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria import saved_state
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.parts import Parts
from esperd.tolaria.precision import configure_torch
from esperd.tolaria.state_tree import BufferPool, capture, write_files
from esperd.tolaria.task import Task, load_task

CHECKPOINT = "t000-s000000007"


class Source:
    """A run at its seventh step, on disk, with what it gives for its first batch."""

    def __init__(self, directory: Path, settings: Settings, grow: Callable[[SeedExecutor], None]) -> None:
        self.settings = settings
        parts = self._parts()
        grow(parts.executor)
        for seed in parts.executor._garden.seeds.values():
            parts.optimizers.create_seed(seed.seed_id, seed.parameters)
            if seed.stage is Stage.FOSSILIZED:
                parts.optimizers.merge_seed(seed.seed_id)
        self.inputs: Any = parts.feed.peek()[0]
        with quiet_eval(parts.model), torch.no_grad(), parts.executor.without_live_seeds():
            self.expected: Any = parts.forward(self.inputs)
        self.host_keys = set(parts.model.state_dict())
        self.store = CheckpointStore(directory)
        self.stored = self._write(saved_state.save(parts))
        self.store.release()

    def _parts(self) -> Parts:
        run = self.settings.run
        configure_torch(run, self.settings.training)
        task = load_task(run.task, run.task_options)
        first = Snapshot(1, RunView("run", run.task, TrainerPhase.STARTING, 0, 0, 0, 0.0, 0.0))
        return Parts(
            task,
            self.settings,
            Bridge(first_snapshot=first),
            run_id="run",
            task_name=run.task,
            clock=time.time,
            registry=None,
        )

    def _write(self, tree: dict[str, Any]) -> StoredCheckpoint:
        with self.store.begin(CHECKPOINT) as pending:
            write_files(capture(tree, BufferPool(torch.device("cpu"))), pending)
            draft = Manifest(
                checkpoint_id=CHECKPOINT,
                kind=CheckpointKind.SCHEDULED,
                run_id="run",
                timeline=0,
                global_step=7,
                epoch=0,
                sequence=0,
                revision=1,
                journal_revision=1,
                written_unix_s=1000.0,
                esperd_version="0",
                torch_version="0",
                task=self.settings.run.task,
                note="",
                config={},
                num_parameters=1,
                pause_ms=0.0,
            )
            return pending.commit(draft)


def settings_for(task: str, sites: tuple[str, ...], *, amp: str = "off", **options: Any) -> Settings:
    return Settings(
        run=RunSettings(task=task, task_options=options),
        training=TrainingSettings(device="cpu", amp=amp),
        growth=GrowthSettings(sites=sites),
    )


def nothing(executor: SeedExecutor) -> None:
    """A run in which nothing has grown."""


def _task(model: nn.Module, x: Any, y: Tensor) -> Task:
    return Task(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=lambda output, targets: functional.cross_entropy(_first(output), targets),
        train_data=TensorBatches(x, y, 8, shuffle_seed=1),
        eval_data=TensorBatches(x, y, 8),
        per_sample_loss=lambda output, targets: functional.cross_entropy(_first(output), targets, reduction="none"),
    )


def _first(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 6, generator=generator), torch.randint(0, 6, (40,), generator=generator)


class Tied(nn.Module):
    """One weight under two names, a buffer that no state dict has, an unused weight, outputs in a dictionary."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6, bias=False)
        self.outer = nn.Linear(6, 6, bias=False)
        self.outer.weight = self.inner.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("table", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = torch.relu(self.inner(x))
        y = self.outer(x) + self.table
        return {"logits": y, "parts": (x, [y * 2])}


def tied() -> Task:
    return _task(Tied(), *_rows())


class Fixed(nn.Module):
    """Knows its batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(8, 6)


def fixed() -> Task:
    return _task(Fixed(), *_rows())


class Deciding(Fixed):
    """Looks at its values to choose its way."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x if x.sum() > 0 else -x


def deciding() -> Task:
    return _task(Deciding(), *_rows())


class Muted(Fixed):
    """Turns gradients off in the middle."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().mean(dim=1, keepdim=True)
        return self.layer(x / scale)


def muted() -> Task:
    return _task(Muted(), *_rows())
