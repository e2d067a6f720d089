"""H3, first do no harm: while seeds train, and after a cull from TRAINING, the host is bit-identical to its twin.

The twin is the same run with no seed. Compared are the host's parameters and buffers at the end, under clipping and
bf16 autocast as well; the value is the largest absolute difference, and the goal is exactly 0.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from esperd.examples.arms import Insertion
from tests.bench.growth.grown import GrowthPlan, grow
from tests.bench.growth.headline import build_task
from tests.bench.growth.pool import run_jobs
from tests.bench.report import Row

NUM_STEPS = 300
INSERTIONS = (
    Insertion("block1", "residual_conv"),
    Insertion("block1", "squeeze_excite"),
    Insertion("block2", "depthwise"),
)
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "clipping": {"clip_grad_norm": 1.0},
    "bf16": {"amp": "bf16"},
}
STAYS_IN_TRAINING = {"min_training_steps": 10_000, "max_training_steps": 20_000}


def run(random_seeds: Sequence[int], num_workers: int) -> list[Row]:
    """The largest difference over all random seeds, for each variant."""
    jobs = [(variant, random_seed) for variant in VARIANTS for random_seed in random_seeds]
    differences = run_jobs(largest_difference, jobs, num_workers)
    rows = []
    for variant in VARIANTS:
        found = [value for (name, _), value in zip(jobs, differences, strict=True) if name == variant]
        rows.append(Row(f"h3.max_difference.{variant}", max(found), min(found), max(found), "1", 0.0))
    return rows


def largest_difference(job: tuple[str, int]) -> float:
    """Of a run that keeps seeds in TRAINING, and of one that culls them there, from the run without seeds."""
    variant, random_seed = job
    build = functools.partial(build_task, "digits", random_seed, {})
    training = VARIANTS[variant]
    sites = tuple(dict.fromkeys(insertion.site for insertion in INSERTIONS))
    keep = GrowthPlan(INSERTIONS, germinate_at_step=100, growth=STAYS_IN_TRAINING, training=training)
    cull = replace(keep, cull_at_step=200)
    alone = replace(keep, insertions=(), growth={"sites": sites})
    twin = grow(build, NUM_STEPS, alone, random_seed=random_seed).parameters
    others = [grow(build, NUM_STEPS, plan, random_seed=random_seed).parameters for plan in (keep, cull)]
    return max(
        float((a.double() - b.double()).abs().max()) for other in others for a, b in zip(twin, other, strict=True)
    )
