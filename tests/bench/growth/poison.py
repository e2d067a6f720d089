"""H4, poison drill: a seed that turns bad in the middle of its blend is culled before it costs anything.

A residual block on digits behaves until its blend is halfway, then its output becomes NaN, or is multiplied by -30, or
its gradient changes sign for good. The regret is the final validation loss minus that of the run that never
germinated; the goal is at most 0.005 nats on average.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from esperd.examples.arms import Insertion
from esperd.kasmina.blueprints.convolutional import RESIDUAL_CONV
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Shape
from esperd.kasmina.blueprints.registry import BlueprintRegistry, standard_registry
from esperd.leyline.vocabulary import Stage
from tests.bench.growth.grown import GrownRun, GrowthPlan, grow
from tests.bench.growth.headline import build_task
from tests.bench.growth.paired import mean_and_std
from tests.bench.growth.pool import run_jobs
from tests.bench.report import AT_LEAST, Row

NUM_STEPS = 1500
GERMINATE_AT_STEP, TRAINING_STEPS, ALPHA_STEPS = 400, 150, 150
POISONED_FROM = TRAINING_STEPS + ALPHA_STEPS // 2
"""Training-mode forwards of the seed before it turns; one each step."""

POISONS = ("nan", "explode", "flip")
GOAL_NATS = 0.005


class _Flip(torch.autograd.Function):
    """Identity whose gradient has the wrong sign."""

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: object, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Poisoned(nn.Module):
    """A good block that turns bad after a number of training steps."""

    def __init__(self, body: nn.Module, poison: str) -> None:
        super().__init__()
        self.body, self.poison = body, poison
        self.num_forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """The block's delta, or what the poison makes of it."""
        self.num_forwards += self.training
        delta: Tensor = self.body(x)
        if self.num_forwards <= POISONED_FROM:
            return delta
        if self.poison == "nan":
            return delta * float("nan")
        if self.poison == "explode":
            return delta * -30.0
        flipped: Tensor = _Flip.apply(delta)  # type: ignore[no-untyped-call]  # torch's
        return flipped


def registry() -> BlueprintRegistry:
    """The standard blueprints and the three poisoned ones."""
    known = standard_registry()
    for poison in POISONS:
        factory = functools.partial(_poisoned, poison)
        known.register(
            BlueprintDescriptor(
                poison,
                poison,
                "Turns bad in its blend.",
                RESIDUAL_CONV.tier,
                1.0,
                RESIDUAL_CONV.ranks,
                factory,
                RESIDUAL_CONV.parameters,
            )
        )
    return known


def run(random_seeds: Sequence[int], num_workers: int) -> list[Row]:
    """Mean regret of each poison, and how many poisoned seeds were culled."""
    rows, culled = [], []
    runs = run_jobs(one_seed, random_seeds, num_workers)
    for poison in POISONS:
        regrets = [run[poison][0] for run in runs]
        culled += [run[poison][1] for run in runs]
        rows.append(Row(f"h4.regret.{poison}", mean_and_std(regrets)[0], min(regrets), max(regrets), "nats", GOAL_NATS))
    share = mean_and_std(culled)[0]
    rows.append(Row("h4.culled_share", share, min(culled), max(culled), "1", 1.0, AT_LEAST))
    return rows


def one_seed(random_seed: int) -> Mapping[str, tuple[float, float]]:
    """(regret, 1 if every poisoned seed was culled) of each poison."""
    build = functools.partial(build_task, "digits", random_seed, {})
    never = grow(build, NUM_STEPS, GrowthPlan((), 0, {"sites": ("block1",)}), random_seed=random_seed)
    outcomes = {}
    for poison in POISONS:
        poisoned = grow(build, NUM_STEPS, _plan(poison), random_seed=random_seed)
        outcomes[poison] = (poisoned.result.val_loss - never.result.val_loss, float(_is_culled(poisoned)))
    return outcomes


def _plan(poison: str) -> GrowthPlan:
    growth = {"min_training_steps": TRAINING_STEPS, "alpha_steps": ALPHA_STEPS, "allow_tier": "SAFE"}
    return GrowthPlan((Insertion("block1", poison),), GERMINATE_AT_STEP, growth, blueprints=registry)


def _is_culled(run: GrownRun) -> bool:
    return any(event.target is Stage.CULLED for event in run.transitions)


def _poisoned(poison: str, site_shape: Shape, parameters: Mapping[str, float]) -> nn.Module:
    return Poisoned(RESIDUAL_CONV.factory(site_shape, parameters), poison)
