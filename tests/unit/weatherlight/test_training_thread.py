"""The training thread: what cannot be trained becomes a phase, never a crash."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from esperd.bridge.bridge import Bridge
from esperd.config.settings import LogSettings, RunSettings, Settings, TrainingSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RunView
from esperd.leyline.vocabulary import TrainerPhase
from esperd.weatherlight.log import configure_log
from esperd.weatherlight.training_thread import Keeping, start_training_thread, starting_snapshot

BROKEN_TASK = """
def build():
    raise RuntimeError("no data today")
"""


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes."""
    yield io.StringIO()
    structlog.reset_defaults()


def run_to_end(settings: Settings, search_path: Path, stream: io.StringIO) -> tuple[Bridge, RunView]:
    bridge = Bridge(first_snapshot=starting_snapshot(settings, "run-1", 0.0))
    log = configure_log(LogSettings(format="json"), stream)
    thread = start_training_thread(settings, bridge, "run-1", search_path, log, Keeping())
    thread.join(60)
    assert not thread.is_alive()
    return bridge, bridge.snapshot().run


def test_before_the_trainer_exists_the_run_is_starting() -> None:
    """The first snapshot says what will be trained, and that it is loading."""
    run = starting_snapshot(Settings(run=RunSettings(task="a:b", num_steps=5)), "run-1", 1.0).run
    assert (run.phase, run.task, run.num_steps_total, run.stall) == (TrainerPhase.STARTING, "a:b", 5, "loading")


def test_a_task_that_raises_is_a_failed_run(tmp_path: Path, stream: io.StringIO) -> None:
    """Phase FAILED with the reason in the snapshot, the user's own frames in the log, commands refused."""
    (tmp_path / "broken_task_of_test.py").write_text(BROKEN_TASK)
    settings = Settings(run=RunSettings(task="broken_task_of_test:build"))
    bridge, run = run_to_end(settings, tmp_path, stream)
    assert run.phase is TrainerPhase.FAILED
    assert "no data today" in run.failure
    line = json.loads(stream.getvalue().splitlines()[-1])
    assert "broken_task_of_test.py" in line["traceback"]
    assert "esperd/tolaria" not in line["traceback"]
    with pytest.raises(EsperdError) as caught:
        bridge.reserve()
    assert caught.value.reason == "TRAINER_NOT_RUNNING"


LEAVING_TASK = """
import sys

{at_import}

def build():
    sys.exit("no data today")
"""


@pytest.mark.parametrize("at_import", ["", "sys.exit('no data today')"])
def test_a_task_that_leaves_the_process_is_a_failed_run(at_import: str, tmp_path: Path, stream: io.StringIO) -> None:
    """sys.exit ends neither the thread in silence nor the daemon: phase FAILED, with the catalogue's text."""
    name = f"leaving_task_{'at_import' if at_import else 'in_call'}"
    (tmp_path / f"{name}.py").write_text(LEAVING_TASK.format(at_import=at_import))
    _, run = run_to_end(Settings(run=RunSettings(task=f"{name}:build")), tmp_path, stream)
    assert run.phase is TrainerPhase.FAILED
    assert run.failure.startswith("E-TASK-003")
    assert "SystemExit: no data today" in run.failure


def test_a_step_that_leaves_the_process_is_a_failed_run(stream: io.StringIO) -> None:
    """Also once it trains."""
    settings = Settings(run=RunSettings(task="tests.unit.tolaria.tasks:leaving_in_a_step", num_threads=1))
    _, run = run_to_end(settings, Path.cwd(), stream)
    assert (run.phase, run.failure) == (TrainerPhase.FAILED, "SystemExit: 3")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (Settings(run=RunSettings(task="no_such_module_at_all:build")), "E-TASK-001"),
        (
            Settings(run=RunSettings(task="esperd.examples.digits:build"), training=TrainingSettings(device="cuda:99")),
            "E-DEV-001",
        ),
    ],
)
def test_errors_of_the_catalogue_are_the_failure(
    settings: Settings, code: str, tmp_path: Path, stream: io.StringIO
) -> None:
    """A missing task and a missing device fail the run with the catalogue's text."""
    _, run = run_to_end(settings, tmp_path, stream)
    assert run.phase is TrainerPhase.FAILED
    assert run.failure.startswith(code)


def test_a_short_run_finishes(tmp_path: Path, stream: io.StringIO) -> None:
    """The digits task runs its steps and the thread ends by itself."""
    settings = Settings(run=RunSettings(task="esperd.examples.digits:build", num_steps=20, num_threads=1))
    _, run = run_to_end(settings, tmp_path, stream)
    assert (run.phase, run.global_step) == (TrainerPhase.FINISHED, 20)
