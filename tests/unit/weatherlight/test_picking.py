"""Which run a start is about."""

import json
from dataclasses import replace

import pytest

from esperd.config.settings import RunSettings, Settings, TrainingSettings
from esperd.control.run_history import config_text, run_started
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import CheckpointEvent
from esperd.leyline.vocabulary import CheckpointKind, TrainerPhase
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import RunFinished, RunStarted
from esperd.weatherlight.picking import (
    EarlierRun,
    Picked,
    newest_in_journal,
    newest_in_store,
    pick,
)
from esperd.weatherlight.training_thread import finished_snapshot, starting_snapshot

SETTINGS = Settings(run=RunSettings(task="t:build", random_seed=3, task_options={"width": 4, "token": "abc"}))
FINISHED = RunFinished("run-1", TrainerPhase.FINISHED, 500, 9.0, "", 3, 0.5, 0.25, {"accuracy": 0.75}, 2)


def earlier(
    settings: Settings = SETTINGS, *, finished: RunFinished | None = None, is_resumable: bool = True
) -> EarlierRun:
    return EarlierRun("run-1", 5.0, json.loads(config_text(settings)), is_resumable, finished)


def picked(run: EarlierRun | None, settings: Settings = SETTINGS, last_revision: int = 57) -> Picked:
    return pick(run, settings, new_run_id="run-2", unix_s=7.0, last_revision=last_revision)


def test_a_first_start_begins_a_run() -> None:
    """Under its own name, with revision 1."""
    assert picked(None, last_revision=0) == Picked("run-2", 7.0, 1)


def test_an_earlier_run_goes_on_under_its_name() -> None:
    """It keeps its name and the time of its beginning; nothing has changed."""
    assert picked(earlier()) == Picked("run-1", 5.0, 1_000_000, resumes=True)


@pytest.mark.parametrize(("last", "first"), [(1, 1_000_000), (999_999, 1_000_000), (1_000_000, 2_000_000)])
def test_revisions_grow_from_start_to_start(last: int, first: int) -> None:
    """The next block above everything on record, for a new run too."""
    assert picked(earlier(), last_revision=last).first_revision == first
    assert picked(None, last_revision=last).first_revision == first


def test_a_finished_run_stays_finished() -> None:
    """Whatever the file says now."""
    other = replace(SETTINGS, run=replace(SETTINGS.run, task="other:build", num_steps=9000))
    found = picked(earlier(finished=FINISHED), other)
    assert (found.run_id, found.resumes, found.finished) == ("run-1", False, FINISHED)


def test_a_run_of_the_first_schema_cannot_go_on() -> None:
    """Its journal holds too little; a new run begins."""
    assert picked(earlier(is_resumable=False)).run_id == "run-2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "other:build"}, 'run.task was "t:build", is "other:build"'),
        ({"random_seed": 4}, "run.random_seed was 3, is 4"),
        ({"task_options": {"width": 8, "token": "abc"}}, "run.task_options was .*4.*, is .*8"),
    ],
)
def test_another_task_or_random_seed_is_refused(change: dict[str, object], words: str) -> None:
    """With the names of what differs, and of the run."""
    settings = replace(SETTINGS, run=replace(SETTINGS.run, **change))  # type: ignore[arg-type]
    with pytest.raises(EsperdError, match=words) as caught:
        picked(earlier(), settings)
    assert caught.value.reason == "CHECKPOINT_MISMATCH"
    assert "run-1" in caught.value.message


def test_a_run_that_never_began_makes_way() -> None:
    """A mistyped task, corrected, is not held against the next start; with the same settings the run goes on."""
    run = replace(earlier(), never_began=True)
    assert picked(run, replace(SETTINGS, run=replace(SETTINGS.run, task="other:build"))).run_id == "run-2"
    assert picked(run).run_id == "run-1"


