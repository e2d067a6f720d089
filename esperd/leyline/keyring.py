"""The key ring: which keys the daemon accepts, for whom, for what, and from when to when.

Any thread. A ring is an immutable value made from a TOML file of mode 0600; a reload makes a new ring and swaps it in
whole. Time is passed in. Knows nothing of requests, nor how the file is changed. Design 01, Signed requests.
"""

import datetime
import enum
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from esperd.leyline.errors import EsperdError
from esperd.leyline.private_files import PrivateFileRefused, read_private_text
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission

MIN_SECRET_BYTES = 32
MAX_SECRET_BYTES = 64
"""The block of SHA-256: HMAC hashes a longer secret first, which would tell it from the dummy key by its time."""

MAX_NAME_CHARS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HEXADECIMAL = re.compile(rf"[0-9A-Fa-f]{{{MIN_SECRET_BYTES},}}")
"""What may be a secret, or half of one, that stands where none belongs: an error does not repeat it."""
_END_OF_TIME_UNIX_S = 253_402_300_800
"""The year 10000, in which times are no longer written in four digits."""
_FIELDS = {"id", "principal", "permissions", "secret", "not_before", "not_after", "state"}
_PERMISSIONS = {item.name.lower(): item for item in Permission if item is not Permission.UNSPECIFIED}


class KeyState(enum.StrEnum):
    """Where a key is in its life; only ACTIVE and RETIRING keys are accepted."""

    PREPARED = "prepared"
    """Before its not_before."""
    ACTIVE = "active"
    RETIRING = "retiring"
    """Accepted until its not_after; its use is worth a warning."""
    EXPIRED = "expired"
    """At or after its not_after."""
    REVOKED = "revoked"


_DECLARABLE = (KeyState.ACTIVE, KeyState.RETIRING, KeyState.REVOKED)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one principal."""

    key_id: str
    principal: str
    permissions: frozenset[Permission]
    secret: Secret
    not_before_unix_s: float | None = None
    not_after_unix_s: float | None = None
    declared: KeyState = KeyState.ACTIVE
    """ACTIVE, RETIRING or REVOKED, as the file says; the rest follows from the time."""

    def state(self, now_unix_s: float) -> KeyState:
        """The state at a time."""
        if self.declared is KeyState.REVOKED:
            return KeyState.REVOKED
        if self.not_before_unix_s is not None and now_unix_s < self.not_before_unix_s:
            return KeyState.PREPARED
        if self.not_after_unix_s is not None and now_unix_s >= self.not_after_unix_s:
            return KeyState.EXPIRED
        return self.declared

    def is_accepted(self, now_unix_s: float) -> bool:
        """Whether what it signs is accepted at a time."""
        return self.state(now_unix_s) in (KeyState.ACTIVE, KeyState.RETIRING)

    def allows(self, permission: Permission) -> bool:
        """Whether its holder may do this. Every accepted key may observe: reads are not even signed."""
        return permission is Permission.OBSERVE or permission in self.permissions


class KeyRing:
    """An immutable set of keys by id."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys: dict[str, Key] = {key.key_id: key for key in keys}

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read the file. Raises EsperdError KEYRING_INVALID, naming line or field."""
        try:
            text = read_private_text(path)
        except PrivateFileRefused as refused:
            raise EsperdError("KEYRING_INVALID", path=path, detail=refused) from refused
        return cls.from_text(text, path=str(path))

    @classmethod
    def from_text(cls, text: str, path: str = "(text)") -> "KeyRing":
        """Make a ring from TOML. Raises EsperdError KEYRING_INVALID, naming line or field; never shows a secret."""
        try:
            return cls(_read_keys(text))
        except _Invalid as invalid:
            raise EsperdError("KEYRING_INVALID", path=path, detail=_HEXADECIMAL.sub("(hidden)", str(invalid))) from None

    def find(self, key_id: str) -> Key | None:
        """The key of this id, whatever its state."""
        return self._keys.get(key_id)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key, in the order of the file."""
        return tuple(self._keys.values())

    def with_revoked(self, key_ids: Collection[str]) -> "KeyRing":
        """The same ring in which these keys are revoked; ids that it does not have are passed over."""
        return KeyRing(
            replace(key, declared=KeyState.REVOKED) if key.key_id in key_ids else key for key in self._keys.values()
        )


