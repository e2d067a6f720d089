"""The run's directory: made private, owned by one daemon at a time.

Main thread. The lock is the kernel's, so a killed daemon leaves none behind.
"""

from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.oona.failures import JournalLocked, JournalUnreadable
from esperd.oona.owner_lock import OwnerLock

JOURNAL_NAME = "journal.sqlite"
KEYRING_NAME = "keys.toml"
CHECKPOINTS_NAME = "checkpoints"


class RunDirectory:
    """Held from its making until `release`."""

    def __init__(self, path: Path) -> None:
        """Make the directory (mode 0700) and take it.

        Raises:
            EsperdError: DIRECTORY_TAKEN (another daemon holds it) or CONFIG_UNREADABLE (it cannot be made or written).
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = OwnerLock(path / "esperd")
        except JournalLocked as error:
            raise EsperdError("DIRECTORY_TAKEN", path=path, pid=error.metadata["pid"]) from error
        except JournalUnreadable as error:
            raise EsperdError("CONFIG_UNREADABLE", path=path, detail=error.metadata["detail"]) from error
        except OSError as error:
            detail = f"the run directory cannot be used: {error.strerror or error}"
            raise EsperdError("CONFIG_UNREADABLE", path=path, detail=detail) from error

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.path / JOURNAL_NAME

    def checkpoints_path(self, configured: str) -> Path:
        """Where checkpoints go: the configured directory, else the directory's own."""
        return Path(configured) if configured else self.path / CHECKPOINTS_NAME

    def keyring_path(self, configured: str) -> Path | None:
        """The key ring's file: the configured one, else the directory's own if it is there, else None."""
        if configured:
            return Path(configured)
        own = self.path / KEYRING_NAME
        return own if own.exists() else None

    def release(self) -> None:
        """Let another daemon have it."""
        self._lock.release()
