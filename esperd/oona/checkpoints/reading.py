"""Reading checkpoints: what there is, whether it is sound, and its bytes checked on the way in.

Any thread and any process; takes no lock and changes nothing, so that a command line can look beside a running daemon.
A directory counts only with a whole manifest; everything else is invisible to `list` and named by `damaged`.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.manifest import (
    GOOD_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    corrupt,
    from_json,
    is_valid_id,
)

_CHUNK_BYTES = 4 << 20
_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A whole checkpoint on disk."""

    manifest: Manifest
    path: Path
    is_good: bool
    num_bytes: int
    """Of all its files."""


class CheckpointReader:
    """Looks at `<directory>/<run id>/<checkpoint id>/`.

    Wherever a `run_id` may be left out, the checkpoint is looked for in every run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list(self, run_id: str = "") -> tuple[StoredCheckpoint, ...]:
        """Whole checkpoints, oldest first (by run, timeline and step); reads manifests only."""
        runs = [[c for path in _directories(run) if (c := _whole(path)) is not None] for run in self._runs(run_id)]
        for checkpoints in runs:
            checkpoints.sort(key=_age)
        filled = [checkpoints for checkpoints in runs if checkpoints]
        filled.sort(key=lambda checkpoints: checkpoints[0].manifest.written_unix_s)
        return tuple(checkpoint for checkpoints in filled for checkpoint in checkpoints)

    def damaged(self, run_id: str = "") -> tuple[tuple[str, str], ...]:
        """Id and problem of every directory that `list` leaves out because its manifest is not right."""
        found = []
        for run in self._runs(run_id):
            for path in _directories(run):
                try:
                    read_stored(path)
                except EsperdError as error:
                    found.append((path.name, error.message))
        return tuple(sorted(found))

    def get(self, checkpoint_id: str, run_id: str = "") -> StoredCheckpoint:
        """One checkpoint.

        Raises:
            EsperdError: CHECKPOINT_UNKNOWN, or CHECKPOINT_CORRUPT or CHECKPOINT_VERSION when its manifest is not right.
        """
        return read_stored(self._find(checkpoint_id, run_id))

    def verify(
        self, checkpoint_id: str, run_id: str = "", *, is_unwanted: Callable[[], bool] = lambda: False
    ) -> tuple[str, ...]:
        """Read all of it and give what is wrong; empty when it is sound.

        `is_unwanted` is asked every few megabytes, since the files may be large and nobody may wait any more.

        Raises:
            EsperdError: CHECKPOINT_UNKNOWN, or DRAINING when it has become unwanted.
        """
        path = self._find(checkpoint_id, run_id)
        try:
            stored = read_stored(path)
        except EsperdError as error:
            return (error.metadata.get("detail", error.message),)
        expected = {MANIFEST_NAME, GOOD_NAME, *(entry.name for entry in stored.manifest.files)}
        found = {entry.name for entry in path.iterdir()}
        problems = [f"{name} does not belong to it" for name in sorted(found - expected)]
        chunk = memoryview(bytearray(_CHUNK_BYTES))
        for entry in stored.manifest.files:
            try:
                _read_through(path, entry, None, chunk, is_unwanted)
            except EsperdError as error:
                if error.reason == "DRAINING":
                    raise
                problems.append(error.metadata["detail"])
        return tuple(problems)

    def _find(self, checkpoint_id: str, run_id: str) -> Path:
        found = []
        if is_valid_id(checkpoint_id):
            found = [path for run in self._runs(run_id) if (path := run / checkpoint_id).is_dir()]
        if len(found) > 1:
            runs = ", ".join(path.parent.name for path in found)
            raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=f"{checkpoint_id} that is the only one (runs {runs})")
        if not found:
            raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=checkpoint_id)
        return found[0]

    def _runs(self, run_id: str) -> tuple[Path, ...]:
        if run_id:
            return (self.directory / run_id,) if is_valid_id(run_id) else ()
        return _directories(self.directory)


def read_stored(path: Path) -> StoredCheckpoint:
    """Read one checkpoint's manifest. Raises EsperdError CHECKPOINT_CORRUPT or CHECKPOINT_VERSION."""
    try:
        with (path / MANIFEST_NAME).open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise corrupt(path.name, f"its manifest cannot be read ({error.strerror})") from error
    if len(data) > _MAX_MANIFEST_BYTES:
        raise corrupt(path.name, "its manifest is too large")
    manifest = from_json(data, path.name)
    if (manifest.checkpoint_id, manifest.run_id) != (path.name, path.parent.name):
        raise corrupt(path.name, f"its manifest is that of {manifest.run_id}/{manifest.checkpoint_id}")
    return StoredCheckpoint(manifest, path, (path / GOOD_NAME).exists(), manifest.num_bytes + len(data))


def read_verified(stored: StoredCheckpoint, entry: FileEntry, into: memoryview) -> None:
    """Fill `into` (exactly the entry's size) with a file, hashed on the way. Raises EsperdError CHECKPOINT_CORRUPT."""
    _read_through(stored.path, entry, into, None)


def check_size(stored: StoredCheckpoint, entry: FileEntry) -> None:
    """Compare the size before memory is asked for. Raises EsperdError CHECKPOINT_CORRUPT."""
    try:
        num_bytes = (stored.path / entry.name).stat().st_size
    except OSError as error:
        raise corrupt(stored.path.name, f"{entry.name} cannot be read ({error.strerror})") from error
    if num_bytes != entry.num_bytes:
        raise corrupt(stored.path.name, _wrong_size(entry, num_bytes))


def _read_through(
    path: Path,
    entry: FileEntry,
    into: memoryview | None,
    chunk: memoryview | None,
    is_unwanted: Callable[[], bool] | None = None,
) -> None:
    digest = hashlib.sha256()
    num_read = 0
    try:
        with (path / entry.name).open("rb", buffering=0) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes != entry.num_bytes:
                raise corrupt(path.name, _wrong_size(entry, num_bytes))
            while num_read < num_bytes:
                part = into[num_read : num_read + _CHUNK_BYTES] if into is not None else chunk
                assert part is not None  # one of the two is given
                got = file.readinto(part)
                if not got:
                    break
                digest.update(part[:got])
                num_read += got
                if is_unwanted is not None and is_unwanted():
                    raise EsperdError("DRAINING")
    except OSError as error:
        raise corrupt(path.name, f"{entry.name} cannot be read ({error.strerror})") from error
    if num_read != entry.num_bytes or digest.hexdigest() != entry.sha256:
        raise corrupt(path.name, f"{entry.name} is not what was written")


def _wrong_size(entry: FileEntry, num_bytes: int) -> str:
    return f"{entry.name} has {num_bytes} bytes instead of {entry.num_bytes}"


def _age(checkpoint: StoredCheckpoint) -> tuple[int, int, float, str]:
    manifest = checkpoint.manifest
    return manifest.timeline, manifest.global_step, manifest.written_unix_s, manifest.checkpoint_id


def _whole(path: Path) -> StoredCheckpoint | None:
    try:
        return read_stored(path)
    except EsperdError:  # `damaged` names it; it may also just have been removed
        return None


def _directories(path: Path) -> tuple[Path, ...]:
    try:
        return tuple(entry for entry in path.iterdir() if is_valid_id(entry.name) and entry.is_dir())
    except OSError:  # not there (yet): nothing has been written
        return ()
