"""A run directory has one owner and is private."""

import stat
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.weatherlight.run_directory import RunDirectory


def test_the_directory_is_made_private(tmp_path: Path) -> None:
    """Parents are made as well; the directory itself is for its owner only."""
    directory = RunDirectory(tmp_path / "a" / "b")
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.release()


def test_a_second_owner_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    """DIRECTORY_TAKEN while it is held, free afterwards."""
    first = RunDirectory(tmp_path)
    with pytest.raises(EsperdError) as caught:
        RunDirectory(tmp_path)
    assert caught.value.reason == "DIRECTORY_TAKEN"
    assert caught.value.metadata["path"] == str(tmp_path)  # what somebody finds when they look there
    first.release()
    RunDirectory(tmp_path).release()


def test_a_directory_that_cannot_be_made_is_an_error_of_the_catalogue(tmp_path: Path) -> None:
    """A file in the way is CONFIG_UNREADABLE, with the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EsperdError) as caught:
        RunDirectory(tmp_path / "file" / "run")
    assert caught.value.reason == "CONFIG_UNREADABLE"


def test_the_key_ring_is_the_configured_one_or_the_directorys_own(tmp_path: Path) -> None:
    """A configured path wins even if it is not there (loading it will say so); without any there is none."""
    directory = RunDirectory(tmp_path)
    assert directory.keyring_path("") is None
    (tmp_path / "keys.toml").write_text("")
    assert directory.keyring_path("") == tmp_path / "keys.toml"
    assert directory.keyring_path("/k.toml") == Path("/k.toml")
    directory.release()
