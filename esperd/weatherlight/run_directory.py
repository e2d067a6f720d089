"""The run's directory: made private, owned by one daemon at a time.

Main thread. The lock is the kernel's, so a killed daemon leaves none behind.
"""

from pathlib import Path

from esperd.oona.owner_lock import own_directory
from esperd.urza.validator_key import VALIDATOR_KEY_NAME

JOURNAL_NAME = "journal.sqlite"
KEYRING_NAME = "keys.toml"
REVOCATIONS_NAME = "revoked-keys.toml"
CHECKPOINTS_NAME = "checkpoints"
KERNELS_NAME = "kernels"


class RunDirectory:
    """Held from its making until `release`."""

    def __init__(self, path: Path) -> None:
        """Make the directory (mode 0700) and take it.

        Raises:
            EsperdError: DIRECTORY_TAKEN (another daemon holds it) or CONFIG_UNREADABLE (it cannot be made or written).
        """
        self.path = path
        self._lock = own_directory(path, "esperd", "CONFIG_UNREADABLE", "the run directory cannot be used: ")

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

    @property
    def revocations_path(self) -> Path:
        """The file of the keys that are refused for good."""
        return self.path / REVOCATIONS_NAME

    @property
    def kernels_path(self) -> Path:
        """Where the run keeps what it has of kernels."""
        return self.path / KERNELS_NAME

    @property
    def validator_key_path(self) -> Path:
        """The file of the key under which kernels are vouched for."""
        return self.path / VALIDATOR_KEY_NAME

    def release(self) -> None:
        """Let another daemon have it."""
        self._lock.release()
