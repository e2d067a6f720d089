"""Changing a ring's file: one key changes, everything else stays to the letter, or nothing is written."""

import os
import tomllib
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import Key, KeyRing, KeyState
from esperd.leyline.keyring_edit import (
    append_key,
    find_key,
    key_text,
    new_key,
    read_ring,
    replace_key,
    retire_key,
    revoke_key,
    write_client_file,
)
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission
from tests.unit.leyline.test_keyring import GOOD, SECRET, private, unix

NOW = unix("2026-12-01T00:00:00Z")
OTHER = f"""\
# The policy of the night.
[[keys]]   # second
id = "policy-1"
state = "active"
principal = "policy"
permissions = [
    "observe",
    "command",
]
secret = "{SECRET[::-1]}"
"""


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """Two keys, written by hand."""
    return private(tmp_path / "ring.toml", GOOD + OTHER)


def keys(path: Path) -> dict[str, Key]:
    """The keys of a ring's file."""
    return {key.key_id: key for key in KeyRing.load(path).keys}


def reason_of(action: object, *arguments: object) -> str:
    """Why the action is refused."""
    with pytest.raises(EsperdError) as caught:
        action(*arguments)  # type: ignore[operator]
    return caught.value.reason


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
    assert ring.keys == (first, second)
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


def test_a_key_can_be_prepared() -> None:
    """With a later beginning it is PREPARED until then, and its lifetime counts from there."""
    key = new_key("a", [Permission.OBSERVE], NOW, not_before_unix_s=NOW + 60, lifetime_s=3600)
    states = [key.state(NOW + after_s) for after_s in (0, 59, 60, 3659, 3660)]
    assert states == [KeyState.PREPARED, KeyState.PREPARED, KeyState.ACTIVE, KeyState.ACTIVE, KeyState.EXPIRED]


def test_key_text_round_trips() -> None:
    """What is written is read back equal, whatever the state."""
    key = new_key("a", list(Permission)[1:], 1_800_000_000, lifetime_s=60)
    for declared in (KeyState.ACTIVE, KeyState.RETIRING, KeyState.REVOKED):
        made = Key(
            key.key_id, key.principal, key.permissions, key.secret, None, key.not_after_unix_s, declared=declared
        )
        assert KeyRing.from_text(key_text(made)).keys == (made,)


def test_retiring_gives_an_end(ring: Path) -> None:
    """RETIRING until the overlap is over, then EXPIRED; the other key and every comment stay to the letter."""
    retired = retire_key(ring, "policy-1", NOW, 3600)
    assert keys(ring)["policy-1"] == retired
    assert [retired.state(NOW + after_s) for after_s in (0, 3599, 3600)] == [
        KeyState.RETIRING,
        KeyState.RETIRING,
        KeyState.EXPIRED,
    ]
    text = ring.read_text()
    assert text.startswith(GOOD + "# The policy of the night.\n[[keys]]   # second\n")
    assert 'state = "active"' not in text
    assert ring.stat().st_mode & 0o777 == 0o600


def test_retiring_never_lengthens_a_life(ring: Path) -> None:
    """The end that a key has already stays if it comes first."""
    before = keys(ring)["operator-1"].not_after_unix_s
    assert retire_key(ring, "operator-1", NOW, 10 * 365 * 86400.0).not_after_unix_s == before


@pytest.mark.parametrize("when", ["2026-11-19T00:00:00Z", "2028-01-01T00:00:00Z"])
def test_only_what_is_accepted_can_retire(ring: Path, when: str) -> None:
    """A key that would end before it begins, or has ended, is refused as KEY_NOT_ACTIVE; nothing is written."""
    before = ring.read_text()
    assert reason_of(retire_key, ring, "operator-1", unix(when), 60.0) == "KEY_NOT_ACTIVE"
    assert ring.read_text() == before


def test_a_revoked_key_stays_revoked(ring: Path) -> None:
    """REVOKED holds for good: it does not retire and has no successor; revoking it again changes nothing."""
    assert revoke_key(ring, "policy-1").declared is KeyState.REVOKED
    text = ring.read_text()
    assert revoke_key(ring, "policy-1") == keys(ring)["policy-1"]
    assert ring.read_text() == text
    assert reason_of(retire_key, ring, "policy-1", NOW, 60.0) == "KEY_NOT_ACTIVE"
    successor = new_key("policy", [Permission.COMMAND], NOW)
    assert reason_of(replace_key, ring, "policy-1", successor, NOW, 60.0) == "KEY_NOT_ACTIVE"
    assert ring.read_text() == text


