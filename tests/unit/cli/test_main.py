"""The command line: every error is a text and an exit code, in one place."""

from pathlib import Path

import pytest

from esperd.cli import main
from esperd.cli.main import run
from esperd.config.load import load_settings


def test_bad_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown verb or a missing argument is click's usage error."""
    assert run(["grow"]) == 2
    assert run(["serve"]) == 2
    assert "Usage" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["serve", "check"])
def test_a_missing_configuration_is_1_with_the_catalogues_text(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code, what happened, what to do next, on stderr."""
    assert run([verb, str(tmp_path / "none.toml")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: E-CFG-002: ")
    assert "esperd init DIR" in error


def test_a_bad_configuration_shows_all_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` and `serve` tell every error of the file before anything is loaded."""
    file = tmp_path / "esperd.toml"
    file.write_text("[run]\ntsk = 'a:b'\n[growth]\nrho = -1\n")
    assert run(["check", str(file)]) == 1
    error = capsys.readouterr().err
    assert "did you mean task?" in error
    assert "rho" in error


def test_an_unforeseen_exception_is_told_and_its_traceback_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A short text with the file that holds the traceback; exit code 1."""

    def broken(**_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(main.esperd, "main", broken)
    assert run([]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in error
    assert "Traceback" not in error
    assert "in broken" in next(tmp_path.glob("esperd-*.traceback")).read_text()


def test_breaking_off_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no failure of the program."""

    def broken_off(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.esperd, "main", broken_off)
    assert run([]) == 130


def test_init_writes_an_example_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example loads, has about 25 lines, and is never written over."""
    assert run(["init", str(tmp_path / "mine")]) == 0
    assert "esperd check" in capsys.readouterr().out
    example = load_settings(tmp_path / "mine" / "esperd.toml").run
    assert (example.task, example.num_steps) == ("my_task:build", 0)  # a policy and an operator find it running
    assert len((tmp_path / "mine" / "my_task.py").read_text().splitlines()) <= 25
    assert run(["init", str(tmp_path / "mine")]) == 1
    assert "E-CFG-006" in capsys.readouterr().err


def test_init_into_a_place_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a folder should be is told."""
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file" / "x")]) == 1
    assert "E-CFG-002" in capsys.readouterr().err
