"""The checkpoints of a run directory and their one owner, who writes, marks and removes them.

Any thread, one at a time for each checkpoint; plain files under `<directory>/<run id>/<checkpoint id>/`. Nothing here
needs a transaction: a checkpoint appears by one rename, disappears by one rename, and is good by one empty file.
"""

import itertools
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.leyline.private_files import sync_directory
from esperd.oona.checkpoints.manifest import GOOD_NAME, is_valid_id
from esperd.oona.checkpoints.pending import PendingCheckpoint, write_failed
from esperd.oona.checkpoints.reading import CheckpointReader
from esperd.oona.checkpoints.retention import Retention, removable
from esperd.oona.owner_lock import own_directory

_HIDDEN = ".tmp-"


class CheckpointStore(CheckpointReader):
    """Owns a directory from its making until `release`."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if need be, take its lock and sweep what a dead owner left half-written.

        Raises:
            EsperdError: DIRECTORY_TAKEN with the owner's pid, CHECKPOINT_DIRECTORY when the directory cannot be used.
        """
        super().__init__(directory)
        self._lock = own_directory(directory, "owner", "CHECKPOINT_DIRECTORY")
        self._numbers = itertools.count(1)
        self._pending: set[Path] = set()
        self.sweep()

    @staticmethod
    def reader(directory: Path) -> CheckpointReader:
        """Look at the checkpoints of another process; nothing is locked, nothing can be changed."""
        return CheckpointReader(directory)

    def begin(self, checkpoint_id: str) -> PendingCheckpoint:
        """Begin to write a checkpoint. Raises EsperdError CHECKPOINT_FAILED, ValueError for an unusable id."""
        if not is_valid_id(checkpoint_id):
            raise ValueError(f"{checkpoint_id!r} cannot name a checkpoint")
        path = self._hidden_path(checkpoint_id)
        self._pending.add(path)
        try:
            return PendingCheckpoint(self.directory, path, checkpoint_id, lambda p: self._pending.discard(p.path))
        except EsperdError:
            self._pending.discard(path)
            raise

    def mark_good(self, checkpoint_id: str, run_id: str = "") -> None:
        """Note, durably, that the steps after it stayed healthy. Raises EsperdError."""
        path = self.get(checkpoint_id, run_id).path
        try:
            descriptor = os.open(path / GOOD_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(path)
        except OSError as error:
            raise write_failed(error, f"{checkpoint_id}/{GOOD_NAME}") from error

    def prune(
        self,
        rule: Retention,
        protect: Collection[str] = (),
        run_id: str = "",
        known: Collection[str] | None = None,
    ) -> tuple[str, ...]:
        """Remove, in each run, what the rule lets go; the ids, oldest first.

        With `known` the others neither go nor count: nobody can go on from them yet. Raises EsperdError
        CHECKPOINT_FAILED.
        """
        going = []
        for run in self._runs(run_id):
            counted = [c for c in self.list(run.name) if known is None or c.manifest.checkpoint_id in known]
            going += removable(counted, rule, protect)
        return tuple(c.manifest.checkpoint_id for c in going if self._remove(c.path))

    def remove(self, checkpoint_id: str, run_id: str = "") -> None:
        """Remove one, sound or not. Raises EsperdError CHECKPOINT_UNKNOWN or CHECKPOINT_FAILED."""
        self._remove(self._find(checkpoint_id, run_id))

    def sweep(self) -> None:
        """Take away what was left half-written or half-removed; never what this store is writing now."""
        for path in self.directory.glob(_HIDDEN + "*"):
            if path not in self._pending:
                shutil.rmtree(path, ignore_errors=True)

    def release(self) -> None:
        """Let another process own the directory."""
        self._lock.release()

    def _remove(self, path: Path) -> bool:
        """False when somebody else has just removed it."""
        hidden = self._hidden_path(path.name)
        try:
            path.rename(hidden)
            sync_directory(path.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise write_failed(error, path.name) from error
        shutil.rmtree(hidden, ignore_errors=True)
        return True

    def _hidden_path(self, checkpoint_id: str) -> Path:
        return self.directory / f"{_HIDDEN}{os.getpid()}-{next(self._numbers)}-{checkpoint_id}"