def test_rotation_leaves_no_gap(ring: Path) -> None:
    """One write holds the successor and the retiring key; at every moment until the overlap ends one is accepted."""
    successor = new_key("policy", [Permission.OBSERVE, Permission.COMMAND], NOW, not_before_unix_s=NOW + 100)
    old = replace_key(ring, "policy-1", successor, NOW, 50.0)
    assert keys(ring) == {"operator-1": keys(ring)["operator-1"], "policy-1": old, successor.key_id: successor}
    for after_s in range(0, 300, 10):
        accepted = [key for key in (old, successor) if key.is_accepted(NOW + after_s)]
        assert accepted, after_s
        assert (old in accepted) == (after_s < 150)


def test_an_expired_key_has_a_successor_and_stays_expired(tmp_path: Path) -> None:
    """Who comes late for a rotation gets a new key; the old one is not brought back to life."""
    path = private(tmp_path / "ring.toml", GOOD)
    late = unix("2028-01-01T00:00Z")
    old = replace_key(path, "operator-1", new_key("operator", [Permission.COMMAND], late), late, 3600.0)
    assert old.state(late) is KeyState.EXPIRED
    assert path.read_text().startswith(GOOD)


def test_unknown_keys_are_named(ring: Path) -> None:
    """KEY_UNKNOWN, and nothing is written."""
    before = ring.read_text()
    for action, arguments in ((retire_key, (NOW, 1.0)), (revoke_key, ()), (find_key, ())):
        assert reason_of(action, ring, "nobody-1", *arguments) == "KEY_UNKNOWN"
    assert ring.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        f'keys = [{{id = "a", principal = "a", permissions = ["admin"], secret = "{SECRET}"}}]\n',
        f'[["keys"]]\nid = "a"\nprincipal = "a"\npermissions = ["admin"]\nsecret = "{SECRET}"\n',
        f'[[keys]]\nid = "a"\nprincipal = "a"\npermissions = ["admin"]\nsecret = "{SECRET}"\n"state" = "active"\n',
    ],
)
def test_what_cannot_be_changed_with_certainty_is_left_alone(tmp_path: Path, text: str) -> None:
    """A ring that is valid but not written as plain blocks is changed by hand, never by guess."""
    path = private(tmp_path / "ring.toml", text)
    with pytest.raises(EsperdError, match="change it by hand") as caught:
        revoke_key(path, "a")
    assert SECRET[:16] not in caught.value.message
    assert path.read_text() == text


def test_a_link_stays_a_link(tmp_path: Path, ring: Path) -> None:
    """The file that it names is changed, where it is."""
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "keys.toml"
    link.symlink_to(ring)
    revoke_key(link, "policy-1")
    assert link.is_symlink()
    assert keys(ring)["policy-1"].declared is KeyState.REVOKED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_the_ring_to_the_daemon(tmp_path: Path, ring: Path) -> None:
    """A ring that root changes still belongs to its owner, and one that root begins to that of the directory.

    A daemon that runs as root itself would not trust a ring of somebody else.
    """
    os.chown(ring, 4711, 4712)
    os.chown(tmp_path, 4713, 4714)
    revoke_key(ring, "policy-1")
    assert read_ring(ring).keys[1].declared is KeyState.REVOKED
    assert (ring.stat().st_uid, ring.stat().st_gid, ring.stat().st_mode & 0o777) == (4711, 4712, 0o600)
    with pytest.raises(EsperdError, match="it belongs to uid 4711"):
        KeyRing.load(ring)
    begun = tmp_path / "other.toml"
    append_key(begun, new_key("a", [Permission.COMMAND], NOW))
    assert (begun.stat().st_uid, begun.stat().st_gid, begun.stat().st_mode & 0o777) == (4713, 4714, 0o600)


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


def test_every_accepted_key_may_observe() -> None:
    """OBSERVE needs no word in the ring; everything else does."""
    key = Key("a", "a", frozenset({Permission.COMMAND}), Secret(bytes(range(32))))
    assert [permission for permission in Permission if key.allows(permission)] == [
        Permission.OBSERVE,
        Permission.COMMAND,
    ]
