"""A reload applies all of it, or nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from esperd.config.origin import load_configuration
from esperd.config.settings import Settings
from esperd.control.supervisor import Reloaded, SettingChange
from esperd.leyline.errors import EsperdError
from esperd.weatherlight.reload import MAX_WORDS_CHARS, Reload, words_of

TASK = '[run]\ntask = "my_task:build"\n'


@dataclass
class Part:
    """A part of the daemon that reads a file of its own."""

    problem: str = ""
    in_force: list[Settings] = field(default_factory=list)
    num_prepared: int = 0

    def prepare(self, settings: Settings) -> Callable[[], None]:
        self.num_prepared += 1
        if self.problem:
            raise EsperdError("KEYRING_INVALID", path="keys.toml", detail=self.problem)
        return partial(self.in_force.append, settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "esperd.toml"
    path.write_text(TASK)
    return path


@pytest.fixture
def reload(file: Path) -> Reload:
    return Reload(load_configuration(file))


def test_what_can_be_applied_is_applied_and_the_rest_is_named(file: Path, reload: Reload) -> None:
    """Settings that take a restart keep the value in force, and are told again by the next reload."""
    part = Part()
    reload.add(part.prepare)
    file.write_text(TASK + "num_steps = 5\n[control]\nmax_streams = 7\n")
    done = reload.run()
    assert [str(change) for change in done.applied] == ["control.max_streams: 256 -> 7"]
    assert [str(change) for change in done.restart_required] == ["run.num_steps: 0 -> 5"]
    assert done.rejected == ()
    settings = reload.configuration.settings
    assert (settings.control.max_streams, settings.run.num_steps) == (7, 0)
    assert part.in_force == [settings]
    assert reload.configuration.origins["control.max_streams"] == "reload"
    again = reload.run()
    assert again.applied == ()
    assert [change.name for change in again.restart_required] == ["run.num_steps"]


def test_a_part_that_cannot_follow_holds_back_all_of_them(file: Path, reload: Reload) -> None:
    """Every part prepares before any is swapped, so that all errors are told and nothing has changed."""
    first, broken, worse = Part(), Part("it is torn"), Part("it is gone")
    for part in (first, broken, worse):
        reload.add(part.prepare)
    before = reload.configuration
    file.write_text(TASK + "[control]\nmax_streams = 7\n")
    rejected = reload.run().rejected
    assert len(rejected) == 2
    assert "it is torn" in rejected[0]
    assert "it is gone" in rejected[1]
    assert reload.configuration is before
    assert first.in_force == []
    assert first.num_prepared == 1


@pytest.mark.parametrize(
    ("text", "num_errors"),
    [
        ("[control]\nmax_streams = 7\ndrain_s = -1\n", 1),
        ("[control]\nmax_streams = 7\nnonsense = 1\n[log]\nlevel = 'loud'\n", 2),
        ("[control]\nmax_streams = 7\n[control\n", 1),
        ("[control]\nmax_streams = 7\nkeyring = 5\n", 1),
    ],
)
def test_a_file_with_an_error_changes_nothing(file: Path, reload: Reload, text: str, num_errors: int) -> None:
    """Not even the settings beside the error; the parts are not asked."""
    part = Part()
    reload.add(part.prepare)
    before = reload.configuration
    file.write_text(TASK + text)
    assert len(reload.run().rejected) == num_errors
    assert reload.configuration is before
    assert part.num_prepared == 0


def test_a_file_that_is_gone_changes_nothing(file: Path, reload: Reload) -> None:
    """An editor may replace a file in two steps."""
    file.unlink()
    assert "cannot be read" in reload.run().rejected[0]
    file.write_text(TASK)
    assert reload.run().rejected == ()


def test_parts_read_their_files_again_when_no_setting_has_changed(reload: Reload) -> None:
    """Keys and certificates change without a word in the configuration."""
    part = Part()
    reload.add(part.prepare)
    reload.run()
    assert len(part.in_force) == 1


def test_what_a_reload_did_in_words() -> None:
    """One sentence for the log, the journal and telemetry."""
    change, other = SettingChange("log.level", '"info"', '"debug"'), SettingChange("run.num_steps", "0", "5")
    assert words_of(Reloaded((change,), (other,))) == (
        'the configuration was reloaded; in force now: log.level: "info" -> "debug"; '
        "takes a restart: run.num_steps: 0 -> 5"
    )
    assert words_of(Reloaded(restart_required=(other,))).endswith("reloaded; takes a restart: run.num_steps: 0 -> 5")
    assert words_of(Reloaded()) == "the configuration was reloaded; no setting has changed"
    assert words_of(Reloaded(rejected=("a", "b"))) == ("the configuration was not reloaded, nothing has changed: a; b")
    assert len(words_of(Reloaded(rejected=("x" * 100_000,)))) < MAX_WORDS_CHARS + 10
