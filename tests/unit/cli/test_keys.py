"""`esperctl keys` on files alone: pairs that fit together, private, never written over; keys that come and go."""

import json
import stat
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from esper.ctl.main import main

from esperd.leyline.keyring import Key, KeyRing, KeyState
from esperd.leyline.revocations import Revocation, add_revocation


@pytest.fixture(autouse=True)
def _nobody_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an address nor a key of the caller's environment."""
    for name in ("ESPER_ADDRESS", "ESPER_KEY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def keys(*arguments: object) -> Result:
    """What an operator types."""
    return CliRunner().invoke(main, ["keys", *map(str, arguments)], catch_exceptions=False)


def new(folder: Path, principal: str, *more: str) -> Result:
    """Make a key as a user would."""
    files = ("--keyring", folder / "run" / "keys.toml", "--client-file", folder / f"{principal}.toml")
    return keys("new", principal, "--permission", "command", *files, *more)


def ring_of(folder: Path) -> dict[str, Key]:
    """The keys in the ring, by principal."""
    ring = KeyRing.load(folder / "run" / "keys.toml")
    return {key.principal: key for key in ring.keys}


def test_a_new_key_is_in_both_files(tmp_path: Path) -> None:
    """The client's secret is the ring's; both files are for their owner only; the secret is not printed."""
    result = new(tmp_path, "tamiyo", "--address", "unix:/x")
    assert result.exit_code == 0
    client = tomllib.loads((tmp_path / "tamiyo.toml").read_text())
    key = ring_of(tmp_path)["tamiyo"]
    assert key.key_id == client["key_id"]
    assert key.secret.reveal().hex() == client["secret"]
    assert client["address"] == "unix:/x"
    assert client["secret"] not in result.output
    for path in (tmp_path / "tamiyo.toml", tmp_path / "run" / "keys.toml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_added_not_replaced(tmp_path: Path) -> None:
    """A second key leaves the first where it is."""
    assert new(tmp_path, "a").exit_code == new(tmp_path, "b", "--days", "7").exit_code == 0
    assert list(ring_of(tmp_path)) == ["a", "b"]


def test_a_prepared_key(tmp_path: Path) -> None:
    """With --not-before it begins then, and its days count from there; a time without its zone is bad usage."""
    assert new(tmp_path, "a", "--not-before", "2040-01-01T00:00:00Z", "--days", "1").exit_code == 0
    key = ring_of(tmp_path)["a"]
    assert key.state(time.time()) is KeyState.PREPARED
    assert key.not_before_unix_s is not None
    assert key.not_after_unix_s == key.not_before_unix_s + 86400
    assert new(tmp_path, "b", "--not-before", "2040-01-01T00:00:00").exit_code == 2
    assert not (tmp_path / "b.toml").exists()


def test_a_clients_file_is_never_written_over(tmp_path: Path) -> None:
    """FILE_EXISTS, and the ring stays as it was."""
    assert new(tmp_path, "a").exit_code == 0
    before = (tmp_path / "run" / "keys.toml").read_text()
    result = new(tmp_path, "a")
    assert result.exit_code == 1
    assert "E-CFG-006" in result.stderr
    assert (tmp_path / "run" / "keys.toml").read_text() == before


@pytest.mark.parametrize("principal", ["with space", "", 'quo"te', "x" * 65])
def test_a_bad_principal_leaves_no_file(principal: str, tmp_path: Path) -> None:
    """A name that no ring would take is refused before anything is written."""
    files = ("--keyring", tmp_path / "k.toml", "--client-file", tmp_path / "c.toml")
    result = keys("new", principal, "--permission", "command", *files)
    assert result.exit_code == 1
    assert "E-CFG-003" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ring_is_refused_and_the_client_gets_no_file(tmp_path: Path) -> None:
    """KEYRING_INVALID; a client file without its key in the ring would be worse than none."""
    (tmp_path / "run").mkdir()
    ring = tmp_path / "run" / "keys.toml"
    ring.write_text("nonsense")
    ring.chmod(0o600)
    result = new(tmp_path, "a")
    assert result.exit_code == 1
    assert "E-CFG-003" in result.stderr
    assert not (tmp_path / "a.toml").exists()


def test_the_list_shows_no_secret(tmp_path: Path) -> None:
    """Ids, principals, permissions and states; as a table or as JSON."""
    assert new(tmp_path, "a").exit_code == 0
    secret = tomllib.loads((tmp_path / "a.toml").read_text())["secret"]
    told = keys("list", "--keyring", tmp_path / "run" / "keys.toml", "-o", "json").output
    assert json.loads(told)["keys"][0]["state"] == "active"
    assert json.loads(told)["keys"][0]["permissions"] == ["PERMISSION_COMMAND"]
    table = keys("list", "--keyring", tmp_path / "run" / "keys.toml").output
    assert "command" in table
    assert secret not in told + table


def test_a_rotation_makes_a_successor(tmp_path: Path) -> None:
    """Same principal and permissions, a secret of its own; the old key retires, and nothing else changes."""
    new(tmp_path, "a")
    new(tmp_path, "b")
    old, other = ring_of(tmp_path)["a"], ring_of(tmp_path)["b"]
    ring, fresh = tmp_path / "run" / "keys.toml", tmp_path / "a-2.toml"
    result = keys("rotate", old.key_id, "--keyring", ring, "--client-file", fresh, "--overlap-hours", "2")
    assert result.exit_code == 0, result.output
    first, second, third = KeyRing.load(ring).keys
    assert (first.key_id, first.declared, first.secret) == (old.key_id, KeyState.RETIRING, old.secret)
    assert first.not_after_unix_s == pytest.approx(time.time() + 7200, abs=60)
    assert second == other
    assert (third.principal, third.permissions) == (old.principal, old.permissions)
    assert third.secret.reveal().hex() == tomllib.loads(fresh.read_text())["secret"]
    assert third.secret != old.secret


@pytest.mark.parametrize("verb", ["retire", "revoke", "rotate"])
def test_an_unknown_key_is_named(tmp_path: Path, verb: str) -> None:
    """KEY_UNKNOWN; the ring stays as it was, and no client gets a file."""
    new(tmp_path, "a")
    ring = tmp_path / "run" / "keys.toml"
    before = ring.read_text()
    more = ("--client-file", tmp_path / "c.toml") if verb == "rotate" else ()
    result = keys(verb, "nobody-1", "--keyring", ring, *more)
    assert result.exit_code == 1
    assert "E-AUTH-017" in result.stderr
    assert ring.read_text() == before
    assert not (tmp_path / "c.toml").exists()


def test_retire_and_revoke_without_a_daemon(tmp_path: Path) -> None:
    """The ring's file is changed, and it is said that no daemon has been told; a revoked key does not retire."""
    new(tmp_path, "a")
    ring, key_id = tmp_path / "run" / "keys.toml", ring_of(tmp_path)["a"].key_id
    result = keys("retire", key_id, "--keyring", ring)
    assert result.exit_code == 0
    assert "esperctl keys reload" in result.stderr
    assert ring_of(tmp_path)["a"].declared is KeyState.RETIRING
    result = keys("revoke", key_id, "--keyring", ring)
    assert result.exit_code == 0
    assert "no daemon answers" in result.stderr
    assert ring_of(tmp_path)["a"].declared is KeyState.REVOKED
    result = keys("retire", key_id, "--keyring", ring)
    assert result.exit_code == 1
    assert "E-AUTH-006" in result.stderr


def test_a_key_that_the_daemon_revoked_is_neither_retired_nor_rotated(tmp_path: Path) -> None:
    """The ring still has it as active, and would promise that it is accepted."""
    assert new(tmp_path, "a").exit_code == 0
    ring = tmp_path / "run" / "keys.toml"
    key_id, before = ring_of(tmp_path)["a"].key_id, ring.read_text()
    add_revocation(ring.with_name("revoked-keys.toml"), Revocation(key_id, "a", "lost", 5.0))
    successor = ("--client-file", tmp_path / "b.toml")
    for result in (keys("retire", key_id, "--keyring", ring), keys("rotate", key_id, "--keyring", ring, *successor)):
        assert result.exit_code == 1
        assert "E-AUTH-006: The key is revoked." in result.stderr
    assert ring.read_text() == before
    assert not (tmp_path / "b.toml").exists()


def test_a_key_that_retires_that_early_already_is_left_as_it_is(tmp_path: Path) -> None:
    """Retiring once more never makes its life longer; that nothing has changed is said."""
    assert new(tmp_path, "a").exit_code == 0
    ring, key_id = tmp_path / "run" / "keys.toml", ring_of(tmp_path)["a"].key_id
    assert "retires: accepted until" in keys("retire", key_id, "--keyring", ring, "--overlap-hours", "1").stdout
    before = ring.read_text()
    again = keys("retire", key_id, "--keyring", ring)
    assert (again.exit_code, again.stderr) == (0, "")
    assert "retires already: accepted until" in again.stdout
    assert ring.read_text() == before


@pytest.mark.parametrize("verb", ["new", "retire", "rotate"])
def test_without_a_ring_and_a_daemon_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """No --keyring and no socket here: refused, and no file is made anywhere."""
    monkeypatch.chdir(tmp_path)
    arguments = {
        "new": ("a", "--permission", "command", "--client-file", "c.toml"),
        "retire": ("a-1",),
        "rotate": ("a-1", "--client-file", "c.toml"),
    }[verb]
    result = keys(verb, *arguments)
    assert result.exit_code == 2
    assert "--keyring" in result.stderr
    assert list(tmp_path.iterdir()) == []
