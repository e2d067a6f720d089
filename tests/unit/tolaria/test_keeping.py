"""What is kept of a run is there when it is wanted, whatever the task, the disk or the settings do."""

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esperd.config.settings import TrainingSettings
from esperd.leyline.commands import (
    ApplyAt,
    CheckpointCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    RollbackCommand,
)
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, RollbackTier, TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.checkpoint_writer import MAX_WAITING_WANTED
from tests.unit.tolaria.harness import Run
from tests.unit.tolaria.test_resuming import Journalled, settings


def flush(run: Run) -> None:
    """Wait for the helper threads and hear them."""
    run.trainer._keeper._writer.wait_idle(30.0)  # type: ignore[union-attr]
    run.trainer._keeper.take_results()


def test_a_directory_may_hold_several_runs(tmp_path: Path):
    """Ids are unique in a run only: its states are called good and read back although another run has the same ids."""
    other = Run(settings=settings(), store=CheckpointStore(tmp_path), run_id="other").begin().steps(60)
    other.trainer._keeper.close()
    other.trainer._store.release()  # type: ignore[union-attr]
    run = Journalled(tmp_path)
    run.begin()
    run.until(70)
    flush(run)
    asked = run.submit(RollbackCommand(global_step=45, tier=RollbackTier.FULL))
    run.steps(1)
    assert run.outcome(asked).state is CommandState.APPLIED
    assert not run.notices("checkpoint.not_marked")
    run.end()


def test_a_fault_of_the_task_in_its_own_state_costs_a_checkpoint_and_not_the_run(tmp_path: Path):
    """Loaders, schedulers and modules give parts of the state, and may raise anything."""
    run = Journalled(tmp_path)
    run.begin()

    def faulty() -> dict[str, Any]:
        raise AttributeError("no such worker")

    run.trainer.parts.feed.state_dict = faulty  # type: ignore[method-assign]
    run.until(12)
    assert "no such worker" in run.notices("checkpoint.failed")[0].message
    run.end()


@pytest.mark.parametrize("has_store", [True, False])
def test_a_state_too_large_for_memory_is_not_there(tmp_path: Path, has_store: bool):
    """It is not shown, and going back to it is refused at once, instead of failing half way."""
    store = CheckpointStore(tmp_path) if has_store else None
    small = settings(max_snapshot_bytes=1, every_steps=0, snapshot_every_steps=10, good_after_steps=3)
    run = Run(settings=small, store=store).begin().steps(15)
    assert not run.trainer.publish().restore_points
    asked = run.submit(RollbackCommand(global_step=12))
    run.steps(1)
    assert run.outcome(asked).refusal.reason == "ROLLBACK_TARGET"  # type: ignore[union-attr]
    assert not run.trainer.safety.is_halted
    run.trainer._keeper.close()


def test_a_restart_keeps_within_the_memory_for_states(tmp_path: Path):
    """What did not fit before does not fit after."""
    first = Journalled(tmp_path, max_snapshot_bytes=1)
    first.begin()
    first.until(60)
    flush(first)
    first.end()
    second = Journalled(tmp_path, first.past(0, 0), max_snapshot_bytes=1)
    second.begin()
    points = second.trainer.publish().restore_points
    assert points
    assert not any(point.in_memory for point in points)
    second.end()


def test_a_state_that_is_still_being_written_can_be_gone_back_to(tmp_path: Path):
    """It is good, too large for memory and not yet on disk: the rollback waits for the writer."""
    run = Journalled(tmp_path, max_snapshot_bytes=1, good_after_steps=3)
    begin, gates = run.store.begin, []
    run.begin()
    flush(run)
    run.until(39)

    def slow(checkpoint_id: str) -> Any:
        while not gates:
            pass
        return begin(checkpoint_id)

    run.store.begin = slow  # type: ignore[method-assign]
    run.until(44)
    run.trainer._rollback._monotonic = lambda: 0.0
    asked = run.submit(RollbackCommand(global_step=42))
    wait = run.trainer.safe_point.wait_for_mail

    def waits() -> None:
        gates.append(1)
        wait()

    run.trainer.safe_point.wait_for_mail = waits  # type: ignore[method-assign]
    run.steps(1)
    assert run.outcome(asked).state is CommandState.APPLIED
    assert (run.view.timeline, run.view.global_step) == (2, 40)
    run.end()


