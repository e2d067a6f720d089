"""Runs in which seeds grow: settings that let them through, a host that is easily disturbed, and what to look at."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from esperd.config.settings import GrowthSettings, Settings, TrainingSettings
from esperd.leyline.commands import SeedCommand
from esperd.leyline.vocabulary import CommandState, Operation, Stage, TrainingMode
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.tolaria.harness import Run

EAGER = GrowthSettings(
    min_training_steps=40,
    max_training_steps=100_000,
    max_dwell_steps=100_000,
    alpha_steps=5,
    embargo_steps=5,
    probe_units=16,
    probe_every_steps=2,
    probe_budget=1e9,
    seed_warmup_steps=0,
    max_parameter_ratio=1e6,
    max_seed_flops_ratio=1e6,
    max_step_time_ratio=1e9,
    wanted_gain_ratio=-10.0,
    non_inferiority_ratio=10.0,
    max_output_ratio=100.0,
    rent=-10.0,
    max_probe_units=1024,
)
"""Gates that let every seed through that does no grave harm: lives that are certain to go on."""
MODES = [TrainingMode.GRADIENT_MATCHING, TrainingMode.SHADOW_FORWARD, TrainingMode.STRAIGHT_THROUGH]


class Images(nn.Module):
    """Convolution, BatchNorm, an operation in place, dropout: everything that breaks a careless isolation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 6, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        return self.head(self.drop(torch.relu(self.body(x)).mean(dim=(2, 3))))


def images_task() -> Task:
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(576, 1, 6, 6, generator=generator)
    y = (x[:, 0, :3].mean(dim=(1, 2)) > 0).long() + (x[:, 0, 3:].mean(dim=(1, 2)) > 0).long()
    model = Images()
    return Task(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        loss_fn=functional.cross_entropy,
        train_data=TensorBatches(x[:320], y[:320], 8, shuffle_seed=1),
        eval_data=TensorBatches(x[320:], y[320:], 256),
    )


def growing(task: Task, sites: tuple[str, ...], training: TrainingSettings | None = None, **growth: Any) -> Run:
    settings = Settings(
        training=training or TrainingSettings(device="cpu"), growth=replace(EAGER, sites=sites, **growth)
    )
    run = Run(task, settings, registry=chaos_registry())
    torch.manual_seed(7)
    return run.begin()


def apply(run: Run, operation: Operation, seed_id: int = 0, **fields: Any) -> int:
    """Carry out a command at the next safe point; it must be applied."""
    command_id = run.submit(SeedCommand(operation, seed_id=seed_id, **fields))
    run.steps(1)
    outcome = run.outcome(command_id)
    assert outcome.state is CommandState.APPLIED, outcome.refusal
    return outcome.seed_id


def stage_of(run: Run, seed_id: int) -> Stage:
    seeds = {seed.seed_id: seed.stage for seed in run.bridge.snapshot().seeds}
    return seeds.get(seed_id, Stage.DORMANT)


def until(run: Run, seed_id: int, stage: Stage, limit: int = 1500) -> None:
    """Train until the seed is there, looking at the ownership of every parameter after every step."""
    for _ in range(limit):
        if stage_of(run, seed_id) is stage:
            return
        run.steps(1)
        assert_one_owner_each(run)
    raise AssertionError(f"{stage_of(run, seed_id).name}, not {stage.name}: {run.bridge.snapshot().seeds}")


def assert_one_owner_each(run: Run) -> None:
    """Every trainable parameter of the host and of every seed is in exactly one group of one optimizer."""
    optimizers, garden = run.trainer.optimizers, run.trainer.executor._garden
    owners = [optimizers.host, *(seed.optimizer for seed in optimizers._seeds.values())]
    owned = [id(p) for owner in owners for group in owner.param_groups for p in group["params"]]
    grown = [p for seed in garden.seeds.values() for p in seed.parameters]
    there = {id(p) for p in [*run.task.model.parameters(), *grown]}
    assert len(owned) == len(set(owned))
    assert set(owned) == there


def fingerprint(run: Run, num_host_parameters: int) -> dict[str, Tensor]:
    """Everything of the host that must not move, and the global generator."""
    found = {f"model.{name}": tensor.clone() for name, tensor in run.task.model.state_dict().items()}
    for index, parameter in enumerate(list(run.task.model.parameters())[:num_host_parameters]):
        for name, value in run.task.optimizer.state[parameter].items():
            found[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
    found["rng"] = torch.get_rng_state()
    return found
