"""A configuration knows where each of its values comes from."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.config.fields import describe_settings
from esperd.config.load import ConfigurationInvalid
from esperd.config.origin import RELOAD, as_toml, differing, load_configuration
from esperd.config.reloadable import RELOADABLE
from esperd.leyline.errors import EsperdError

TEXT = '[run]\ntask = "my_task:build"\n[run.task_options]\nwidth = 4\n[log]\nlevel = "warning"\n'

text = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.one_of(text, st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "esperd.toml"
    path.write_text(TEXT)
    return path


def test_every_setting_has_an_origin(file: Path) -> None:
    """Those in the file, those of the command line, also inside a table, and the defaults."""
    found = load_configuration(file, ("log.format=json", "run.task_options.width=8"))
    assert set(found.origins) == {one.dotted_name for one in describe_settings()}
    assert found.origins["run.task"] == found.origins["log.level"] == "file"
    assert found.origins["log.format"] == found.origins["run.task_options"] == "command line"
    assert found.origins["control.max_streams"] == "default"
    assert found.settings.run.task_options == {"width": 8}


def test_the_command_line_stays_on_top_of_a_file_that_is_read_again(file: Path) -> None:
    """What --set replaced is replaced in the file's next version too."""
    first = load_configuration(file, ("log.level=error",))
    file.write_text(TEXT.replace('"warning"', '"debug"') + "[control]\nmax_streams = 7\n")
    again = first.read_again()
    assert again.settings.log.level == "error"
    assert differing(first, again) == ("control.max_streams",)


def test_errors_are_told_one_by_one(file: Path) -> None:
    """A reload lists them, each with its line."""
    file.write_text(TEXT + "[control]\nmax_streams = 0\nmax_stream = 3\n")
    with pytest.raises(ConfigurationInvalid) as caught:
        load_configuration(file)
    first, second = caught.value.errors
    assert f"{file}:8: [control] max_streams = 0 must be 1 to 1.04858e+06." in first
    assert "did you mean max_streams?" in second
    assert "2 errors in the configuration" in caught.value.message


def test_a_file_that_is_gone_is_unreadable(file: Path) -> None:
    """Not a configuration of defaults."""
    found = load_configuration(file)
    file.unlink()
    with pytest.raises(EsperdError) as caught:
        found.read_again()
    assert caught.value.reason == "CONFIG_UNREADABLE"


def test_replaced_values_have_a_new_origin_and_leave_the_rest_alone(file: Path) -> None:
    """The configuration of before is not changed."""
    found = load_configuration(file)
    newer = found.with_values({"log.level": "debug", "control.max_streams": 9}, RELOAD)
    assert newer.settings == replace(
        found.settings,
        log=replace(found.settings.log, level="debug"),
        control=replace(found.settings.control, max_streams=9),
    )
    assert newer.origins["log.level"] == newer.origins["control.max_streams"] == "reload"
    assert newer.origins["run.task"] == "file"
    assert found.settings.log.level == "warning"
    assert found.origins["log.level"] == "file"


def test_every_reloadable_setting_is_one() -> None:
    """The table names settings that there are."""
    assert {one.dotted_name for one in describe_settings()} >= RELOADABLE


@given(st.one_of(plain, st.lists(text).map(tuple), st.dictionaries(text.map(lambda name: f"x{name}"), plain)))
def test_what_is_shown_is_toml(value: object) -> None:
    """A value that is copied from the answer into the file is the same value."""
    read = tomllib.loads(f"value = {as_toml(value)}")["value"]
    assert (tuple(read) if isinstance(read, list) else read) == value


def test_what_looks_like_a_secret_is_not_shown() -> None:
    """A task may be given a password; nobody who looks at the configuration sees it."""
    shown = as_toml({"width": 4, "db_password": "hunter2", "apiKey": "hunter2", "AUTH_TOKEN": "hunter2"})
    assert "hunter2" not in shown
    assert "width = 4" in shown
