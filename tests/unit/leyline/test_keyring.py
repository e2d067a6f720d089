"""The key ring file: what it accepts, what it refuses by line and field, and the state of its keys."""

import datetime
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import KeyRing, KeyState
from esperd.leyline.vocabulary import Permission

SECRET = bytes(range(32)).hex()
GOOD = f"""\
[[keys]]
id = "operator-1"
principal = "operator"
permissions = ["observe", "command", "emergency", "operate"]
secret = "{SECRET}"
not_before = 2026-11-20T00:00:00Z
not_after = 2027-11-20T00:00:00Z
"""


def unix(text: str) -> float:
    """Unix time of an ISO time."""
    return datetime.datetime.fromisoformat(text).timestamp()


def problem(text: str) -> str:
    """What the refusal of a ring says."""
    with pytest.raises(EsperdError) as caught:
        KeyRing.from_text(text, path="ring.toml")
    assert caught.value.reason == "KEYRING_INVALID"
    return caught.value.message


def private(path: Path, text: str) -> Path:
    """A file of mode 0600."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_good_ring_is_read_in_full() -> None:
    """Id, principal, permissions, secret and window come from the file."""
    key = KeyRing.from_text(GOOD).find("operator-1")
    assert key is not None
    assert key.principal == "operator"
    assert key.permissions == {Permission.OBSERVE, Permission.COMMAND, Permission.EMERGENCY, Permission.OPERATE}
    assert key.secret.reveal() == bytes(range(32))
    assert (key.not_before_unix_s, key.not_after_unix_s) == (unix("2026-11-20T00:00Z"), unix("2027-11-20T00:00Z"))
    assert KeyRing.from_text(GOOD).find("operator-2") is None


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ("2026-11-19T23:59:59Z", KeyState.PREPARED),
        ("2026-11-20T00:00:00Z", KeyState.ACTIVE),
        ("2027-11-19T23:59:59Z", KeyState.ACTIVE),
        ("2027-11-20T00:00:00Z", KeyState.EXPIRED),
    ],
)
def test_state_follows_from_the_window(now: str, state: KeyState) -> None:
    """PREPARED before not_before, EXPIRED from not_after on, ACTIVE between."""
    key = KeyRing.from_text(GOOD).find("operator-1")
    assert key is not None
    assert key.state(unix(now)) is state


def test_declared_states() -> None:
    """RETIRING holds within the window only; REVOKED holds always."""
    now = unix("2026-12-01T00:00Z")
    retiring = KeyRing.from_text(f'{GOOD}state = "retiring"\n').keys[0]
    assert retiring.state(now) is KeyState.RETIRING
    assert retiring.state(unix("2028-01-01T00:00Z")) is KeyState.EXPIRED
    revoked = KeyRing.from_text(f'{GOOD}state = "revoked"\n').keys[0]
    assert revoked.state(unix("2020-01-01T00:00Z")) is KeyState.REVOKED


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "operator-1"', "", "field id"),
        ('id = "operator-1"', 'id = "a b"', "field id"),
        ('id = "operator-1"', 'id = "' + "x" * 65 + '"', "field id"),
        ('principal = "operator"', "principal = 7", "field principal"),
        ('["observe", "command", "emergency", "operate"]', "[]", "field permissions"),
        ('["observe", "command", "emergency", "operate"]', '["root"]', "'root' is none of observe"),
        ('["observe", "command", "emergency", "operate"]', '["unspecified"]', "field permissions"),
        (SECRET, SECRET[:62], "field secret: 32 to 64 bytes"),
        (SECRET, "xyz", "field secret: it is not hexadecimal"),
        (SECRET, "00" * 32, "field secret: it is not random"),
        (SECRET, SECRET * 3, "field secret: 32 to 64 bytes"),
        ("2026-11-20T00:00:00Z", "2026-11-20T00:00:00", "field not_before: a time with its zone"),
        ("2026-11-20T00:00:00Z", "2028-01-01T00:00:00Z", "field not_after: it is not after not_before"),
        ('principal = "operator"', 'principal = "operator"\nstate = "gone"', "field state"),
        ('principal = "operator"', 'principal = "operator"\nalgorithm = "none"', "field algorithm: no such field"),
        ('principal = "operator"', "principal =", "line 3"),
    ],
)
def test_bad_field_is_named_with_its_place(old: str, new: str, says: str) -> None:
    """Each mistake names the key, its line and the field; the secret never shows."""
    message = problem("# a comment\n" + GOOD.replace(old, new) if says != "line 3" else GOOD.replace(old, new))
    assert says in message
    assert says == "line 3" or "key 1 (line 2)" in message
    assert SECRET[:16] not in message


def test_duplicate_id_is_refused() -> None:
    """Two keys of one id would make the audit log ambiguous."""
    assert "key 2 (line 8), field id: operator-1 is there twice" in problem(GOOD + GOOD)


@pytest.mark.parametrize("text", ["", "keys = 3", "[other]\n", "keys = [3]"])
def test_not_a_ring(text: str) -> None:
    """A file without proper keys is not a ring."""
    problem(text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_mode_must_be_0600(tmp_path: Path, mode: int) -> None:
    """A ring that others may read or write is refused."""
    path = private(tmp_path / "ring.toml", GOOD)
    path.chmod(mode)
    with pytest.raises(EsperdError, match=f"its mode is {mode:04o}, it must be 0600"):
        KeyRing.load(path)


def test_unreadable_files_are_refused_in_plain_words(tmp_path: Path) -> None:
    """A missing file, a directory and a binary file each say what they are."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name, says in (("missing", "No such file"), ("directory", "regular file"), ("binary", "not UTF-8")):
        with pytest.raises(EsperdError, match=says) as caught:
            KeyRing.load(tmp_path / name)
        assert caught.value.reason == "KEYRING_INVALID"


def test_revoking_in_a_ring_makes_another_ring() -> None:
    """The named keys are REVOKED in the new ring, the others as before; the old ring is as it was."""
    ring = KeyRing.from_text(GOOD + GOOD.replace("operator-1", "operator-2"))
    revoked = ring.with_revoked({"operator-1", "nobody"})
    assert [key.declared for key in revoked.keys] == [KeyState.REVOKED, KeyState.ACTIVE]
    assert [key.declared for key in ring.keys] == [KeyState.ACTIVE, KeyState.ACTIVE]
