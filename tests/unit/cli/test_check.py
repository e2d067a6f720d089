"""`esperd check` looks at a task before it is trained."""

import json
import sys
from pathlib import Path

import pytest

from esperd.cli.main import run


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The files of `esperd init`."""
    assert run(["init", str(tmp_path)]) == 0
    return tmp_path / "esperd.toml"


def test_the_example_passes_unedited(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shapes, sites and the cost of every blueprint there are printed."""
    assert run(["check", str(example)]) == 0
    text = capsys.readouterr().out
    for part in ("my_task:build works", "(64, 1, 8, 8) float32", "residual_conv", "rollback snapshot"):
        assert part in text


def test_json_says_the_same_for_programs(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object on stdout."""
    capsys.readouterr()
    assert run(["check", str(example), "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["input_shapes"] == ["(64, 1, 8, 8) float32"]
    assert {offer["tier"] for site in report["sites"] for offer in site["offers"]} <= {"SAFE", "EXPERIMENTAL"}


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("growth.sites=['nowhere']", "E-TASK-005"),
        ("run.task=my_task:nothing", "E-TASK-001"),
        ("run.task_options={width = 'x'}", "E-TASK-003"),
        ("training.device=cuda:99", "E-DEV-001"),
    ],
)
def test_what_would_not_train_is_an_error(
    example: Path, override: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Site, task, options and device are each refused by name."""
    assert run(["check", str(example), "--set", override]) == 1
    assert f"error: {code}" in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The light install has no torch; whoever wants to train with it is told by name."""
    monkeypatch.delitem(sys.modules, "esperd.tolaria.check", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["check", str(example)]) == 1
    assert "error: E-DEV-002" in capsys.readouterr().err
