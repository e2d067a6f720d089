"""H1 and H2: a live host that grows, against every arm that could beat it.

H1, rescue: digits, a host of 426 parameters, two sites, growth at step 400 of 1,500. H2, grow or keep training: a byte
transformer of one layer that has saturated, three layers grown at step 1,500 of 5,000.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esperd.examples import bytes as byte_task
from esperd.examples import digits
from esperd.examples.arms import ArmResult, Insertion, steps_for_flops, train_arm
from esperd.tolaria.task import Task
from tests.bench.growth.grown import GrowthPlan, grow
from tests.bench.growth.paired import mean_and_std, paired
from tests.bench.growth.pool import run_jobs
from tests.bench.report import AT_MOST, Row

MAX_SPIKE = 0.15
"""Nats; the worst rise of the validation loss that a blend may cause."""

TASKS = {"digits": digits.build, "bytes": byte_task.build}


@dataclass(frozen=True, slots=True)
class Headline:
    """One experiment: a host, a plan of growth, and a static model of about the same cost."""

    name: str
    task: str
    num_steps: int
    plan: GrowthPlan
    static: Mapping[str, int]
    """Options of a model that was chosen well from the start."""


RESCUE = Headline(
    "h1",
    "digits",
    1500,
    GrowthPlan(
        (Insertion("block1", "residual_conv"), Insertion("block2", "residual_conv")),
        germinate_at_step=400,
        growth={"min_training_steps": 150, "alpha_steps": 150},
    ),
    {"width1": 10, "width2": 20},
)
SATURATED = Headline(
    "h2",
    "bytes",
    5000,
    GrowthPlan(
        (Insertion("blocks.0", "transformer_block", {"num_layers": 3.0}),),
        germinate_at_step=1500,
        growth={"min_training_steps": 100, "alpha_steps": 100},
    ),
    {"num_layers": 4},
)


@dataclass(frozen=True, slots=True)
class SeedRun:
    """Every arm for one random seed."""

    arms: Mapping[str, ArmResult]
    worst_spike: float
    num_fossilized: int


def run(headline: Headline, random_seeds: Sequence[int], num_workers: int) -> list[Row]:
    """All arms over all random seeds."""
    runs = run_jobs(functools.partial(one_seed, headline), random_seeds, num_workers)
    name = headline.name
    losses = {arm: [run.arms[arm].val_loss for run in runs] for arm in runs[0].arms}
    grown = losses["grown"]
    rows = [row for arm in losses for row in _arm_rows(f"{name}.{arm}", [run.arms[arm] for run in runs])]
    for arm, values in losses.items():
        if arm != "grown":
            rows += _difference_rows(f"{name}.grown_minus_{arm}", grown, values)
    spikes = [run.worst_spike for run in runs]
    num_fossilized = [float(run.num_fossilized) for run in runs]
    rows.append(_spread_row(f"{name}.worst_spike", max(spikes), spikes, "nats", MAX_SPIKE))
    rows.append(_spread_row(f"{name}.fossilized_seeds", mean_and_std(num_fossilized)[0], num_fossilized, "1", None))
    return rows + _goal_rows(headline, losses)


def one_seed(headline: Headline, random_seed: int) -> SeedRun:
    """Train every arm with one random seed; each sees the same data in the same order."""
    build = functools.partial(build_task, headline.task, random_seed, {})
    static = functools.partial(build_task, headline.task, random_seed, headline.static)
    plan, num_steps = headline.plan, headline.num_steps
    train = functools.partial(train_arm, random_seed=random_seed)
    insert = functools.partial(train, build, insertions=plan.insertions)
    grown = grow(build, num_steps, plan, random_seed=random_seed)
    flops = grown.result.train_flops
    arms = {
        "grown": grown.result,
        "host": train(build, num_steps),
        "host_equal_flops": train(build, steps_for_flops(build, flops)),
        "naive_zero": insert(num_steps, insert_at_step=plan.germinate_at_step),
        "naive_random": insert(num_steps, insert_at_step=plan.germinate_at_step, random_init=True),
        "scratch_equal_steps": insert(num_steps),
        "scratch_equal_flops": insert(steps_for_flops(build, flops, plan.insertions)),
        "static_equal_flops": train(static, steps_for_flops(static, flops)),
    }
    return SeedRun(arms, grown.worst_spike, grown.num_fossilized)


def build_task(name: str, random_seed: int, options: Mapping[str, int], num_steps: int) -> Task:
    """The task with its data order fixed by the random seed."""
    build = TASKS[name]
    task: Task = build(num_steps, data_seed=random_seed, **options)
    return task


def _goal_rows(headline: Headline, losses: Mapping[str, Sequence[float]]) -> list[Row]:
    """The experiment's pass lines."""
    name, grown = headline.name, losses["grown"]
    if name == "h1":
        naive = paired(grown, losses["naive_zero"])
        return [
            _ratio_row("h1.loss_ratio_equal_steps", grown, losses["host"], 0.6),
            _ratio_row("h1.loss_ratio_equal_flops", grown, losses["host_equal_flops"], 0.75),
            # Not worse: the lower end of the interval of the difference is at or below zero.
            Row("h1.not_worse_than_naive", naive.low, naive.low, naive.high, "nats", 0.0, AT_MOST),
        ]
    difference = paired(grown, losses["host_equal_flops"])
    return [Row("h2.grown_below_host_equal_flops", difference.mean, difference.low, difference.high, "nats", 0.0)]


def _arm_rows(name: str, results: Sequence[ArmResult]) -> list[Row]:
    loss, accuracy = [r.val_loss for r in results], [r.val_accuracy for r in results]
    return [
        _spread_row(f"{name}.val_loss", mean_and_std(loss)[0], loss, "nats", None),
        Row(f"{name}.val_loss_std", mean_and_std(loss)[1], 0.0, 0.0, "nats"),
        _spread_row(f"{name}.val_accuracy", mean_and_std(accuracy)[0], accuracy, "1", None),
        _spread_row(f"{name}.params", results[0].params, [float(r.params) for r in results], "1", None),
        _spread_row(
            f"{name}.train_gflop",
            mean_and_std([r.train_flops / 1e9 for r in results])[0],
            [r.train_flops / 1e9 for r in results],
            "GFLOP",
            None,
        ),
    ]


def _difference_rows(name: str, first: Sequence[float], second: Sequence[float]) -> list[Row]:
    difference = paired(first, second)
    return [
        Row(name, difference.mean, difference.low, difference.high, "nats"),
        Row(f"{name}.p", difference.p_value, difference.p_value, difference.p_value, "1"),
    ]


def _ratio_row(name: str, first: Sequence[float], second: Sequence[float], goal: float) -> Row:
    ratio = mean_and_std(first)[0] / mean_and_std(second)[0]
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    return Row(name, ratio, min(ratios), max(ratios), "1", goal)


def _spread_row(name: str, value: float, values: Sequence[float], unit: str, goal: float | None) -> Row:
    return Row(name, value, min(values), max(values), unit, goal)
