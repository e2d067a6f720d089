"""`esperd export`: the model of a checkpoint as files that load without esperd.

Main thread; loads torch. Looks for the checkpoint and prints what was written, all the work is Tolaria's. The daemon
starts this very command for whoever asks it for an export, and reads what came of it from a file.
"""

import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from esperd.config.load import load_settings
from esperd.config.settings import Settings
from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.store import CheckpointStore

if TYPE_CHECKING:
    from esperd.tolaria.export import Exported

TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    file: Path
    overrides: Sequence[str]
    format: str
    checkpoint_id: str
    """Empty for the newest one."""
    run_id: str
    """Empty for the newest run that has the checkpoint."""
    without_live_seeds: bool
    directory: Path | None
    """Where the files go; None for `exports` in the run directory."""
    device: str


def run_export(wish: Wish, *, as_json: bool, answer: Path | None) -> None:
    """Export and print; with `answer`, say in that file what came of it, for the program that started this one.

    Raises:
        EsperdError: of the configuration, task, device, checkpoint and export entries.
    """
    before = signal.signal(signal.SIGTERM, _leave)  # so that half an export goes away
    try:
        exported = _export(wish)
    except EsperdError as error:
        if answer is not None:
            _write(answer, {"reason": error.reason, "metadata": error.metadata})
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if answer is not None:
        _write(answer, _as_object(exported))
    if as_json:
        click.echo(json.dumps(_as_object(exported), indent=2))
    else:
        _print(exported)


def find_checkpoint(settings: Settings, checkpoint_id: str, run_id: str) -> StoredCheckpoint:
    """The one that is named, or the last that was written; empty ids leave it open.

    Raises:
        EsperdError: CHECKPOINT_UNKNOWN, CHECKPOINT_CORRUPT or CHECKPOINT_VERSION.
    """
    directory = settings.checkpoints.directory or str(Path(settings.run.directory) / "checkpoints")
    reader = CheckpointStore.reader(Path(directory))
    if checkpoint_id:
        return reader.get(checkpoint_id, run_id)
    whole = reader.list(run_id)
    if not whole:
        raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=f"in {directory}")
    return max(whole, key=lambda stored: stored.manifest.written_unix_s)


def _export(wish: Wish) -> "Exported":
    settings = load_settings(wish.file, wish.overrides)
    try:
        from esperd.tolaria.export import ExportPlan, export_checkpoint
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise EsperdError("TORCH_MISSING") from error
    stored = find_checkpoint(settings, wish.checkpoint_id, wish.run_id)
    directory = wish.directory or _default_directory(settings, stored, wish)
    plan = ExportPlan(wish.format, directory.absolute(), wish.without_live_seeds, wish.device)
    return export_checkpoint(settings, wish.file.absolute().parent, stored, plan, time.time)


def _default_directory(settings: Settings, stored: StoredCheckpoint, wish: Wish) -> Path:
    name = f"{stored.manifest.checkpoint_id}-{wish.format}"
    return Path(settings.run.directory) / "exports" / stored.manifest.run_id / name


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _as_object(exported: "Exported") -> dict[str, Any]:
    files = [{"name": f.name, "num_bytes": f.num_bytes, "sha256": f.sha256} for f in exported.files]
    return {"directory": str(exported.directory), "files": files, "how_to_load": exported.how_to_load}


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _print(exported: "Exported") -> None:
    click.echo(f"{exported.directory}")
    for file in exported.files:
        click.echo(f"  {file.name:<18} {file.num_bytes:>14,} bytes  sha256 {file.sha256}")
    click.echo(f"Load it with: {exported.how_to_load}")
