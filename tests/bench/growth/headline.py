"""H1 and H2: a live host that grows, against every arm that could beat it.

H1, rescue: digits, a host of 426 parameters, two sites, growth at step 400 of 1,500. H2, grow or keep training: a byte
transformer of one layer that has saturated, three layers grown at step 1,500 of 5,000.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from esperd.examples import bytes as byte_task
from esperd.examples import digits
from esperd.examples.arms import ArmResult, Insertion, steps_for_flops, train_arm
from esperd.tolaria.task import Task
from tests.bench.growth.grown import GrownRun, GrowthPlan, grow
from tests.bench.growth.paired import mean_and_std, paired
from tests.bench.growth.pool import run_jobs
from tests.bench.report import AT_MOST, Row

MAX_SPIKE = 0.15
"""Nats; the worst rise of the validation loss that a blend may cause."""

ARMS = (
    "host_equal_flops",
    "host",
    "naive_zero",
    "naive_random",
    "scratch_equal_steps",
    "scratch_equal_flops",
    "static_equal_flops",
)
"""Besides the grown run; the longest first, so that the workers end together."""

TASKS: Mapping[str, Callable[..., Task]] = {"digits": digits.build, "bytes": byte_task.build}


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


def run(headline: Headline, random_seeds: Sequence[int], num_workers: int) -> list[Row]:
    """All arms over all random seeds: first the grown runs, then what their FLOPs are held against."""
    runs = run_jobs(functools.partial(grow_one, headline), random_seeds, num_workers)
    jobs = [
        (arm, random_seed, grown.result.train_flops)
        for random_seed, grown in zip(random_seeds, runs, strict=True)
        for arm in ARMS
    ]
    trained = run_jobs(functools.partial(train_one, headline), jobs, num_workers)
    results = {"grown": [grown.result for grown in runs]}
    for (arm, _, _), result in zip(jobs, trained, strict=True):
        results.setdefault(arm, []).append(result)
    return _table(headline, results) + _health_rows(headline.name, runs) + _goal_rows(headline, _losses(results))


def grow_one(headline: Headline, random_seed: int) -> GrownRun:
    """The grown run of one random seed."""
    build = functools.partial(build_task, headline.task, random_seed, {})
    return grow(build, headline.num_steps, headline.plan, random_seed=random_seed)


def train_one(headline: Headline, job: tuple[str, int, float]) -> ArmResult:
    """One arm for one random seed; `flops` is what the grown run of that seed cost."""
    arm, random_seed, flops = job
    plan, num_steps = headline.plan, headline.num_steps
    options = headline.static if arm == "static_equal_flops" else {}
    build = functools.partial(build_task, headline.task, random_seed, options)
    train = functools.partial(train_arm, build, random_seed=random_seed)
    insert = functools.partial(train, insertions=plan.insertions)
    match arm:
        case "host":
            return train(num_steps)
        case "host_equal_flops" | "static_equal_flops":
            return train(steps_for_flops(build, flops))
        case "naive_zero":
            return insert(num_steps, insert_at_step=plan.germinate_at_step)
        case "naive_random":
            return insert(num_steps, insert_at_step=plan.germinate_at_step, random_init=True)
        case "scratch_equal_steps":
            return insert(num_steps)
        case _:
            return insert(steps_for_flops(build, flops, plan.insertions))


def build_task(name: str, random_seed: int, options: Mapping[str, int], num_steps: int) -> Task:
    """The task with its data order fixed by the random seed."""
    return TASKS[name](num_steps, data_seed=random_seed, **options)


def _losses(results: Mapping[str, Sequence[ArmResult]]) -> dict[str, list[float]]:
    return {arm: [result.val_loss for result in own] for arm, own in results.items()}


def _table(headline: Headline, results: Mapping[str, Sequence[ArmResult]]) -> list[Row]:
    """Every arm, and the grown run's paired difference from it."""
    name, losses = headline.name, _losses(results)
    rows = [row for arm, own in results.items() for row in _arm_rows(f"{name}.{arm}", own)]
    for arm in ARMS:
        rows += _difference_rows(f"{name}.grown_minus_{arm}", losses["grown"], losses[arm])
    return rows


def _health_rows(name: str, runs: Sequence[GrownRun]) -> list[Row]:
    spikes = [run.worst_spike for run in runs]
    num_fossilized = [float(run.num_fossilized) for run in runs]
    return [
        _spread_row(f"{name}.worst_spike", max(spikes), spikes, "nats", MAX_SPIKE),
        _spread_row(f"{name}.fossilized_seeds", mean_and_std(num_fossilized)[0], num_fossilized, "1", None),
    ]


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
