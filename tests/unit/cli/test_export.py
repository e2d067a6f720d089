"""`esperd export` finds its checkpoint by name or takes the last one written, and says what is wrong in one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from esperd.cli.export import find_checkpoint
from esperd.cli.main import esperd
from esperd.config.settings import CheckpointSettings, RunSettings, Settings
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.store import CheckpointStore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A run directory with two runs; the older run wrote last, the newer one has two checkpoints."""
    settings = Settings(run=RunSettings(task="a:b", directory=str(tmp_path / "run")))
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for run_id, step, unix_s in (("one", 10, 100.0), ("two", 10, 200.0), ("two", 20, 210.0), ("one", 30, 300.0)):
        with store.begin(f"t000-s{step:09d}") as pending:
            with pending.file("state.json") as file:
                file.write(b"{}\n")
            pending.commit(manifest(run_id, step, unix_s))
    store.release()
    return settings


def manifest(run_id: str, step: int, unix_s: float) -> Manifest:
    return Manifest(
        checkpoint_id=f"t000-s{step:09d}",
        kind=CheckpointKind.SCHEDULED,
        run_id=run_id,
        timeline=0,
        global_step=step,
        epoch=0,
        sequence=0,
        revision=1,
        journal_revision=1,
        written_unix_s=unix_s,
        esperd_version="0",
        torch_version="0",
        task="a:b",
        note="",
        config={},
        num_parameters=1,
        pause_ms=0.0,
    )


@pytest.mark.parametrize(
    ("checkpoint_id", "run_id", "expected"),
    [
        ("", "", ("one", 30)),
        ("", "two", ("two", 20)),
        ("t000-s000000020", "", ("two", 20)),
        ("t000-s000000010", "two", ("two", 10)),
        ("t000-s000000010", "one", ("one", 10)),
    ],
)
def test_the_checkpoint_is_found(
    settings: Settings, checkpoint_id: str, run_id: str, expected: tuple[str, int]
) -> None:
    """By its id, in the run that is named; without an id the one that was written last."""
    found = find_checkpoint(settings, checkpoint_id, run_id).manifest
    assert (found.run_id, found.global_step) == expected


def test_an_unknown_checkpoint_is_told(settings: Settings, tmp_path: Path) -> None:
    """No such id, no such run, no checkpoint at all."""
    for checkpoint_id, run_id in (("t000-s000000011", ""), ("t000-s000000020", "one"), ("", "three")):
        with pytest.raises(EsperdError) as caught:
            find_checkpoint(settings, checkpoint_id, run_id)
        assert caught.value.reason == "CHECKPOINT_UNKNOWN"
    elsewhere = Settings(checkpoints=CheckpointSettings(directory=str(tmp_path / "empty")))
    with pytest.raises(EsperdError, match="empty"):
        find_checkpoint(elsewhere, "", "")


def test_an_answer_is_written_for_a_refusal(settings: Settings, tmp_path: Path) -> None:
    """The daemon that started the export reads the reason from the file; a wish without a format is bad usage."""
    file, answer = tmp_path / "esperd.toml", tmp_path / "answer.json"
    file.write_text('[run]\ntask = "a:b"\ndirectory = "run"\n')
    wish = ["export", str(file), "--checkpoint=t000-s000000011"]
    assert CliRunner().invoke(esperd, wish, standalone_mode=False).exit_code != 0
    result = CliRunner().invoke(esperd, [*wish, "--format=safetensors", f"--answer={answer}"])
    assert isinstance(result.exception, EsperdError)
    assert json.loads(answer.read_text()) == {
        "reason": "CHECKPOINT_UNKNOWN",
        "metadata": {"checkpoint_id": "t000-s000000011"},
    }
