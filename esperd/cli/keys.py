"""Pairs of key files: a key in the daemon's ring, and the same in a file for the client that signs with it.

Main thread. The two files are written whole or not at all, readable by their owner only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key
from esperd.leyline.keyring_edit import append_key, find_key, new_key, replace_key, write_client_file
from esperd.leyline.vocabulary import Permission

T = TypeVar("T")


def make_key_pair(
    principal: str,
    permissions: Sequence[str],
    keyring: Path,
    client_file: Path,
    address: str,
    *,
    now_unix_s: float,
    not_before_unix_s: float | None = None,
    lifetime_s: float | None = None,
) -> Key:
    """Make a key, append it to the ring (made if absent) and write the client's file; returns the key.

    Raises:
        EsperdError: FILE_EXISTS, KEYRING_INVALID, KEY_FILE_INVALID.
    """
    key = new_key(
        principal,
        [Permission[name.upper()] for name in permissions],
        now_unix_s,
        not_before_unix_s=not_before_unix_s,
        lifetime_s=lifetime_s,
    )
    if client_file.exists():
        raise EsperdError("FILE_EXISTS", path=client_file)
    try:
        keyring.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EsperdError("KEYRING_INVALID", path=keyring, detail=error.strerror or str(error)) from error
    _write_both(key, client_file, address, lambda: append_key(keyring, key))
    return key


def make_successor(
    key_id: str,
    keyring: Path,
    client_file: Path,
    address: str,
    *,
    now_unix_s: float,
    overlap_s: float,
    not_before_unix_s: float | None = None,
    lifetime_s: float | None = None,
) -> tuple[Key, Key]:
    """Make the key that takes the place of another: same principal, same permissions, its own secret.

    The old one is accepted for `overlap_s` after the new one has become valid. Returns both, the old one first.

    Raises:
        EsperdError: KEY_UNKNOWN, KEY_NOT_ACTIVE, and as `make_key_pair`.
    """
    old = find_key(keyring, key_id)
    new = new_key(
        old.principal, old.permissions, now_unix_s, not_before_unix_s=not_before_unix_s, lifetime_s=lifetime_s
    )
    retired = _write_both(new, client_file, address, lambda: replace_key(keyring, key_id, new, now_unix_s, overlap_s))
    return retired, new


def _write_both(key: Key, client_file: Path, address: str, change_ring: Callable[[], T]) -> T:
    """The client's file first: a ring with a key that nobody holds would be worse than a file that no ring knows."""
    write_client_file(client_file, key, address)
    try:
        return change_ring()
    except EsperdError:
        client_file.unlink()
        raise
