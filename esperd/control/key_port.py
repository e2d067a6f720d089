"""What the control plane may ask of whoever keeps the key ring: read it again, refuse a key for good.

Event loop only. `weatherlight` does it; `control` knows this port alone.
"""

from dataclasses import dataclass
from typing import Protocol

from esperd.leyline.keyring import Key


@dataclass(frozen=True, slots=True)
class KeysReloaded:
    """What another key ring changed."""

    added: tuple[str, ...]
    """Ids of keys that are there now and were not before."""
    removed: tuple[str, ...]
    """Ids of keys that are gone."""
    changed: tuple[str, ...]
    """Ids of keys whose record is another."""
    num_streams_ended: int
    """Open streams whose key is no longer accepted."""


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """A key that is refused from now on."""

    key: Key
    num_streams_ended: int


class KeyPort(Protocol):
    """The keeper of the keys."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key in force, in the order of the ring; none without a ring."""
        ...

    def find(self, key_id: str) -> Key | None:
        """The key in force of this id, whatever its state."""

    def reload(self) -> KeysReloaded:
        """Read the key ring again: the whole new ring, or EsperdError KEYRING_INVALID and the old one stays."""

    async def revoke(self, key_id: str, reason: str) -> KeyRevoked:
        """Refuse a key from now on, also after restarts and reloads.

        Raises EsperdError KEY_UNKNOWN; REVOCATION_NOT_KEPT when it is in force but would not outlive this start.
        """