def test_other_changes_are_told() -> None:
    """A longer run or another interval is the operator's right; a setting that only one build knows is no change."""
    run = earlier(replace(SETTINGS, training=TrainingSettings(log_every_steps=5)))
    known = {name: dict(section) for name, section in run.config.items()}
    del known["budgets"]["full_rollback_s"]
    found = picked(replace(run, config=known), replace(SETTINGS, run=replace(SETTINGS.run, num_steps=9)))
    assert [str(change) for change in found.changes] == [
        "run.num_steps was 0, is 9",
        "training.log_every_steps was 5, is 10",
    ]


def started(run_id: str) -> RunStarted:
    return run_started(starting_snapshot(SETTINGS, run_id, 5.0).run, SETTINGS, 1)


async def test_the_journals_newest_run_counts() -> None:
    """A run that failed or was left can go on; one that has finished cannot, and one before it is history."""
    journal = MemoryJournal()
    assert await newest_in_journal(journal) is None
    await journal.append(started("run-0"), replace(FINISHED, run_id="run-0"), started("run-1"))
    left = replace(FINISHED, phase=TrainerPhase.STOPPING)
    await journal.append(left, replace(left, phase=TrainerPhase.FAILED))
    assert await newest_in_journal(journal) == earlier()
    await journal.append(FINISHED)
    assert await newest_in_journal(journal) == earlier(finished=FINISHED)


async def test_what_the_journal_knows_of_a_run_that_never_began() -> None:
    """Failures at step 0 alone; a checkpoint, a step, or an end that nobody wrote down may hold something."""
    failed = replace(FINISHED, phase=TrainerPhase.FAILED, global_step=0)
    saved = CheckpointEvent("c", CheckpointKind.SCHEDULED, 0, 1, 10, 1.0, 1.0, 6.0)
    histories: tuple[tuple[tuple[CheckpointEvent | RunFinished, ...], bool], ...] = (
        ((), False),
        ((failed,), True),
        ((failed, failed), True),
        ((saved, failed), False),
        ((replace(failed, global_step=1), failed), False),
        ((replace(failed, phase=TrainerPhase.STOPPING), failed), False),
    )
    for rows, never_began in histories:
        journal = MemoryJournal()
        await journal.append(started("run-0"), saved, started("run-1"), *rows)
        found = await newest_in_journal(journal)
        assert found is not None
        assert found.never_began is never_began, rows


async def test_a_row_of_an_older_build_is_read() -> None:
    """Its configuration may be anything."""
    journal = MemoryJournal()
    await journal.append(RunStarted("run-1", "digits", 5.0, "[run]"))
    found = await newest_in_journal(journal)
    assert found is not None
    assert not found.is_resumable


def stored(run_id: str, step: int) -> StoredCheckpoint:
    manifest = Manifest(
        checkpoint_id=f"t001-s{step:09d}",
        kind=CheckpointKind.FINAL,
        run_id=run_id,
        timeline=1,
        global_step=step,
        epoch=2,
        sequence=0,
        revision=step,
        journal_revision=0,
        written_unix_s=float(step),
        esperd_version="0",
        torch_version="0",
        task="t:build",
        note="",
        config=json.loads(config_text(SETTINGS)),
        num_parameters=1,
        pause_ms=0.0,
    )
    return StoredCheckpoint(manifest, None, False, 0)  # type: ignore[arg-type]


def test_without_a_journal_the_newest_checkpoint_names_the_run() -> None:
    """And the largest revision of any is passed over."""
    assert newest_in_store(()) == (None, 0)
    found, last_revision = newest_in_store((stored("run-0", 90), stored("run-1", 100), stored("run-0", 80)))
    assert found is not None
    assert (found.run_id, found.finished, last_revision) == ("run-1", None, 100)
    assert picked(found).resumes


def test_a_finished_run_is_shown_with_its_last_numbers() -> None:
    """As it was when it ended."""
    snapshot = finished_snapshot(SETTINGS, FINISHED, 5.0, 1_000_000)
    run = snapshot.run
    assert (snapshot.revision, run.run_id, run.phase, run.stall) == (1_000_000, "run-1", TrainerPhase.FINISHED, "")
    assert (run.global_step, run.epoch, run.timeline, run.started_unix_s) == (500, 3, 2, 5.0)
    assert (run.train_loss, run.val_loss, run.metrics) == (0.5, 0.25, {"accuracy": 0.75})
