"""A growing run with the product's optimizers whose whole state can be saved, loaded and compared bit for bit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esperd.config.settings import GrowthSettings
from esperd.kasmina.module_state import load_module, save_module
from esperd.kasmina.ports import StepAdvice
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import Operation, Stage
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.state_tree import BufferPool, capture, rebuild
from tests.unit.kasmina.chaos import chaos_registry
from tests.unit.kasmina.harness import Run
from tests.unit.tolaria.growing import EAGER

SETTINGS = replace(
    EAGER,
    min_training_steps=6,
    alpha_steps=6,
    embargo_steps=4,
    seed_warmup_steps=3,
    probe_units=32,
    max_probe_units=1024,
)

MakeScheduler = Callable[[torch.optim.Optimizer], Any]


class World(Run):
    """One run: model, seeds, optimizers, schedule, data, generators."""

    def __init__(
        self,
        *,
        settings: GrowthSettings = SETTINGS,
        scheduler: MakeScheduler | None = None,
        model: nn.Module | None = None,
        sites: Sequence[str] = ("stem", "body", "head"),
        optimizer_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        def make(model: nn.Module) -> Optimizers:
            host = torch.optim.AdamW(model.parameters(), lr=0.01)
            schedule = None if scheduler is None else scheduler(host)
            return Optimizers(host, schedule, settings, clip_grad_norm=1.0, **(optimizer_options or {}))

        super().__init__(
            model=model, settings=settings, registry=chaos_registry(), sites=sites, make_optimizers=make, **options
        )

    def backward_host(self, loss: Tensor) -> None:
        self.optimizers.backward_host(loss)

    def update_host(self, advice: StepAdvice) -> None:
        if advice is StepAdvice.STEP:
            self.optimizers.step_host()
        else:
            self.optimizers.skip_host()

    def tree(self) -> dict[str, Any]:
        """Everything, as references."""
        return {
            "model": save_module(self.model),
            "executor": self.executor.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "rng": self.rng,
            "data": self.data.generator.get_state(),
            "held_out": self.held_out.generator.get_state(),
            "step": self.step_number,
        }

    def saved(self) -> dict[str, Any]:
        """Everything, as a checkpoint would hold it."""
        return rebuild(capture(self.tree(), BufferPool(torch.device("cpu"))))

    def load(self, tree: Mapping[str, Any]) -> "World":
        """Put everything back, in the trainer's order."""
        with self.world():
            load_module(self.model, tree["model"])
            self.executor.load_state_dict(tree["executor"])
            self.optimizers.load_state_dict(tree["optimizers"])
        self.rng = tree["rng"].clone()
        self.data.generator.set_state(tree["data"])
        self.held_out.generator.set_state(tree["held_out"])
        self.step_number = tree["step"]
        self.losses.clear()
        self.events.clear()
        return self

    def follow(self, count: int) -> dict[str, Any]:
        """Go on, and give everything that came of it."""
        self.losses.clear()
        self.events.clear()
        self.steps(count)
        return {
            "losses": [loss.clone() for loss in self.losses],
            "events": [repr(event) for event in self.events],
            "seeds": repr(self.executor.seeds()),
            "groups": repr(self.optimizers.views()),
            "state": self.saved(),
        }

    def grow(self, seed_id: int, stage: Stage, *, limit: int = 400) -> "World":
        """Command a seed from stage to stage until it is there."""
        operations = {
            Stage.GERMINATED: Operation.START_TRAINING,
            Stage.TRAINING: Operation.START_GRAFTING,
            Stage.BLENDING: Operation.STABILIZE,
            Stage.SHADOWING: Operation.EVALUATE,
            Stage.PROBATIONARY: Operation.FOSSILIZE,
        }
        refusal = ""
        for _ in range(limit):
            now = self.stage(seed_id)
            if now is stage:
                return self
            try:
                if now in operations:
                    self.apply(operations[now], seed_id)
                self.step()
            except EsperdError as error:
                refusal = str(error)  # not the error: its frames would hold the seed
                self.step()
        raise AssertionError(f"seed {seed_id} is {self.stage(seed_id).name}, not {stage.name}: {refusal}")


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Bit for bit, with the same types, keys and order."""
    assert type(one) is type(other), f"{path}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, Tensor):
        assert one.dtype is other.dtype, path
        assert (
            torch.equal(one.nan_to_num(), other.nan_to_num()) if one.is_floating_point() else torch.equal(one, other)
        ), path
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), path
    elif isinstance(one, dict):
        assert list(one) == list(other), f"{path}: {list(one)} and {list(other)}"
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), f"{path}: {len(one)} and {len(other)} items"
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}/{place}")
    else:
        assert one == other or one != one, f"{path}: {one!r} and {other!r}"
