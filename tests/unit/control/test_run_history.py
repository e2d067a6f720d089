"""What the journal keeps of a run: its beginning and its end, each once."""

import json
import math

from esperd.config.settings import RunSettings, Settings
from esperd.control.run_history import RunHistory
from esperd.leyline.views import RunView
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.records import Record, RunFinished, RunStarted


def view(phase: TrainerPhase, step: int = 0, failure: str = "") -> RunView:
    return RunView("run-1", "digits", phase, step, 0, 100, math.nan, math.nan, failure=failure)


def history() -> tuple[list[Record], RunHistory]:
    rows: list[Record] = []
    return rows, RunHistory(rows.append, lambda: 7.0)


def test_a_run_begins_with_its_settings_and_without_its_secrets() -> None:
    """The configuration is kept whole but for what must stay secret."""
    rows, kept = history()
    settings = Settings(run=RunSettings(task="t:f", task_options={"width": 4, "token": "abc"}))
    kept.begin(view(TrainerPhase.STARTING), settings)
    (begun,) = rows
    assert isinstance(begun, RunStarted)
    assert (begun.run_id, begun.task, begun.unix_s) == ("run-1", "digits", 7.0)
    assert json.loads(begun.config)["run"]["task_options"] == {"width": 4, "token": "(redacted)"}


def test_the_end_is_written_once() -> None:
    """However often one looks, and though the daemon leaves later."""
    rows, kept = history()
    kept.look(view(TrainerPhase.TRAINING, 5))
    assert rows == []
    kept.look(view(TrainerPhase.FAILED, 9, "out of memory"))
    kept.look(view(TrainerPhase.FAILED, 9, "out of memory"), is_daemon_leaving=True)
    assert rows == [RunFinished("run-1", TrainerPhase.FAILED, 9, 7.0, "out of memory")]


def test_a_run_ends_with_the_daemon_that_leaves_it() -> None:
    """It was neither finished nor failed, and the row says so."""
    rows, kept = history()
    kept.look(view(TrainerPhase.STOPPING, 12), is_daemon_leaving=True)
    assert rows == [RunFinished("run-1", TrainerPhase.STOPPING, 12, 7.0)]
