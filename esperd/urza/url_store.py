"""A store at any URL that fsspec knows: an object store, a web folder, another machine.

A worker thread; blocking, also on the network. A file is put at once: object stores show it whole or not at all; on
others a cut may leave a torn one, which its digest tells. Credentials are fsspec's own affair (its configuration, the
environment of the daemon).
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import fsspec

from esperd.urza.store import PART_BYTES, unavailable


class UrlStore:
    """A `Store` at a URL."""

    def __init__(self, url: str) -> None:
        """Find out who knows such URLs; nobody is connected to yet. Raises EsperdError KERNEL_STORE_UNAVAILABLE."""
        self._url = url
        with self._usable():
            fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))

    @property
    def place(self) -> str:
        """The URL, without what may be a password in it."""
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def _password(self) -> str:
        """What of the URL nobody is shown: clients, and the log, read how a store failed."""
        user, _, password = self._url.partition("://")[2].rpartition("@")[0].partition(":")
        return password or user

    def folders(self) -> dict[str, dict[str, int]]:
        """Every folder with its files."""
        found: dict[str, dict[str, int]] = {}
        with self._usable():
            self._files.invalidate_cache()
            try:
                entries = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
            for path, entry in entries.items():
                folder, _, name = path.rstrip("/").rpartition("/")
                found.setdefault(folder.rpartition("/")[2], {})[name] = entry["size"]
        return found

    def files(self, folder: str) -> dict[str, int]:
        """The files of one folder."""
        with self._usable():
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        """A file in parts."""
        with self._usable(), self._files.open(self._path(folder, name), "rb", block_size=PART_BYTES) as file:
            while part := file.read(PART_BYTES):
                yield part

    def write(self, folder: str, name: str, parts: Iterable[bytes]) -> None:
        """Make or replace a file."""
        content = b"".join(parts)
        with self._usable():
            self._files.makedirs(self._path(folder), exist_ok=True)
            self._files.pipe_file(self._path(folder, name), content)

    def remove_file(self, folder: str, name: str) -> None:
        """Remove a file."""
        with self._usable(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(folder, name))

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder."""
        self.remove_file(folder, first)
        with self._usable(), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(folder), recursive=True)

    def sweep(self, needed: str, before_unix_s: float) -> None:
        """Remove what was half-written before a time, where the file system tells times."""
        for folder, files in self.folders().items():
            if needed not in files:
                with self._usable(), contextlib.suppress(NotImplementedError, FileNotFoundError):
                    times = [self._files.modified(self._path(folder, name)).timestamp() for name in files]
                    if max(times, default=0.0) < before_unix_s:
                        self._files.rm(self._path(folder), recursive=True)

    @cached_property
    def _connected(self) -> tuple[Any, str]:
        """The file system, and the store's path in it; some connect when they are made."""
        files, root = fsspec.core.url_to_fs(self._url)
        return files, root.rstrip("/")

    @property
    def _files(self) -> Any:
        return self._connected[0]

    @property
    def _root(self) -> str:
        return self._connected[1]

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # every file system of fsspec raises errors of its own
            raise unavailable(self.place, error, hidden=self._password) from error
