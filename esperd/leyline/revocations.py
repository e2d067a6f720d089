"""Keys that are refused for good, in a file of their own beside the journal.

Any thread; blocking file work. The daemon writes it, so that a key can be revoked whose key ring the daemon cannot
write (a systemd credential), and so that neither a reload nor a restart brings a revoked key back.
"""

import datetime
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esperd.leyline.errors import EsperdError
from esperd.leyline.private_files import PrivateFileRefused, one_writer, read_private_text, write_private_text

_HEAD = """\
# Keys that the daemon refuses, whatever the key ring says. Written by the daemon (RevokeKey). To let a key in again,
# remove its block and start the daemon anew; better make a new key.
"""
_FIELDS = {"key_id", "principal", "reason", "time"}


@dataclass(frozen=True, slots=True)
class Revocation:
    """One key that is refused for good."""

    key_id: str
    principal: str
    reason: str
    unix_s: float


def read_revocations(path: Path) -> tuple[Revocation, ...]:
    """Every revocation, oldest first; none when there is no file.

    Raises EsperdError KEYRING_INVALID: who cannot read it cannot know whom to refuse.
    """
    if not path.exists():
        return ()
    try:
        content = tomllib.loads(read_private_text(path))
    except (PrivateFileRefused, ValueError, RecursionError) as error:
        raise EsperdError("KEYRING_INVALID", path=path, detail=error) from error
    rows = content.get("revoked")
    if not isinstance(rows, list) or set(content) != {"revoked"}:
        raise EsperdError("KEYRING_INVALID", path=path, detail="it has not [[revoked]] alone")
    return tuple(_read(path, number, row) for number, row in enumerate(rows, 1))


def add_revocation(path: Path, revocation: Revocation) -> None:
    """Add one, durable before this returns; a key that is there already stays as it is.

    Raises EsperdError KEYRING_INVALID when the file is damaged, PrivateFileRefused when it cannot be written.
    """
    with one_writer(path.parent):
        known = read_revocations(path)
        if revocation.key_id not in [row.key_id for row in known]:
            write_private_text(path, _HEAD + "".join(_text(row) for row in (*known, revocation)))


def _read(path: Path, number: int, row: Any) -> Revocation:
    match row:
        case {
            "key_id": str(key_id),
            "principal": str(principal),
            "reason": str(reason),
            "time": datetime.datetime() as time,
        } if set(row) == _FIELDS and time.tzinfo is not None:
            return Revocation(key_id, principal, reason, time.timestamp())
    raise EsperdError(
        "KEYRING_INVALID", path=path, detail=f"revocation {number} needs key_id, principal, reason and time"
    )


def _text(revocation: Revocation) -> str:
    time = datetime.datetime.fromtimestamp(revocation.unix_s, datetime.UTC).isoformat(timespec="milliseconds")
    return (
        f"\n[[revoked]]\nkey_id = {_quoted(revocation.key_id)}\nprincipal = {_quoted(revocation.principal)}\n"
        f"reason = {_quoted(revocation.reason)}\ntime = {time}\n"
    )


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes, and one that JSON does without."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
