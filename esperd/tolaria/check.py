"""Looking at a task before it is trained: one real step, and everything a user wants to know beforehand, as values.

Runs in whatever thread calls it, without a daemon. Printing is the command line's affair.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RunView, SiteView, Snapshot
from esperd.leyline.vocabulary import TrainerPhase
from esperd.tolaria.start import build_trainer
from esperd.tolaria.task import describe, user_traceback


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What one step of the task showed."""

    task: str
    device: str
    amp: str
    """`off`, `bfloat16` or `float16`."""
    optimizer: str
    num_parameters: int
    num_trained_parameters: int
    """Those in the optimizer."""
    input_shapes: tuple[str, ...]
    target_shapes: tuple[str, ...]
    output_shapes: tuple[str, ...]
    loss: float
    step_ms: float
    """Of this one step, warm-up included."""
    step_flops: float
    sites: tuple[SiteView, ...]
    """With the cost of a seed of each admissible blueprint."""
    snapshot_bytes: int
    """Memory of one rollback snapshot: parameters, buffers and optimizer state."""
    facts: Mapping[str, str]


def inspect_task(settings: Settings, search_path: Path | None = None) -> CheckReport:
    """Import the task, run one training step and describe it.

    Raises EsperdError of the task, site and device entries; TASK_FAILED has the user's frames as metadata `traceback`.
    """
    run = replace(settings.run, num_steps=1, start_paused=False, wait_for_policy_s=0.0)
    settings = replace(settings, run=run, policy=replace(settings.policy, required=False))
    trainer = build_trainer(settings, Bridge(first_snapshot=_unborn(run.task)), run_id="check", search_path=search_path)
    try:
        trainer.prepare()
        started_s = time.perf_counter()
        trainer.step()
        step_ms = (time.perf_counter() - started_s) * 1e3
        inputs, targets, output = trainer.last_step()
    except EsperdError:
        raise
    except (Exception, SystemExit) as error:  # the task's code runs here: whatever it raises is reported as theirs
        raise EsperdError(
            "TASK_FAILED", task=run.task, detail=describe(error), traceback=user_traceback(error)
        ) from error
    snapshot = trainer.publish()
    model, optimizers = trainer.task.model, trainer.optimizers
    state = [*model.parameters(), *model.buffers()]
    return CheckReport(
        task=run.task,
        device=snapshot.run.device,
        amp=trainer.amp,
        optimizer=type(optimizers.host).__name__,
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trained_parameters=sum(p.numel() for p in optimizers.host_parameters()),
        input_shapes=_shapes(inputs),
        target_shapes=_shapes(targets),
        output_shapes=_shapes(output),
        loss=trainer.last_loss,
        step_ms=step_ms,
        step_flops=snapshot.run.host_step_flops,
        sites=trainer.executor.sites(),
        snapshot_bytes=sum(t.numel() * t.element_size() for t in state) + optimizers.state_bytes(),
        facts=trainer.task.facts,
    )


def _unborn(task: str) -> Snapshot:
    return Snapshot(1, RunView("check", task, TrainerPhase.STARTING, 0, 0, 1, math.nan, math.nan))


def _shapes(value: Any) -> tuple[str, ...]:
    leaves = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return tuple(f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" for leaf in leaves)
