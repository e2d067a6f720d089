"""Grows a model with the real trainer and the real executor, in this process, by commands dated in advance.

No daemon and no policy: what is asked, and at which step, is the experiment's. Every gate, guard and probe is live.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from esperd.bridge.bridge import Bridge
from esperd.config.settings import GrowthSettings, RunSettings, Settings, TrainingSettings
from esperd.examples.arms import ArmResult, Insertion
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.leyline.commands import ApplyAt, Command, SeedCommand
from esperd.leyline.views import RunView, SeedView, Snapshot, TransitionEvent
from esperd.leyline.vocabulary import Operation, Stage, TrainerPhase
from esperd.tolaria.task import Task
from esperd.tolaria.trainer import Trainer

VALIDATE_EVERY_STEPS = 25
SPIKE_WINDOW_STEPS = 100


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """What is asked of a run, and when."""

    insertions: Sequence[Insertion]
    germinate_at_step: int
    growth: Mapping[str, Any] = field(default_factory=dict)
    """Changes to GrowthSettings."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Changes to TrainingSettings."""
    cull_at_step: int = 0
    """Cull every seed at this step; 0 culls none."""
    blueprints: Callable[[], BlueprintRegistry] = standard_registry


@dataclass(frozen=True, slots=True)
class GrownRun:
    """A run with growth, and what became of its seeds."""

    result: ArmResult
    seeds: tuple[SeedView, ...]
    transitions: tuple[TransitionEvent, ...]
    worst_spike: float
    """Largest rise of the validation loss within 100 steps after a blend began, over its value before; nats."""
    parameters: tuple[torch.Tensor, ...]
    """The host's parameters and buffers at the end."""

    @property
    def num_fossilized(self) -> int:
        """Seeds that stayed."""
        return sum(seed.stage is Stage.FOSSILIZED for seed in self.seeds)


def grow(build_task: Callable[[int], Task], num_steps: int, plan: GrowthPlan, *, random_seed: int) -> GrownRun:
    """Train for `num_steps` with the plan's seeds advancing by themselves as their gates pass."""
    torch.manual_seed(random_seed)
    task = build_task(num_steps)
    sites = tuple(dict.fromkeys(insertion.site for insertion in plan.insertions))
    settings = Settings(
        run=RunSettings(num_steps=num_steps, random_seed=random_seed),
        training=dataclasses.replace(
            TrainingSettings(device="cpu", validate_every_steps=VALIDATE_EVERY_STEPS), **plan.training
        ),
        growth=dataclasses.replace(GrowthSettings(sites=sites), **plan.growth),
    )
    bridge = Bridge(first_snapshot=_nothing_yet(num_steps), ring_capacity=1 << 20)
    trainer = Trainer(task, settings, bridge, run_id="bench", task_name="bench", registry=plan.blueprints())
    for number, command in enumerate(_commands(plan)):
        bridge.reserve()
        bridge.submit(dataclasses.replace(command, command_id=f"bench-{number}"))
    trainer.run()
    return _outcome(bridge, task)


def _commands(plan: GrowthPlan) -> list[Command]:
    commands = [
        _command(
            SeedCommand(
                Operation.GERMINATE,
                site=insertion.site,
                blueprint_id=insertion.blueprint_id,
                parameters=insertion.parameters,
                auto_advance=True,
            ),
            plan.germinate_at_step,
        )
        for insertion in plan.insertions
    ]
    if plan.cull_at_step:
        seed_ids = range(1, len(plan.insertions) + 1)
        commands += [_command(SeedCommand(Operation.CULL, seed_id=seed_id), plan.cull_at_step) for seed_id in seed_ids]
    return commands


def _command(payload: SeedCommand, step: int) -> Command:
    return Command("", payload, principal="bench", reason="experiment", apply_at=ApplyAt(global_step=step))


def _outcome(bridge: Bridge, task: Task) -> GrownRun:
    snapshot = bridge.snapshot()
    run = snapshot.run
    if run.phase is not TrainerPhase.FINISHED:
        raise RuntimeError(f"the run ended as {run.phase.name}: {run.failure}")
    events = bridge.take_events(1 << 30)
    transitions = tuple(event for event in events if isinstance(event, TransitionEvent))
    samples, _ = bridge.take_samples()
    losses = [(step, value) for name, _, step, value, _ in samples if name == "tolaria.validation.loss"]
    result = ArmResult(
        run.val_loss,
        run.metrics["accuracy"],
        run.num_host_parameters + run.num_grown_parameters,
        run.train_flops,
        run.global_step,
    )
    tensors = tuple(tensor.detach().clone() for tensor in task.model.state_dict().values())
    return GrownRun(result, snapshot.seeds, transitions, _worst_spike(transitions, losses), tensors)


def _worst_spike(transitions: Sequence[TransitionEvent], losses: Sequence[tuple[int, float]]) -> float:
    worst = 0.0
    for event in transitions:
        if event.target is not Stage.BLENDING:
            continue
        before = [value for step, value in losses if step <= event.global_step]
        after = [value for step, value in losses if 0 < step - event.global_step <= SPIKE_WINDOW_STEPS]
        if before and after:
            worst = max(worst, max(after) - before[-1])
    return worst


def _nothing_yet(num_steps: int) -> Snapshot:
    nan = float("nan")
    return Snapshot(0, RunView("bench", "bench", TrainerPhase.STARTING, 0, 0, num_steps, nan, nan))
