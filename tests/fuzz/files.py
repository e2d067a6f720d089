"""Files that an operator writes, key rings and configurations: whatever stands in them makes a value or an error."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from esperd.config.fields import settings_by_section
from esperd.config.load import parse_settings
from esperd.leyline.keyring import MIN_SECRET_BYTES, Key, KeyRing, KeyState
from esperd.leyline.keyring_edit import key_text, rewritten
from tests.fuzz.target import Target, outcome

MAX_BYTES = 8192
FOLDER = Path("/srv/fuzz")
RING_PATH = FOLDER / "keys.toml"
SECRET = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"
RING = f"""
[[keys]]
id = "policy-1"
principal = "policy"
permissions = ["observe", "command"]
secret = "{SECRET}"
not_before = 2026-11-20T00:00:00Z
not_after = 2027-11-20T00:00:00Z
state = "retiring"
"""


def read_ring(data: bytes) -> None:
    """A ring is refused by KEYRING_INVALID without showing a secret, or says the same when it is written again."""
    text = data.decode("utf-8", "replace")
    ring, error = outcome(lambda: KeyRing.from_text(text, "ring.toml"))
    if ring is None:
        assert error is not None
        assert error.reason == "KEYRING_INVALID"
        assert not any(run in error.message for run in _hexadecimal_runs(text)), "an error shows a secret"
        return
    keys = ring.keys
    assert KeyRing.from_text("\n".join(map(key_text, keys))).keys == _in_whole_seconds(keys)
    for key in keys:
        _revoke(text, ring, key)


def _revoke(text: str, ring: KeyRing, key: Key) -> None:
    """Revoking one key in a ring's text leaves the others as they are, or is refused."""
    revoked = replace(key, declared=KeyState.REVOKED)
    changed, error = outcome(lambda: rewritten(RING_PATH, text, revoked))
    if changed is None:
        assert error is not None
        assert error.reason == "KEYRING_INVALID"
        return
    expected = [revoked if one == key else one for one in ring.keys]
    assert list(KeyRing.from_text(changed).keys) == expected


def read_config(data: bytes) -> None:
    """A configuration is refused by CONFIG_INVALID with all its errors, or gives settings."""
    text, _, override = data.decode("utf-8", "replace").partition("\0")
    _, error = outcome(lambda: parse_settings(text, "esperd.toml", FOLDER, [override] if override else []))
    if error is not None:
        assert error.reason == "CONFIG_INVALID"
        assert "esperd.toml" in error.message or "--set" in error.message


def _in_whole_seconds(keys: Iterable[Key]) -> tuple[Key, ...]:
    """As they are written."""

    def whole(time_s: float | None) -> float | None:
        return None if time_s is None else float(time_s // 1)

    return tuple(
        replace(key, not_before_unix_s=whole(key.not_before_unix_s), not_after_unix_s=whole(key.not_after_unix_s))
        for key in keys
    )


def _hexadecimal_runs(text: str) -> list[str]:
    """What could be a secret, or half of one."""
    runs = "".join(c if c in "0123456789abcdefABCDEF" else " " for c in text).split()
    return [run for run in runs if len(run) >= MIN_SECRET_BYTES]


VALUES = (
    *("1", "-0.5", "nan", "inf", "1e999", "9" * 4400, "0x7fffffffffffffffff", "true", '"x"', '""', '"\\u0000"', '"é"'),
    *("[]", '["a"]', '["a", "a"]', '[["a"]]', "[1, [2]]", "[" * 800, "{}", "{a = 1}", '{a = {b = ["c"]}}'),
    *("2026-11-20", "07:32:00", "2026-11-20T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"),
)
"""One of each kind that TOML knows, and the ends of some: every setting is tried with every one of them."""


def _configurations() -> list[bytes]:
    example = Path(__file__).parents[2] / "esperd" / "cli" / "example" / "esperd.toml"
    texts = [
        _setting(section, key, value)
        for section, settings in settings_by_section().items()
        for key in settings
        for value in VALUES
    ]
    overridden = '[run]\ntask = "a:b"\n\0run.task=c:d'
    return [example.read_bytes(), *(text.encode() for text in (*texts, overridden))]


def _setting(section: str, key: str, value: str) -> str:
    task = "" if (section, key) == ("run", "task") else 'task = "a:b"\n'
    header = "" if section == "run" else f"[{section}]\n"
    return f"[run]\n{task}{header}{key} = {value}\n"


def _rings() -> list[bytes]:
    lines = RING.splitlines()
    fields = [(number, line.partition(" = ")[0]) for number, line in enumerate(lines) if " = " in line]
    changed = [
        "\n".join([*lines[:number], f"{name} = {value}", *lines[number + 1 :]])
        for number, name in fields
        for value in (*VALUES, '["observe", ["command"]]', '["observe", 1]')
    ]
    return [
        text.encode() for text in (RING, RING * 2, "keys = []", "keys = [1]", "[[keys]]", "[keys]\na = 1", *changed)
    ]


_CONFIG_WORDS = sorted({word for section, keys in settings_by_section().items() for word in (section, *keys)})
_RING_WORDS = (
    "[[keys]]",
    "id",
    "principal",
    "permissions",
    "secret",
    "not_before",
    "not_after",
    "state",
    "revoked",
    SECRET,
)
_TOML_WORDS = ('"""', "'''", "= ", "[[", "]]", "inf", "nan", "0x", "1e999", "true", "1979-05-27T07:32:00Z", "{ ", "\\u")

TARGETS = {
    "keyring": Target(read_ring, _rings(), (*_RING_WORDS, *_TOML_WORDS), MAX_BYTES),
    "config": Target(read_config, _configurations(), (*_CONFIG_WORDS, *_TOML_WORDS), MAX_BYTES),
}
