"""The key ring file: what it accepts, what it refuses by line and field, and how it grows."""

import datetime
import tomllib
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyRing, KeyState
from esperd.leyline.keyring_edit import append_key, key_text, new_key, write_client_file
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
    retiring = KeyRing.from_text(f'{GOOD}state = "retiring"\n').keys()[0]
    assert retiring.state(now) is KeyState.RETIRING
    assert retiring.state(unix("2028-01-01T00:00Z")) is KeyState.EXPIRED
    revoked = KeyRing.from_text(f'{GOOD}state = "revoked"\n').keys()[0]
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


def test_new_keys_are_appended_and_the_rest_is_kept(tmp_path: Path) -> None:
    """A ring begins with its first key, keeps comments and older keys, and has mode 0600."""
    path = tmp_path / "ring.toml"
    first = new_key("operator", [Permission.OPERATE, Permission.COMMAND], 1_800_000_000.5, lifetime_s=3600)
    append_key(path, first)
    path.write_text("# mine\n" + path.read_text())
    second = new_key("policy", [Permission.COMMAND], 1_800_000_000, key_id="policy-1")
    append_key(path, second)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("# mine\n")
    ring = KeyRing.load(path)
    assert ring.keys() == (first, second)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ring.toml"]
    assert first.key_id.startswith("operator-")
    assert first.state(1_800_000_000) is KeyState.ACTIVE
    assert first.state(1_800_003_600) is KeyState.EXPIRED


def test_append_refuses_a_duplicate_and_leaves_the_file_alone(tmp_path: Path) -> None:
    """A ring is never made invalid."""
    path = private(tmp_path / "ring.toml", GOOD)
    with pytest.raises(EsperdError, match="there twice"):
        append_key(path, new_key("operator", [Permission.OBSERVE], 0, key_id="operator-1"))
    assert path.read_text() == GOOD


def test_new_key_has_its_own_random_secret() -> None:
    """32 random bytes each; a name that a ring refuses is refused at once."""
    first, second = (new_key("a", [Permission.OBSERVE], 0) for _ in range(2))
    assert first.secret != second.secret
    assert len(first.secret.reveal()) == 32
    with pytest.raises(EsperdError, match="field principal"):
        new_key("a b", [Permission.OBSERVE], 0)


def test_key_text_round_trips() -> None:
    """What is written is read back equal, whatever the state."""
    key = new_key("a", list(Permission)[1:], 1_800_000_000, lifetime_s=60)
    for declared in (KeyState.ACTIVE, KeyState.RETIRING, KeyState.REVOKED):
        made = Key(
            key.key_id, key.principal, key.permissions, key.secret, None, key.not_after_unix_s, declared=declared
        )
        assert KeyRing.from_text(key_text(made)).keys() == (made,)


def test_client_file_holds_what_a_client_needs(tmp_path: Path) -> None:
    """Key id, principal, secret and address, mode 0600, never over an existing file."""
    path = tmp_path / "policy.key"
    key = new_key("policy", [Permission.COMMAND], 0)
    write_client_file(path, key, "unix:/run/x.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(path.read_text()) == {
        "key_id": key.key_id,
        "principal": "policy",
        "secret": key.secret.reveal().hex(),
        "address": "unix:/run/x.sock",
    }
    with pytest.raises(EsperdError) as caught:
        write_client_file(path, key)
    assert caught.value.reason == "FILE_EXISTS"
