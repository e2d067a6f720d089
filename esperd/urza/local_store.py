"""A store in a directory: every file is written beside its place, flushed to the disk and renamed.

A worker thread; blocking. Several daemons may use one directory: nothing is locked, nothing is ever half there.
"""

import contextlib
import itertools
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esperd.leyline.failpoints import failpoint
from esperd.leyline.private_files import sync_directory
from esperd.urza.store import PART_BYTES, unavailable

HIDDEN = ".tmp-"
"""Begins the names of files that are being written."""
_numbers = itertools.count(1)


class LocalStore:
    """A `Store` in a directory, made with mode 0700 when there is none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def place(self) -> str:
        """The directory."""
        return str(self._directory)

    def folders(self) -> dict[str, dict[str, int]]:
        """Every folder with its files."""
        with self._usable():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = [path for path in self._directory.iterdir() if not path.name.startswith(HIDDEN)]
            return {path.name: _sizes(path) for path in paths if path.is_dir()}

    def files(self, folder: str) -> dict[str, int]:
        """The files of one folder."""
        with self._usable():
            return _sizes(self._directory / folder)

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        """A file in parts."""
        with self._usable(), (self._directory / folder / name).open("rb", buffering=0) as file:
            while part := file.read(PART_BYTES):
                yield part

    def write(self, folder: str, name: str, parts: Iterable[bytes]) -> None:
        """Make or replace a file."""
        target = self._directory / folder
        with self._usable():
            if not target.is_dir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_directory(self._directory)
            try:
                write_durably(target / name, parts)
            except FileNotFoundError as error:
                raise unavailable(self.place, error) from error  # another daemon has just removed the folder

    def remove_file(self, folder: str, name: str) -> None:
        """Remove a file."""
        with self._usable(), contextlib.suppress(FileNotFoundError):
            (self._directory / folder / name).unlink()
            sync_directory(self._directory / folder)

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder."""
        self.remove_file(folder, first)
        failpoint("store.half_removed")
        # Renamed first: another daemon that is writing into it has to begin anew, not to lose half.
        hidden = self._directory / f"{HIDDEN}{os.getpid()}-{next(_numbers)}-{folder}"
        with self._usable(), contextlib.suppress(FileNotFoundError):
            (self._directory / folder).rename(hidden)
            sync_directory(self._directory)
        shutil.rmtree(hidden, ignore_errors=True)

    def sweep(self, needed: str, before_unix_s: float) -> None:
        """Remove what was half-written before a time."""
        folders = self.folders()
        unfinished = [self._directory / name for name, files in folders.items() if needed not in files]
        with self._usable():
            for path in (*unfinished, *self._directory.glob(HIDDEN + "*")):
                if _newest_unix_s(path) < before_unix_s:
                    shutil.rmtree(path, ignore_errors=True)
            for path in self._directory.glob(f"*/{HIDDEN}*"):
                if _newest_unix_s(path) < before_unix_s:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unavailable(self.place, error) from error


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Make or replace a file of mode 0400, flushed to the disk: readers see the old one or the new one.

    Raises OSError.
    """
    fresh = path.with_name(f"{HIDDEN}{os.getpid()}-{next(_numbers)}-{path.name}"[:255])
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb", 0) as file:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[file.write(view) :]
            failpoint("store.before_fsync")
            os.fsync(file.fileno())
        failpoint("store.before_rename")
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _sizes(path: Path) -> dict[str, int]:
    try:
        return {entry.name: entry.stat().st_size for entry in path.iterdir() if not entry.name.startswith(HIDDEN)}
    except FileNotFoundError:
        return {}  # removed by another daemon meanwhile


def _newest_unix_s(path: Path) -> float:
    """When a file, or a folder or anything in it, was last written; what is gone meanwhile is as new as can be."""
    try:
        return max(entry.stat().st_mtime for entry in ((path, *path.iterdir()) if path.is_dir() else (path,)))
    except FileNotFoundError:
        return math.inf