def test_the_state_behind_an_emergency_stays_until_the_next_one_is_known_to_the_journal(tmp_path: Path):
    """An exact run goes on from the last state of its own that the journal knows; emergencies are not counted."""
    run = Journalled(tmp_path, every_steps=20, keep=1, snapshot_every_steps=0, good_after_steps=1000)
    run.begin()
    run.until(65)
    flush(run)
    run.bridge.submit_urgent(Command("e", EmergencyCommand(EmergencyLevel.CONSERVATIVE, "fire"), "operator"))
    run.until(70)
    flush(run)
    run.until(81)
    flush(run)
    flush(run)
    names = {stored.manifest.checkpoint_id for stored in run.store.list()}
    assert {"t001-s000000060", "t001-s000000080"} <= names
    run.end()


def test_a_state_that_is_known_to_be_poisoned_is_not_kept(tmp_path: Path):
    """It would drive the good ones out of memory."""
    run = Journalled(tmp_path, good_after_steps=10, snapshots=4)
    run.begin()
    run.until(79)
    flush(run)
    weight = next(run.trainer.parts.model.parameters())
    run.trainer._update_host = lambda *_: weight.data.fill_(math.nan)  # type: ignore[method-assign,assignment]
    run.steps(1)
    assert (run.view.timeline, run.view.global_step) == (2, 60)  # the newest that was good
    flush(run)
    assert "t001-s000000080" not in {stored.manifest.checkpoint_id for stored in run.store.list()}
    run.end()


def test_a_run_that_fails_answers_those_who_wait_for_a_checkpoint(tmp_path: Path):
    """Every command gets its outcome, even when the files are ready only after the run has ended."""
    run = Journalled(tmp_path)
    asked = run.submit(CheckpointCommand("x"), at_step=5)
    learn = run.trainer._forward_backward

    def failing(batch: Any) -> Any:
        if run.trainer.parts.progress.global_step >= 5:
            raise ValueError("boom")
        return learn(batch)

    run.trainer._forward_backward = failing  # type: ignore[method-assign]
    run.trainer.run()
    run.store.release()
    assert run.view.phase is TrainerPhase.FAILED
    assert run.outcome(asked).state is CommandState.APPLIED


def test_a_command_for_an_epochs_end_is_not_carried_out_where_a_rollback_from_there_leads(tmp_path: Path):
    """The epoch that has ended is left behind; it ends again later."""
    run = Journalled(tmp_path, every_steps=0, snapshot_every_steps=14, good_after_steps=14, snapshots=4)
    run.begin()
    run.until(83)  # an epoch has 6 steps
    asked = run.submit(HyperparameterCommand("host", {"lr": 0.5}), apply_at=ApplyAt(epoch_boundary=True))
    weight, update = next(run.trainer.parts.model.parameters()), run.trainer._update_host
    run.trainer._update_host = lambda *_: weight.data.fill_(math.nan)  # type: ignore[method-assign,assignment]
    run.steps(1)
    assert (run.view.timeline, run.view.global_step) == (2, 56)
    run.trainer._update_host = update  # type: ignore[method-assign]
    run.until(61)
    outcome = run.outcome(asked)
    assert (outcome.timeline, outcome.global_step) == (2, 60)
    run.end()


def test_checkpoints_that_a_slow_disk_cannot_keep_up_with_are_refused(tmp_path: Path):
    """Each waiting one holds a copy in memory, so there are few; a command beyond them is told, and the run goes on."""
    # Of a deterministic run the disk may not decide, so it waits instead.
    chosen = replace(settings(every_steps=1000), training=TrainingSettings(device="cpu"))
    store = CheckpointStore(tmp_path)
    run = Run(settings=chosen, store=store)
    begin, may_write = store.begin, threading.Event()
    run.begin()
    flush(run)

    def slow(checkpoint_id: str) -> Any:
        may_write.wait(30)
        return begin(checkpoint_id)

    store.begin = slow  # type: ignore[method-assign]
    asked = []
    for _ in range(MAX_WAITING_WANTED + 2):
        asked.append(run.submit(CheckpointCommand("one more")))
        run.steps(1)
    may_write.set()
    flush(run)
    run.steps(1)
    refusals = [outcome.refusal for outcome in map(run.outcome, asked) if outcome.refusal is not None]
    assert {(refusal.reason, refusal.metadata["num"]) for refusal in refusals} == {
        ("CHECKPOINT_BUSY", str(MAX_WAITING_WANTED))
    }
    assert MAX_WAITING_WANTED <= len(asked) - len(refusals) < len(asked)
    run.trainer._keeper.close()
    store.release()
