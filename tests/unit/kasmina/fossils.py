"""Hosts with fossils in them that nobody had to grow: for tests of what is done with a settled model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from esperd.config.settings import GrowthSettings
from esperd.examples import bytes as bytes_example
from esperd.examples import digits, tabular
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.germination import build_seed, plan_for
from esperd.kasmina.ports import Attribution, Host
from esperd.kasmina.seed import Seed
from esperd.leyline.commands import SeedCommand
from esperd.leyline.views import Cost
from esperd.leyline.vocabulary import BlendMode, Operation, Stage
from esperd.tolaria.task import Task
from tests.unit.kasmina.harness import TorchOptimizers

EXAMPLES: dict[str, tuple[Callable[[], Task], tuple[str, ...]]] = {
    "digits": (digits.build, ("block1", "block2", "head")),
    "bytes": (bytes_example.build, ("blocks.*", "head")),
    "tabular": (tabular.build, ("hidden1", "hidden2", "head")),
}
"""The shipped tasks with the sites at which the tests grow."""


class Grown:
    """A model, its sites, and one batch of inputs."""

    def __init__(self, model: nn.Module, inputs: Any, sites: tuple[str, ...], forward: Any = None) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = model, inputs
        self.forward = forward or model
        host = Host(
            model=model,
            device=torch.device("cpu"),
            forward=self.forward,
            loss=nn.functional.cross_entropy,
            unit_losses=lambda output, targets: output.sum(dim=-1),
            probe_batches=lambda num_units: [],
            sample_inputs=lambda: (inputs, inputs),
            step_flops=lambda: 1.0,
        )
        self.executor = SeedExecutor(
            host=host,
            site_patterns=sites,
            settings=GrowthSettings(),
            registry=standard_registry(),
            optimizers=TorchOptimizers(model),
            report=lambda event: None,
            clock=lambda: 0.0,
            random_seed=1,
        )
        self.garden = self.executor._garden

    def plant(self, site: str, blueprint_id: str, mode: BlendMode, *, amplitude: float = 1.0) -> Seed:
        """Put a fossil that changes the output on top of what is at the site."""
        return plant(self.executor, site, blueprint_id, mode, amplitude=amplitude)

    def graft(self, site: str, blueprint_id: str, stage: Stage, alpha: float) -> Seed:
        """Let a live seed blend at the site."""
        return graft(self.executor, site, blueprint_id, stage, alpha)

    def clear(self) -> None:
        """Take everything out again."""
        self.garden.seeds.clear()
        for slot in self.garden.slots.values():
            slot.fossils, slot.grafted = [], None
            slot.refresh()

    def output(self) -> Any:
        """What the live model gives in evaluation mode."""
        self.model.eval()
        with torch.no_grad():
            return self.forward(self.inputs)


def plant(executor: SeedExecutor, site: str, blueprint_id: str, mode: BlendMode, *, amplitude: float = 1.0) -> Seed:
    """Put a fossil that changes the output on top of what is at the site."""
    seed = _seed(executor, site, blueprint_id, mode)
    seed.set_alpha(1.0)
    seed.amplitude = amplitude
    seed.blender.lift_cap()
    seed.blender.eval()
    seed.stage = Stage.FOSSILIZED
    seed.ema = []
    slot = executor._garden.slots[site]
    slot.fossils.append(seed)
    slot.refresh()
    return seed


def graft(executor: SeedExecutor, site: str, blueprint_id: str, stage: Stage, alpha: float) -> Seed:
    """Let a live seed blend at the site."""
    seed = _seed(executor, site, blueprint_id, BlendMode.RESIDUAL)
    seed.set_alpha(alpha)
    seed.stage = stage
    slot = executor._garden.slots[site]
    slot.grafted = seed
    slot.refresh()
    return seed


def _seed(executor: SeedExecutor, site: str, blueprint_id: str, mode: BlendMode) -> Seed:
    garden = executor._garden
    slot, seed_id = garden.slots[site], len(garden.seeds) + 1
    command = SeedCommand(Operation.GERMINATE, site=site, blueprint_id=blueprint_id, blend_mode=mode)
    plan, descriptor = plan_for(command, garden.registry, garden.settings, Attribution("c-1", "tester"))
    seed = build_seed(seed_id, slot, plan, descriptor, Cost(0, 0, 0, 0), garden.host, garden.random_seed, 0)
    generator = torch.Generator().manual_seed(seed_id)
    with torch.no_grad():
        for parameter in seed.parameters:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    garden.seeds[seed_id] = seed
    return seed


def example(name: str) -> Grown:
    """A shipped task's model with one of its own batches."""
    build, sites = EXAMPLES[name]
    torch.manual_seed(0)
    task = build()
    inputs, _ = next(iter(task.train_data))
    return Grown(task.model, inputs, sites)
