"""Exporting: a checkpoint's model with everything that was fossilized in it, as files that load without esperd.

In a process of its own, beside a daemon that trains or without one: reads a checkpoint, takes no lock, and computes on
the CPU unless told otherwise, so that training does not notice. What was written is read back and compared with the
run's own model before it appears under its name.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.kasmina.folding import HOST, Folded
from esperd.kasmina.lifecycle import LIVE
from esperd.kasmina.site import quiet_eval
from esperd.leyline.errors import EsperdError
from esperd.leyline.private_files import sync_directory
from esperd.leyline.views import RunView, SeedView, Snapshot
from esperd.leyline.vocabulary import Stage, TrainerPhase
from esperd.oona.checkpoints.manifest import FileEntry
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.tolaria import losses, saved_state
from esperd.tolaria.export_files import FORMATS, Words, describe_file
from esperd.tolaria.exported_graph import ExportedGraph, capture, foreign_libraries
from esperd.tolaria.parts import Parts
from esperd.tolaria.precision import configure_torch, untouched_rng
from esperd.tolaria.state_tree import read_files, rebuild
from esperd.tolaria.task import describe, load_task, user_traceback

MANIFEST = "export.json"


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is wanted."""

    format: str
    """A key of `FORMATS`."""
    directory: Path
    """Where the files go; must not be there yet."""
    without_live_seeds: bool = False
    """Leave seeds out that are not settled, instead of refusing."""
    device: str = "cpu"
    """Where the exported model computes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    directory: Path
    files: tuple[FileEntry, ...]
    """All of them, the manifest last."""
    how_to_load: str


def export_checkpoint(
    settings: Settings,
    search_path: Path | None,
    stored: StoredCheckpoint,
    plan: ExportPlan,
    clock: Callable[[], float],
) -> Exported:
    """Rebuild the run at a checkpoint, fold it, and write it; what is there already from the same wish is given again.

    `search_path` is the folder of the configuration file.

    Raises:
        EsperdError: EXPORT_UNSETTLED, EXPORT_FAILED, FILE_EXISTS; CHECKPOINT_CORRUPT, CHECKPOINT_VERSION or
            CHECKPOINT_MISMATCH; those of the task and device entries.
    """
    if plan.directory.exists():
        return _already_there(stored, plan)
    parts = _rebuilt(settings, search_path, stored, plan.device, clock)
    live = [seed for seed in parts.executor.seeds() if seed.stage in LIVE]
    if live and not plan.without_live_seeds:
        detail = ", ".join(f"seed {seed.seed_id} at {seed.site} is {seed.stage.name}" for seed in live)
        raise EsperdError("EXPORT_UNSETTLED", detail=detail)
    try:
        batch = parts.feed.peek()
        inputs, num_units = batch[0], losses.num_units(batch)
        expected = _expected(parts, inputs)
        folded = parts.executor.fold(parts.precision.autocast)
        _check_folded(folded, inputs, expected)
        graph = capture(folded, inputs, num_units)
        with _appearing(plan.directory) as directory:
            files = _write(parts, stored, plan, graph, (inputs, expected, live), directory, clock)
    except EsperdError:
        raise
    except (Exception, SystemExit) as error:  # the user's model runs here, and torch on whatever it is made of
        raise EsperdError("EXPORT_FAILED", detail=describe(error), traceback=user_traceback(error)) from error
    return Exported(plan.directory, files, FORMATS[plan.format].how_to_load)


def _already_there(stored: StoredCheckpoint, plan: ExportPlan) -> Exported:
    """An earlier export of the same, whole; a caller whose connection broke asks again. Raises FILE_EXISTS."""
    path = plan.directory / MANIFEST
    try:
        document: Any = json.loads(path.read_bytes())
        names = ("format", "run_id", "checkpoint_id", "device")
        wanted = (plan.format, stored.manifest.run_id, stored.manifest.checkpoint_id, plan.device)
        is_same = tuple(document[name] for name in names) == wanted
        is_settled = plan.without_live_seeds or not document["seeds_left_out"]
        files = [describe_file(plan.directory / file["name"]) for file in document["files"]]
        is_whole = [(f.name, f.num_bytes, f.sha256) for f in files] == [
            (f["name"], f["num_bytes"], f["sha256"]) for f in document["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EsperdError("FILE_EXISTS", path=plan.directory) from error
    if not (is_same and is_settled and is_whole):
        raise EsperdError("FILE_EXISTS", path=plan.directory)
    return Exported(plan.directory, (*files, describe_file(path)), FORMATS[plan.format].how_to_load)


# The run, rebuilt


def _rebuilt(
    settings: Settings, search_path: Path | None, stored: StoredCheckpoint, device: str, clock: Callable[[], float]
) -> Parts:
    manifest, task_name = stored.manifest, settings.run.task
    if manifest.task != task_name:
        detail = f"it is of the task {manifest.task}, the configuration names {task_name}"
        raise EsperdError("CHECKPOINT_MISMATCH", checkpoint_id=manifest.checkpoint_id, detail=detail)
    tree = rebuild(read_files(stored))
    settings = replace(settings, training=replace(settings.training, device=device))
    configure_torch(settings.run, settings.training)
    task = load_task(task_name, settings.run.task_options, search_path)
    nothing = RunView(manifest.run_id, task_name, TrainerPhase.STARTING, 0, 0, 0, 0.0, 0.0)
    bridge = Bridge(first_snapshot=Snapshot(1, nothing))
    try:
        parts = Parts(task, settings, bridge, run_id=manifest.run_id, task_name=task_name, clock=clock, registry=None)
    except EsperdError:
        raise
    except (Exception, SystemExit) as error:  # finding the sites runs the user's model: what it raises is theirs
        raise EsperdError(
            "TASK_FAILED", task=task_name, detail=describe(error), traceback=user_traceback(error)
        ) from error
    try:
        saved_state.restore_model(parts, tree)
    except EsperdError as error:
        detail = error.metadata.get("detail", error.message)
        raise EsperdError("CHECKPOINT_MISMATCH", checkpoint_id=manifest.checkpoint_id, detail=detail) from error
    return parts


def _expected(parts: Parts, inputs: Any) -> Any:
    """What the run's own model gives in evaluation mode, live seeds left out."""
    with quiet_eval(parts.model), parts.executor.without_live_seeds():
        return _output(parts.forward, inputs)


