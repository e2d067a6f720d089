"""Changes a key ring's file: adds a key, retires or revokes one, replaces one by its successor; and the client's file.

Any thread; blocking file work of the command line, never of the daemon. A change keeps comments and every other key as
they are, is judged as a whole ring before it is written, and is written whole or not at all. Time is passed in.
"""

import datetime
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import MAX_NAME_CHARS, MIN_SECRET_BYTES, Key, KeyRing, KeyState
from esperd.leyline.private_files import PrivateFileRefused, one_writer, read_private_text, write_private_text
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission

_HEADER = "[[keys]]"


def new_key(
    principal: str,
    permissions: Iterable[Permission],
    now_unix_s: float,
    *,
    key_id: str = "",
    not_before_unix_s: float | None = None,
    lifetime_s: float | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Key:
    """Make a key, valid from `not_before_unix_s` or from now on, called `<principal>-<8 hex digits>` without an id.

    Raises EsperdError KEYRING_INVALID for a name or permission that a key ring would refuse.
    """
    start_s = float(int(now_unix_s if not_before_unix_s is None else not_before_unix_s))
    key = Key(
        key_id=key_id or f"{principal[: MAX_NAME_CHARS - 9]}-{random_bytes(4).hex()}",
        principal=principal,
        permissions=frozenset(permissions),
        secret=Secret(random_bytes(MIN_SECRET_BYTES)),
        not_before_unix_s=start_s,
        not_after_unix_s=None if lifetime_s is None else float(int(start_s + lifetime_s)),
    )
    KeyRing.from_text(key_text(key), path="(new key)")
    return key


def append_key(path: Path, key: Key) -> None:
    """Add a key to a key ring file, or begin one.

    Raises EsperdError KEYRING_INVALID when the file is not a valid ring, or already has a key of this id.
    """
    _change(path, lambda text: (_appended(text, key), key))


def retire_key(path: Path, key_id: str, now_unix_s: float, overlap_s: float) -> Key:
    """Let a key be accepted for `overlap_s` more, or until its own end if that comes first; returns it as it is then.

    Raises EsperdError KEYRING_INVALID, KEY_UNKNOWN, KEY_NOT_ACTIVE (revoked, expired, or not valid that early).
    """

    def change(text: str) -> tuple[str, Key]:
        key = _retiring(_find(path, text, key_id), now_unix_s, overlap_s)
        return rewritten(path, text, key), key

    return _change(path, change)


def revoke_key(path: Path, key_id: str) -> Key:
    """Mark a key as revoked; returns it as it is then. Raises EsperdError KEYRING_INVALID or KEY_UNKNOWN."""

    def change(text: str) -> tuple[str, Key]:
        key = replace(_find(path, text, key_id), declared=KeyState.REVOKED)
        return rewritten(path, text, key), key

    return _change(path, change)


def replace_key(path: Path, key_id: str, successor: Key, now_unix_s: float, overlap_s: float) -> Key:
    """Add the successor of a key, and retire the key `overlap_s` after the successor becomes valid; in one write.

    A key that has expired already stays as it is. Returns the old key as it is then. Raises as `retire_key` does.
    """

    def change(text: str) -> tuple[str, Key]:
        key = _find(path, text, key_id)
        if key.state(now_unix_s) is not KeyState.EXPIRED:
            starts_in_s = max(0.0, (successor.not_before_unix_s or 0.0) - now_unix_s)
            key = _retiring(key, now_unix_s, starts_in_s + overlap_s)
            text = rewritten(path, text, key)
        return _appended(text, successor), key

    return _change(path, change)


def read_ring(path: Path) -> KeyRing:
    """The ring as it would be changed: root may look at everybody's. Raises EsperdError KEYRING_INVALID."""
    try:
        return KeyRing.from_text(_read(path), path=str(path))
    except PrivateFileRefused as refused:
        raise EsperdError("KEYRING_INVALID", path=path, detail=refused) from refused


def find_key(path: Path, key_id: str) -> Key:
    """A key of a ring's file. Raises EsperdError KEYRING_INVALID or KEY_UNKNOWN."""
    return _known(read_ring(path), key_id)


def write_client_file(path: Path, key: Key, address: str = "") -> None:
    """Write what a client needs to sign with this key. Raises EsperdError KEY_FILE_INVALID or FILE_EXISTS."""
    if path.exists():
        raise EsperdError("FILE_EXISTS", path=path)
    if any(character in address for character in '"\\\n'):
        raise EsperdError("KEY_FILE_INVALID", path=path, detail="the address has a quote, a backslash or a line break")
    lines = [f'key_id = "{key.key_id}"', f'principal = "{key.principal}"', f'secret = "{key.secret.reveal().hex()}"']
    if address:
        lines.append(f'address = "{address}"')
    try:
        write_private_text(path, "\n".join(lines) + "\n")
    except PrivateFileRefused as refused:
        raise EsperdError("KEY_FILE_INVALID", path=path, detail=refused) from refused


def key_text(key: Key) -> str:
    """One `[[keys]]` block of the file, its secret included."""
    names = ", ".join(f'"{permission.name.lower()}"' for permission in sorted(key.permissions))
    lines = [
        _HEADER,
        f'id = "{key.key_id}"',
        f'principal = "{key.principal}"',
        f"permissions = [{names}]",
        f'secret = "{key.secret.reveal().hex()}"',
    ]
    if key.not_before_unix_s is not None:
        lines.append(f"not_before = {time_text(key.not_before_unix_s)}")
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in _changeable(key).items())]) + "\n"


