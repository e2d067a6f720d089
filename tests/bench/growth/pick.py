"""H5, pick before you graft: the probe before blending ranks blueprints as their final causal gain does.

Six blueprints on digits, each grown alone at both sites, with the commit gates opened so that weak ones may stay. The
pre-blend gain is what the daemon measures at the end of TRAINING; the causal gain is the final loss of the run that
never germinated minus that of the grown one. Goal: Spearman's rank correlation over blueprints at least 0.8.
"""

import functools
from collections.abc import Mapping, Sequence

from esperd.examples.arms import Insertion
from tests.bench.growth.grown import GrownRun, GrowthPlan, grow
from tests.bench.growth.headline import build_task
from tests.bench.growth.paired import mean_and_std, rank_correlation
from tests.bench.growth.pool import run_jobs
from tests.bench.report import AT_LEAST, Row

NUM_STEPS = 1500
GERMINATE_AT_STEP = 400
SITES = ("block1", "block2")
BLUEPRINTS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "residual_conv_x4": ("residual_conv", {"expansion": 4}),
    "residual_conv_x8": ("residual_conv", {"expansion": 8}),
    "residual_conv_x1": ("residual_conv", {"expansion": 1}),
    "conv1x1_x4": ("conv1x1", {"expansion": 4}),
    "depthwise": ("depthwise", {}),
    "squeeze_excite": ("squeeze_excite", {}),
}
OPEN_GATES = {
    "min_training_steps": 150,
    "alpha_steps": 150,
    "non_inferiority_ratio": 1.0,
    "wanted_gain_ratio": -1.0,
    "rent": 0.0,
}


def run(random_seeds: Sequence[int], num_workers: int) -> list[Row]:
    """Gains of each blueprint, and how well the first predicts the second."""
    jobs = [(blueprint, random_seed) for blueprint in BLUEPRINTS for random_seed in random_seeds]
    gains = run_jobs(measure, jobs, num_workers)
    rows: list[Row] = []
    before: list[float] = []
    causal: list[float] = []
    for blueprint in BLUEPRINTS:
        own = [gain for (name, _), gain in zip(jobs, gains, strict=True) if name == blueprint]
        for kind, values, column in (
            ("pre_blend_gain", [g[0] for g in own], before),
            ("causal_gain", [g[1] for g in own], causal),
        ):
            column.append(mean_and_std(values)[0])
            rows.append(Row(f"h5.{blueprint}.{kind}", column[-1], min(values), max(values), "nats"))
    correlation = rank_correlation(before, causal)
    rows.append(Row("h5.rank_correlation", correlation, correlation, correlation, "1", 0.8, AT_LEAST))
    return rows


def measure(job: tuple[str, int]) -> tuple[float, float]:
    """(pre-blend gain summed over the sites, causal gain) of one blueprint under one random seed."""
    blueprint, random_seed = job
    blueprint_id, parameters = BLUEPRINTS[blueprint]
    build = functools.partial(build_task, "digits", random_seed, {})
    insertions = tuple(Insertion(site, blueprint_id, parameters) for site in SITES)
    grown = grow(build, NUM_STEPS, GrowthPlan(insertions, GERMINATE_AT_STEP, OPEN_GATES), random_seed=random_seed)
    never = grow(build, NUM_STEPS, GrowthPlan((), 0, {"sites": SITES}), random_seed=random_seed)
    return _pre_blend_gain(grown), never.result.val_loss - grown.result.val_loss


def _pre_blend_gain(run: GrownRun) -> float:
    return sum(
        contribution.mean
        for seed in run.seeds
        for contribution in seed.contributions
        if contribution.kind == "pre_blend_gain"
    )