class _Invalid(Exception):
    """What is wrong with a key ring, in plain words."""


def _read_keys(text: str) -> list[Key]:
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError besides TOMLDecodeError: a number with more digits than Python converts.
        raise _Invalid(f"it is not TOML: {error}") from None
    unknown = sorted(set(content) - {"keys"})
    if unknown:
        raise _Invalid(f"field {unknown[0]} is unknown; a key ring has [[keys]] only")
    tables = content.get("keys", [])
    if not isinstance(tables, list) or not tables:
        raise _Invalid("it has no [[keys]]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith("[[keys]]")]
    keys: dict[str, Key] = {}
    for index, table in enumerate(tables):
        where = f"key {index + 1} (line {lines[index]})" if len(lines) == len(tables) else f"key {index + 1}"
        key = _read_key(table, where)
        if key.key_id in keys:
            raise _Invalid(f"{where}, field id: {key.key_id} is there twice")
        keys[key.key_id] = key
    return list(keys.values())


def _read_key(table: object, where: str) -> Key:
    if not isinstance(table, dict):
        raise _Invalid(f"{where}: it is not a table")
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise _Invalid(f"{where}, field {unknown[0]}: no such field")
    not_before = _time(table, "not_before", where)
    not_after = _time(table, "not_after", where)
    if not_before is not None and not_after is not None and not_after <= not_before:
        raise _Invalid(f"{where}, field not_after: it is not after not_before")
    return Key(
        principal=_name(table, "principal", where),
        key_id=_name(table, "id", where),
        permissions=_permissions(table, where),
        secret=_secret(table, where),
        not_before_unix_s=not_before,
        not_after_unix_s=not_after,
        declared=_declared(table, where),
    )


def _name(table: Mapping[str, Any], field: str, where: str) -> str:
    value = table.get(field)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _Invalid(f"{where}, field {field}: 1 to 64 letters, digits or . _ @ - are needed")
    return value


def _permissions(table: Mapping[str, Any], where: str) -> frozenset[Permission]:
    names = table.get("permissions")
    if not isinstance(names, list) or not names:
        raise _Invalid(f"{where}, field permissions: a list of {', '.join(_PERMISSIONS)} is needed")
    for name in names:
        if not isinstance(name, str) or name not in _PERMISSIONS:
            raise _Invalid(f"{where}, field permissions: {name!r} is none of {', '.join(_PERMISSIONS)}")
    return frozenset(_PERMISSIONS[name] for name in names)


def _secret(table: Mapping[str, Any], where: str) -> Secret:
    value = table.get("secret")
    try:
        secret = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        # The value itself is never shown: a mistyped secret is still a secret.
        raise _Invalid(f"{where}, field secret: it is not hexadecimal") from None
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise _Invalid(
            f"{where}, field secret: {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in hexadecimal are needed, "
            f"it has {len(secret)}"
        )
    if len(set(secret)) < MIN_SECRET_BYTES // 4:
        raise _Invalid(f"{where}, field secret: it is not random")
    return Secret(secret)


def _time(table: Mapping[str, Any], field: str, where: str) -> float | None:
    value = table.get(field)
    if value is None:
        return None
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise _Invalid(f"{where}, field {field}: a time with its zone is needed, like 2026-11-20T00:00:00Z")
    unix_s = value.timestamp()
    if not 0 <= unix_s < _END_OF_TIME_UNIX_S:
        raise _Invalid(f"{where}, field {field}: a time from 1970 to 9999 is needed")
    return unix_s


def _declared(table: Mapping[str, Any], where: str) -> KeyState:
    value = table.get("state", KeyState.ACTIVE.value)
    if value not in [state.value for state in _DECLARABLE]:
        raise _Invalid(f"{where}, field state: active, retiring or revoked is needed")
    return KeyState(value)
