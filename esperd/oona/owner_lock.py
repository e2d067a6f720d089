"""One owner per journal: a lock on a file beside it, which the kernel lets go of when its process dies.

Any thread. The lock is on a side file, because SQLite locks the journal itself in ways of its own. A forked child (a
data worker) lets go at once: it may outlive its parent by seconds, and the next daemon must not wait for it.
"""

import fcntl
import os
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.oona.failures import JournalLocked, JournalUnreadable


class OwnerLock:
    """Held from its making until `release`."""

    def __init__(self, journal_path: Path) -> None:
        """Take the lock.

        Raises:
            JournalLocked: another daemon, or another part of this one, holds it.
            JournalUnreadable: the file of the lock cannot be made.
        """
        path = journal_path.with_name(journal_path.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalUnreadable(str(journal_path), str(error)) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise JournalLocked(str(journal_path), pid or "?") from None
        _held.add(self)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go, once or more often; the file stays, since removing it could take the lock from a new owner."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_held: set[OwnerLock] = set()


def _let_go_in_child() -> None:
    for lock in tuple(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


def own_directory(directory: Path, name: str, unusable: str, preface: str = "") -> OwnerLock:
    """Make a private directory if need be, and take the lock `name` in it.

    Args:
        directory: mode 0700 when it is made here.
        name: of the lock's file, without its suffix.
        unusable: the catalogue's reason when the directory cannot be made or used.
        preface: begins what is said of an error of the system's.

    Raises:
        EsperdError: DIRECTORY_TAKEN with the owner's pid, or `unusable`.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return OwnerLock(directory / name)
    except JournalLocked as error:
        raise EsperdError("DIRECTORY_TAKEN", path=directory, pid=error.metadata["pid"]) from error
    except JournalUnreadable as error:
        raise EsperdError(unusable, path=directory, detail=error.metadata["detail"]) from error
    except OSError as error:
        raise EsperdError(unusable, path=directory, detail=f"{preface}{error.strerror or error}") from error
