"""`esperd keys`: a key for a principal, in the daemon's ring and in a file for the client.

Main thread. The two files are written whole or not at all, readable by their owner only.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.keyring_edit import append_key, new_key, write_client_file
from esperd.leyline.vocabulary import Permission

DAY_S = 86_400.0


def new_key_pair(
    principal: str, permissions: Sequence[str], keyring: Path, client_file: Path, address: str, days: int | None
) -> None:
    """Make a key, append it to the ring and write the client's file.

    Raises:
        EsperdError: FILE_EXISTS, KEYRING_INVALID, KEY_FILE_INVALID.
    """
    key = make_key_pair(
        principal,
        permissions,
        keyring,
        client_file,
        address,
        now_unix_s=time.time(),
        lifetime_s=None if days is None else days * DAY_S,
    )
    click.echo(f"key {key.key_id} for {principal} is in {keyring}")
    click.echo(f"give {client_file} to {principal}: ESPER_KEY={client_file}")


def make_key_pair(
    principal: str,
    permissions: Sequence[str],
    keyring: Path,
    client_file: Path,
    address: str,
    *,
    now_unix_s: float,
    lifetime_s: float | None = None,
) -> Key:
    """The same without a word; returns the key."""
    if client_file.exists():
        raise EsperdError("FILE_EXISTS", path=client_file)
    try:
        keyring.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EsperdError("KEYRING_INVALID", path=keyring, detail=error.strerror or str(error)) from error
    key = new_key(principal, [Permission[name.upper()] for name in permissions], now_unix_s, lifetime_s=lifetime_s)
    # The client's file first: a ring with a key that nobody holds would be worse than a file that no ring knows.
    write_client_file(client_file, key, address)
    try:
        append_key(keyring, key)
    except EsperdError:
        client_file.unlink()
        raise
    return key


def print_keys(keyring: Path, *, as_json: bool) -> None:
    """Show the keys of a ring. Raises EsperdError KEYRING_INVALID."""
    now_unix_s = time.time()
    ring = KeyRing.load(keyring)
    rows = [_row(key, now_unix_s) for key in ring.keys()]  # noqa: SIM118 - a ring is no dict
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("key", "principal", "permissions", "state", "valid until")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def _row(key: Key, now_unix_s: float) -> dict[str, str]:
    until = key.not_after_unix_s
    return {
        "key_id": key.key_id,
        "principal": key.principal,
        "permissions": ", ".join(permission.name.lower() for permission in sorted(key.permissions)),
        "state": str(key.state(now_unix_s)),
        "valid_until": "" if until is None else datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds"),
    }