def _output(model: Callable[[Any], Any], inputs: Any) -> Any:
    """The model's output for a copy of the inputs, from one fixed random state."""
    copied = pytree.tree_map_only(Tensor, torch.clone, inputs)
    with untouched_rng(), torch.no_grad():
        torch.manual_seed(0)
        return model(copied)


# What is compared


def _check_folded(folded: Folded, inputs: Any, expected: Any) -> None:
    difference = _difference(expected, _output(folded, inputs))
    if difference != 0.0:
        detail = f"the folded model is off by {difference:g} from the one that was trained"
        raise EsperdError("EXPORT_FAILED", detail=detail)


def _compare(expected: Any, found: Any) -> float:
    """How far what was read back is off; refused beyond what torch holds for rounding at that dtype."""
    try:
        torch.testing.assert_close(found, expected, equal_nan=True)
    except AssertionError as error:
        detail = f"the files do not give the output of the run: {str(error).splitlines()[0]}"
        raise EsperdError("EXPORT_FAILED", detail=detail) from error
    return _difference(expected, found)


def _difference(expected: Any, found: Any) -> float:
    """The largest difference of any element; infinite where the structures differ."""
    wanted, spec = pytree.tree_flatten(expected)
    given, other_spec = pytree.tree_flatten(found)
    if spec != other_spec:
        return float("inf")
    return max((_tensor_difference(a, b) for a, b in zip(wanted, given, strict=True)), default=0.0)


def _tensor_difference(a: Any, b: Any) -> float:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return 0.0 if a == b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if torch.equal(a, b) or a.numel() == 0:
        return 0.0
    gaps = (a.double() - b.double()).abs()
    both_nan = a.isnan() & b.isnan()
    return float(torch.where(both_nan | (a == b), 0.0, gaps).nan_to_num(float("inf"), float("inf")).max())


# What is written


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A hidden directory that takes its name when the body has ended well, and goes away when it has not."""
    hidden = directory.parent / f".tmp-{os.getpid()}-{directory.name}"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        hidden.mkdir()
        yield hidden
        sync_directory(hidden)
        hidden.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        detail = f"{error.strerror or error} ({directory})"
        raise EsperdError("EXPORT_FAILED", detail=detail) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _write(
    parts: Parts,
    stored: StoredCheckpoint,
    plan: ExportPlan,
    graph: ExportedGraph,
    seen: tuple[Any, Any, list[SeedView]],
    directory: Path,
    clock: Callable[[], float],
) -> tuple[FileEntry, ...]:
    inputs, expected, live = seen
    manifest, form = stored.manifest, FORMATS[plan.format]
    about = f"{manifest.task} of run {manifest.run_id} after {manifest.global_step} steps"
    form.write(graph, directory, Words(about, version("esperd"), f"{HOST}."))
    difference = _compare(expected, _output(form.load(directory).to(parts.device), inputs))
    files = tuple(describe_file(path) for path in sorted(directory.iterdir()))
    document = {
        "format": plan.format,
        "how_to_load": form.how_to_load,
        "run_id": manifest.run_id,
        "task": manifest.task,
        "checkpoint_id": manifest.checkpoint_id,
        "timeline": manifest.timeline,
        "global_step": manifest.global_step,
        "epoch": manifest.epoch,
        "seeds": [_seed(view) for view in parts.executor.seeds() if view.stage is Stage.FOSSILIZED],
        "seeds_left_out": [{**_seed(view), "stage": view.stage.name} for view in live],
        "exported_unix_s": clock(),
        "esperd_version": version("esperd"),
        "torch_version": torch.__version__,
        "device": str(parts.device),
        "autocast": "off" if parts.precision.dtype is None else str(parts.precision.dtype).removeprefix("torch."),
        "inputs": _shapes("inputs", inputs),
        "outputs": _shapes("output", expected),
        "batch": {"is_dynamic": graph.is_batch_dynamic, "size": graph.batch_size, "note": graph.note},
        "needs_libraries": foreign_libraries(graph.program),
        "compared": {"num_samples": graph.batch_size, "max_difference": difference},
        "files": [{"name": f.name, "num_bytes": f.num_bytes, "sha256": f.sha256} for f in files],
    }
    path = directory / MANIFEST
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return (*files, describe_file(path))


def _seed(view: SeedView) -> Mapping[str, Any]:
    return {
        "seed_id": view.seed_id,
        "site": view.site,
        "blueprint_id": view.blueprint_id,
        "blend_mode": view.blend_mode.name,
        "num_parameters": view.cost.num_parameters,
        "since_step": view.stage_entered_step,
    }


def _shapes(name: str, value: Any) -> list[Mapping[str, Any]]:
    """Every tensor of a batch; the first dimension is the batch."""
    leaves, _ = pytree.tree_flatten_with_path(value)
    return [
        {
            "name": f"{name}{pytree.keystr(path)}",
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype).removeprefix("torch."),
        }
        for path, leaf in leaves
        if isinstance(leaf, Tensor)
    ]
