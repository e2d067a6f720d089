"""A worker process of the demo: trains arms that need no daemon, one JSON line in, one JSON line out.

Started as `python -m esperd.cli.demo.worker`; ends when its standard input does, so it cannot outlive the demo.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from esperd.cli.demo.results import RunResult


def main() -> None:
    """Answer jobs until standard input ends."""
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        result = train(json.loads(line))
        print(json.dumps(asdict(result)), flush=True)


def train(job: Mapping[str, Any]) -> RunResult:
    """Train the arm that `job` describes.

    It has `spec`, `options`, `random_seed`, `insertions` (rows of site, blueprint_id, parameters) and either
    `num_steps` or `flops`, the training FLOPs that the arm may spend.
    """
    from esperd.examples.arms import Insertion, steps_for_flops, train_arm
    from esperd.tolaria.task import Task, load_task

    random_seed = int(job["random_seed"])
    insertions = [Insertion(*row) for row in job["insertions"]]

    def build(num_steps: int) -> Task:
        return load_task(job["spec"], {**job["options"], "num_steps": num_steps, "data_seed": random_seed})

    num_steps = job.get("num_steps") or steps_for_flops(build, job["flops"], insertions)
    result = train_arm(build, num_steps, random_seed=random_seed, insertions=insertions)
    return RunResult(result.val_loss, result.val_accuracy, result.params, result.train_flops, result.steps)


if __name__ == "__main__":
    main()
