"""A whole run as one tree of plain values and tensors, and back again, bit for bit.

Training thread only, at a safe point. The tree refers to the live tensors: whoever keeps it copies them (`state_tree`).
Restoring works in a fresh process, and in the running one for a rollback. Its sections become the files of a
checkpoint: host, growth, optimizers, trainer.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from esperd.kasmina.module_state import load_module, pack_batch, save_module, unpack_batch
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import TimelineView
from esperd.tolaria.parts import Parts
from esperd.tolaria.precision import random_states, set_random_states

_PROGRESS = (
    "global_step",
    "epoch",
    "train_loss",
    "val_loss",
    "flops",
    "host_step_flops",
    "baseline_step_ms",
    "step_ms",
)
"""Fields of `Progress` that go on from a saved state."""


def save(parts: Parts) -> dict[str, Any]:
    """The run as it stands at this safe point."""
    return {
        "host": save_module(parts.model),
        "growth": parts.executor.state_dict(),
        "optimizers": parts.optimizers.state_dict(),
        "trainer": _save_trainer(parts),
    }


def restore(parts: Parts, tree: Mapping[str, Any], *, within_run: bool) -> None:
    """Put the run into a saved state.

    Args:
        parts: fresh ones, or those of the running run.
        tree: what `save` gave, with CPU tensors.
        within_run: for a rollback. What belongs to the run as it goes on, and not to its state, then stays:
            emergencies, breakers, a pause, the numbers of outcomes and packets. Seeds have their kernels once
        `SeedExecutor.restore_kernels` is called.

    Raises:
        EsperdError: CHECKPOINT_MISMATCH, when the state is of another model or other sites. The run is then undefined.
    """
    with _fitting():
        load_module(parts.model, tree["host"])
        parts.executor.load_state_dict(tree["growth"])
        parts.optimizers.load_state_dict(tree["optimizers"])
        _restore_trainer(parts, tree["trainer"], within_run=within_run)
        parts.optimizers.check_ownership(parts.executor.grown_parameters())


def restore_model(parts: Parts, tree: Mapping[str, Any]) -> None:
    """Only the model and what grows in it, into fresh parts that will not train on; raises as `restore` does."""
    with _fitting():
        load_module(parts.model, tree["host"])
        parts.executor.load_state_dict(tree["growth"])


@contextmanager
def _fitting() -> Iterator[None]:
    """What goes wrong in the body is that the state does not fit."""
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise EsperdError("CHECKPOINT_MISMATCH", checkpoint_id="in use", detail=detail) from error


# The trainer's own numbers


def _save_trainer(parts: Parts) -> dict[str, Any]:
    progress = parts.progress
    return {
        "progress": {name: getattr(progress, name) for name in _PROGRESS} | {"metrics": dict(progress.metrics)},
        "timelines": [dataclasses.astuple(timeline) for timeline in parts.publisher.timelines],
        "bare_step_flops": parts.bare_step_flops,
        "batch": _save_batch(parts),
        "feed": parts.feed.state_dict(),
        "probe_set": parts.probe_set.state_dict(),
        "loss_window": parts.loss_window.state_dict(),
        "step_window": parts.step_window.state_dict(),
        "packet_probe": parts.packet_probe.state_dict(),
        "rate_phase": parts.rate_phase.state_dict(),
        "loss": parts.telemetry.loss,
        "safety": parts.safety.state_dict(),
        "recovery": parts.recovery.state_dict(),
        "goodness": parts.goodness.state_dict(),
        "standing": parts.standing.state_dict(),
        "random": random_states(),
    }


def _restore_trainer(parts: Parts, saved: Mapping[str, Any], *, within_run: bool) -> None:
    progress = parts.progress
    for name in _PROGRESS:
        setattr(progress, name, saved["progress"][name])
    progress.metrics = dict(saved["progress"]["metrics"])
    parts.bare_step_flops = saved["bare_step_flops"]
    parts.probe_set.load_state_dict(saved["probe_set"])
    parts.loss_window.load_state_dict(saved["loss_window"])
    parts.step_window.load_state_dict(saved["step_window"])
    parts.packet_probe.load_state_dict(saved["packet_probe"])
    parts.rate_phase.load_state_dict(saved["rate_phase"])
    parts.telemetry.loss = saved["loss"]
    if within_run:
        parts.safety.went_back(progress.global_step)
        parts.goodness.went_back(progress.global_step)
    else:
        parts.safety.load_state_dict(saved["safety"], progress.global_step)
        parts.recovery.load_state_dict(saved["recovery"])
        parts.goodness.load_state_dict(saved["goodness"])
        parts.standing.load_state_dict(saved["standing"])
        parts.publisher.open_timeline(tuple(TimelineView(*fields) for fields in saved["timelines"]))
    sample, units = saved["batch"]
    parts.restore_batch(None if sample is None else unpack_batch(sample, parts.device), units)
    parts.feed.load_state_dict(saved["feed"])
    set_random_states(saved["random"])  # last: what came before may have drawn


def _save_batch(parts: Parts) -> tuple[dict[str, Any] | None, int]:
    """A few units of the last batch, which dry runs look at, if they are tensors; and how many units it had."""
    if parts.batch is None:
        return None, 1
    sample = parts.sample_inputs()
    leaves = pytree.tree_leaves(sample)
    is_plain = all(isinstance(leaf, torch.Tensor | int | float | str | bool) for leaf in leaves)
    return (pack_batch(sample) if is_plain else None), parts.batch_units()
