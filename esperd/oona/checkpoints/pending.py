"""A checkpoint in the making: files in a hidden directory that becomes a checkpoint by one rename, or goes away.

Writer thread, and a thread of each pending checkpoint that hashes what is being written. Every file is synced when it
is closed; the manifest comes last, so that a directory without one is never mistaken for a checkpoint. Knows nothing
of tensors and of other checkpoints.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.private_files import sync_directory
from esperd.oona.checkpoints.manifest import MANIFEST_NAME, FileEntry, Manifest, is_valid_file_name, to_json
from esperd.oona.checkpoints.reading import StoredCheckpoint

_CHUNK_BYTES = 8 << 20


class CheckpointFile:
    """One file: `write` any number of times, then leave the `with` block, which makes it durable.

    What is written must stay as it is until then, since it is hashed beside the writing.
    """

    def __init__(
        self, path: Path, hasher: ThreadPoolExecutor, on_closed: Callable[[FileEntry], None] | None = None
    ) -> None:
        self._path = path
        self._hasher = hasher
        self._on_closed = on_closed
        self._digest = hashlib.sha256()
        self._hashed: Future[None] | None = None
        self._num_bytes = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise write_failed(error, path.name) from error

    def write(self, data: bytes | memoryview) -> None:
        """Append; the interpreter is free while a piece is hashed or written. Raises EsperdError CHECKPOINT_FAILED."""
        view = memoryview(data).cast("B")
        self._hashed = self._hasher.submit(self._digest.update, view)  # in order: the hasher has one thread
        try:
            rest = view
            while rest:
                num_bytes = os.write(self._descriptor, rest[:_CHUNK_BYTES])
                self._num_bytes += num_bytes
                rest = rest[num_bytes:]
        except OSError as error:
            raise write_failed(error, self._path.name) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if kind is None:
                    os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)
                if self._hashed is not None:
                    self._hashed.result()
        except OSError as failure:
            raise write_failed(failure, self._path.name) from failure
        if kind is None and self._on_closed is not None:
            self._on_closed(FileEntry(self._path.name, self._num_bytes, self._digest.hexdigest()))


class PendingCheckpoint:
    """Made by `CheckpointStore.begin`; leaving its `with` block without `commit` takes everything away again."""

    def __init__(
        self, root: Path, path: Path, checkpoint_id: str, on_settled: Callable[["PendingCheckpoint"], None]
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.path = path
        self._root = root
        self._on_settled = on_settled
        self._entries: list[FileEntry] = []
        self._hasher = ThreadPoolExecutor(1, "checkpoint-hash")
        self._is_settled = False
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise write_failed(error, path.name) from error

    def file(self, name: str) -> CheckpointFile:
        """A new file of the checkpoint, for a `with` block."""
        if not is_valid_file_name(name):
            raise ValueError(f"{name!r} cannot be a file of a checkpoint")
        return CheckpointFile(self.path / name, self._hasher, self._entries.append)

    def commit(self, draft: Manifest) -> StoredCheckpoint:
        """Write the manifest (`draft` with the files filled in), then let the checkpoint appear, durably.

        Raises:
            EsperdError: FILE_EXISTS when the run has a checkpoint of this id, CHECKPOINT_FAILED when the disk refuses.
        """
        if draft.checkpoint_id != self.checkpoint_id:
            raise ValueError(f"the manifest of {draft.checkpoint_id} for {self.checkpoint_id}")
        target = self._root / draft.run_id / draft.checkpoint_id
        if target.exists():
            raise EsperdError("FILE_EXISTS", path=target)
        manifest = replace(draft, files=tuple(self._entries))
        data = to_json(manifest)
        failpoint("checkpoint.before_manifest")
        with CheckpointFile(self.path / MANIFEST_NAME, self._hasher) as file:
            file.write(data)
        try:
            sync_directory(self.path)
            make_directory(target.parent)
            failpoint("checkpoint.before_rename")
            self._appear(target)
        except OSError as error:
            raise write_failed(error, draft.checkpoint_id) from error
        self._settle()
        return StoredCheckpoint(manifest, target, False, manifest.num_bytes + len(data))

    def abandon(self) -> None:
        """Take everything away; what the disk does not let go of is swept when the store is opened again."""
        if not self._is_settled:
            shutil.rmtree(self.path, ignore_errors=True)
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _appear(self, target: Path) -> None:
        self.path.rename(target)
        failpoint("checkpoint.after_rename")
        try:
            sync_directory(target.parent)
            sync_directory(self._root)
        except OSError:
            target.rename(self.path)  # it may not survive a crash, so it must not be taken for a checkpoint
            raise

    def _settle(self) -> None:
        self._is_settled = True
        self._hasher.shutdown()
        self._on_settled(self)


def make_directory(path: Path) -> None:
    """Make a private directory, durably, unless it is there. Raises OSError."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    sync_directory(path.parent)


def write_failed(error: OSError, what: str) -> EsperdError:
    """The error for a disk that refuses."""
    words = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    text = words.get(error.errno or 0, error.strerror or str(error))
    return EsperdError("CHECKPOINT_FAILED", detail=f"{what}: {text}")
