"""`esperd keys`: two files that fit together, private, never written over."""

import json
import stat
import tomllib
from pathlib import Path

import pytest

from esperd.cli.main import run
from esperd.leyline.keyring import KeyRing


def new(folder: Path, principal: str, *more: str) -> int:
    """Make a key as a user would."""
    arguments = ["keys", "new", principal, "--permission", "command", "--keyring", str(folder / "run" / "keys.toml")]
    return run([*arguments, "--client-file", str(folder / f"{principal}.toml"), *more])


def test_a_new_key_is_in_both_files(tmp_path: Path) -> None:
    """The client's secret is the ring's; both files are for their owner only."""
    assert new(tmp_path, "tamiyo", "--address", "unix:/x") == 0
    client = tomllib.loads((tmp_path / "tamiyo.toml").read_text())
    key = KeyRing.load(tmp_path / "run" / "keys.toml").find(client["key_id"])
    assert key is not None
    assert key.secret.reveal().hex() == client["secret"]
    assert client["address"] == "unix:/x"
    for path in (tmp_path / "tamiyo.toml", tmp_path / "run" / "keys.toml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_added_not_replaced(tmp_path: Path) -> None:
    """A second key leaves the first where it is."""
    assert new(tmp_path, "a") == new(tmp_path, "b", "--days", "7") == 0
    assert [key.principal for key in KeyRing.load(tmp_path / "run" / "keys.toml").keys()] == ["a", "b"]  # noqa: SIM118


def test_a_clients_file_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FILE_EXISTS, and the ring stays as it was."""
    assert new(tmp_path, "a") == 0
    before = (tmp_path / "run" / "keys.toml").read_text()
    assert new(tmp_path, "a") == 1
    assert "E-CFG-006" in capsys.readouterr().err
    assert (tmp_path / "run" / "keys.toml").read_text() == before


@pytest.mark.parametrize("principal", ["with space", "", 'quo"te', "x" * 65])
def test_a_bad_principal_leaves_no_file(principal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no ring would take is refused before anything is written."""
    arguments = ["keys", "new", principal, "--permission", "command", "--keyring", str(tmp_path / "k.toml")]
    assert run([*arguments, "--client-file", str(tmp_path / "c.toml")]) == 1
    assert "E-CFG-003" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ring_is_refused_and_the_client_gets_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """KEYRING_INVALID; a client file without its key in the ring would be worse than none."""
    (tmp_path / "run").mkdir()
    ring = tmp_path / "run" / "keys.toml"
    ring.write_text("nonsense")
    ring.chmod(0o600)
    assert new(tmp_path, "a") == 1
    assert "E-CFG-003" in capsys.readouterr().err
    assert not (tmp_path / "a.toml").exists()


def test_the_list_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, principals, permissions and states; as a table or as JSON."""
    assert new(tmp_path, "a") == 0
    secret = tomllib.loads((tmp_path / "a.toml").read_text())["secret"]
    capsys.readouterr()
    assert run(["keys", "list", "--keyring", str(tmp_path / "run" / "keys.toml"), "-o", "json"]) == 0
    output = capsys.readouterr().out
    assert secret not in output
    assert json.loads(output)[0]["state"] == "active"
    assert run(["keys", "list", "--keyring", str(tmp_path / "run" / "keys.toml")]) == 0
    assert "command" in capsys.readouterr().out