def rewritten(path: Path, text: str, key: Key) -> str:
    """A ring's text with the state and the end of one key as they are in `key`, all else untouched.

    Raises EsperdError KEYRING_INVALID, with `path` as its name, when it is written in a way that cannot be edited.
    """
    before = KeyRing.from_text(text, path=str(path))
    lines = text.splitlines(keepends=True)
    headers = [number for number, line in enumerate(lines) if line.strip().startswith(_HEADER)]
    ids = [known.key_id for known in before.keys]
    wanted = [key if known.key_id == key.key_id else known for known in before.keys]
    if len(headers) == len(ids):
        index = ids.index(key.key_id)
        end = headers[index + 1] if index + 1 < len(headers) else len(lines)
        block = _block(lines[headers[index] : end], _changeable(key))
        changed = "".join([*lines[: headers[index]], *block, *lines[end:]])
        try:
            after = KeyRing.from_text(changed).keys
        except EsperdError:
            after = ()
        if list(after) == wanted:
            return changed
    raise EsperdError(
        "KEYRING_INVALID", path=path, detail=f"it is not written as plain {_HEADER} blocks, so change it by hand"
    )


def time_text(unix_s: float) -> str:
    """A time as the ring has it, in whole seconds."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _change(path: Path, change: Callable[[str], tuple[str, Key]]) -> Key:
    """Write the text that `change` makes of the file's; returns the key that it hands back with it."""
    try:
        file = path.resolve()  # a link stays one
        with one_writer(file.parent):
            text = _read(file) if file.exists() else ""
            changed, key = change(text)
            KeyRing.from_text(changed, path=str(path))
            # Changed by root it still has to be readable for the daemon, which owns it or its directory.
            write_private_text(file, changed, owner=(file if file.exists() else file.parent).stat())
            return key
    except PrivateFileRefused as refused:
        raise EsperdError("KEYRING_INVALID", path=path, detail=refused) from refused


def _read(file: Path) -> str:
    return read_private_text(file, any_owner=os.geteuid() == 0)


def _appended(text: str, key: Key) -> str:
    separator = "\n" if text and not text.endswith("\n\n") else ""
    return f"{text}{separator}{key_text(key)}"


def _find(path: Path, text: str, key_id: str) -> Key:
    return _known(KeyRing.from_text(text, path=str(path)), key_id)


def _known(ring: KeyRing, key_id: str) -> Key:
    key = ring.find(key_id)
    if key is None:
        raise EsperdError("KEY_UNKNOWN", key_id=key_id)
    return key


def _retiring(key: Key, now_unix_s: float, overlap_s: float) -> Key:
    state = key.state(now_unix_s)
    end_s = float(int(now_unix_s + overlap_s))
    begins_later = key.not_before_unix_s is not None and key.not_before_unix_s >= end_s
    if state in (KeyState.REVOKED, KeyState.EXPIRED) or begins_later:
        raise EsperdError("KEY_NOT_ACTIVE", state=state)
    if key.not_after_unix_s is not None:
        end_s = min(end_s, key.not_after_unix_s)  # retiring never makes a key's life longer
    return replace(key, declared=KeyState.RETIRING, not_after_unix_s=end_s)


def _block(lines: list[str], fields: Mapping[str, str]) -> list[str]:
    kept = [line for line in lines if not re.match(r"\s*(state|not_after)\s*=", line)]
    return [kept[0].rstrip("\n") + "\n", *(f"{name} = {value}\n" for name, value in fields.items()), *kept[1:]]


def _changeable(key: Key) -> dict[str, str]:
    """The fields of a block that a change may touch, as TOML."""
    fields = {}
    if key.not_after_unix_s is not None:
        fields["not_after"] = time_text(key.not_after_unix_s)
    if key.declared is not KeyState.ACTIVE:
        fields["state"] = f'"{key.declared}"'
    return fields
