"""Where kernels lie: one folder for each, named by its artifact id, in a directory or at a URL.

A worker thread; blocking. A file appears whole or not at all, a library's name is its digest, and a kernel is there
once its manifest is: that is written last and removed first. So several daemons may share a store without a lock. Knows
nothing of trust; who reads compares digests.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from esperd.leyline.errors import EsperdError

PART_BYTES = 1 << 20
"""Bytes that are held at once while a library is copied."""


class Store(Protocol):
    """Folders of files. Every method raises EsperdError KERNEL_STORE_UNAVAILABLE when the place cannot be used."""

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def folders(self) -> dict[str, dict[str, int]]:
        """Every folder by its name, with the sizes of its files by their names."""

    def files(self, folder: str) -> dict[str, int]:
        """The sizes of a folder's files by their names; none when there is no such folder."""

    def read(self, folder: str, name: str) -> Iterator[bytes]:
        """A file in parts. Raises FileNotFoundError."""

    def write(self, folder: str, name: str, parts: Iterable[bytes]) -> None:
        """Make or replace a file, durably: readers see the old one or the new one."""

    def remove_file(self, folder: str, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder, the file `first` before all others; nothing happens when it is not there."""

    def sweep(self, needed: str, before_unix_s: float) -> None:
        """Remove what was half-written, or half-removed, before a time: folders without the file `needed`."""


def open_store(configured: str, default: Path) -> Store:
    """The store at a configured directory or URL, or in the default directory when there is none.

    Raises:
        EsperdError: KERNEL_STORE_UNAVAILABLE when the URL's protocol is unknown or a package for it is missing.
    """
    # Imported where it is needed: fsspec comes with an extra, and takes its time.
    from esperd.urza.local_store import LocalStore

    if "://" not in configured:
        return LocalStore(Path(configured) if configured else default)
    if configured.startswith("file://"):
        return LocalStore(Path(configured.removeprefix("file://")))
    from esperd.urza.url_store import UrlStore

    return UrlStore(configured)


def unavailable(place: str, error: Exception, hidden: str = "") -> EsperdError:
    """The catalogue's error for a store that cannot be used; `hidden` is told to nobody."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text.replace(hidden, "***") if hidden else text
    return EsperdError("KERNEL_STORE_UNAVAILABLE", path=place, detail=text or type(error).__name__)


def read_whole(store: Store, folder: str, name: str) -> bytes:
    """A file at once. Raises FileNotFoundError, EsperdError."""
    return b"".join(store.read(folder, name))
