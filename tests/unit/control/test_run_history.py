"""What the journal keeps of a run: its beginning and its end, each once."""

import json
from dataclasses import replace

from esperd.config.settings import RunSettings, Settings
from esperd.control.run_history import RunHistory, run_started
from esperd.leyline.views import RunView
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.records import Record, RunFinished


def view(phase: TrainerPhase, step: int = 0, failure: str = "") -> RunView:
    return RunView("run-1", "digits", phase, step, 3, 100, 0.5, 0.25, {"accuracy": 0.75}, failure=failure, timeline=2)


def history(*, is_ended: bool = False) -> tuple[list[Record], RunHistory]:
    rows: list[Record] = []
    return rows, RunHistory(rows.append, lambda: 7.0, is_ended=is_ended)


def ended(phase: TrainerPhase, step: int, detail: str = "") -> RunFinished:
    return RunFinished("run-1", phase, step, 7.0, detail, 3, 0.5, 0.25, {"accuracy": 0.75}, 2)


def test_a_run_begins_with_its_settings_and_without_its_secrets() -> None:
    """The configuration is kept whole but for what must stay secret."""
    settings = Settings(run=RunSettings(task="t:f", task_options={"width": 4, "token": "abc"}))
    begun = run_started(replace(view(TrainerPhase.STARTING), started_unix_s=7.0), settings, 2_000_000)
    assert (begun.run_id, begun.task, begun.unix_s) == ("run-1", "digits", 7.0)
    assert (begun.revision, begun.is_resumable) == (2_000_000, True)
    assert json.loads(begun.config)["run"]["task_options"] == {"width": 4, "token": "(redacted)"}


def test_the_end_is_written_once() -> None:
    """With its last numbers; however often one looks, and though the daemon leaves later."""
    rows, kept = history()
    kept.look(view(TrainerPhase.TRAINING, 5))
    assert rows == []
    kept.look(view(TrainerPhase.FAILED, 9, "out of memory"))
    kept.look(view(TrainerPhase.FAILED, 9, "out of memory"), is_daemon_leaving=True)
    assert rows == [ended(TrainerPhase.FAILED, 9, "out of memory")]


def test_a_run_that_had_finished_gets_no_second_end() -> None:
    """A later start only shows it."""
    rows, kept = history(is_ended=True)
    kept.look(view(TrainerPhase.FINISHED, 9), is_daemon_leaving=True)
    assert rows == []


def test_a_run_ends_with_the_daemon_that_leaves_it() -> None:
    """It was neither finished nor failed, and the row says so."""
    rows, kept = history()
    kept.look(view(TrainerPhase.STOPPING, 12), is_daemon_leaving=True)
    assert rows == [ended(TrainerPhase.STOPPING, 12)]
