"""A rollback ends in exactly one way, and whoever asked for it hears which."""

import threading
from pathlib import Path
from typing import Any

import pytest

from esperd.leyline.commands import Command, EmergencyCommand, Outcome, RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import TimelineEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, RollbackTier, TrainerPhase
from esperd.tolaria.recovery import Action, Answer
from tests.unit.tolaria.test_keeping import flush
from tests.unit.tolaria.test_resuming import Journalled


def begun(directory: Path) -> Journalled:
    run = Journalled(directory)
    run.begin()
    run.until(60)
    flush(run)
    return run


def clear(run: Journalled) -> None:
    payload = EmergencyCommand(EmergencyLevel.UNSPECIFIED, "rollback")
    run.bridge.submit_urgent(Command("clear", payload, "operator"))


def test_a_rollback_asked_for_at_the_last_step_is_carried_out(tmp_path: Path):
    """The number of steps is no reason to leave it half done: where it leads is not the end."""
    run = begun(tmp_path)
    run.trainer.safe_point._num_steps = 70
    asked = run.submit(RollbackCommand(global_step=45, tier=RollbackTier.FULL), at_step=70)
    get, gate = run.store.get, threading.Event()
    run.store.get = lambda *names: gate.wait(10.0) and get(*names)  # type: ignore[method-assign,assignment,return-value]
    wait = run.trainer.safe_point.wait_for_mail

    def waits() -> None:
        gate.set()
        wait()

    run.trainer.safe_point.wait_for_mail = waits  # type: ignore[method-assign]
    while not run.trainer.safe_point.is_over:
        run.trainer.step()
    assert run.outcome(asked).state is CommandState.APPLIED
    assert (run.trainer.parts.progress.position) == (2, 70)
    run.end()


def test_a_run_that_ends_while_a_rollback_is_under_way_refuses_it(tmp_path: Path):
    """A daemon that keeps nothing for its next start answers everybody."""
    run = begun(tmp_path)
    run.trainer._keeps_unsettled = False
    run.trainer.prepare = lambda: None  # type: ignore[method-assign]  # it is under way already
    run.trainer._keeper.read = lambda *_: run.bridge.request_stop()  # type: ignore[method-assign]
    asked = run.submit(RollbackCommand(global_step=45, tier=RollbackTier.FULL))
    run.trainer.run()
    run.store.release()
    assert run.outcome(asked).refusal.reason == "TRAINER_NOT_RUNNING"  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", [AttributeError("user code"), AssertionError("user code"), OSError("user code")])
def test_whatever_goes_wrong_in_restoring_halts_the_run_and_settles_the_command_once(tmp_path: Path, fault: Exception):
    """Neither the old state nor the new one is there: nothing trains on it, and no deadline answers a second time."""
    run = begun(tmp_path)

    def faulty(_: Any) -> None:
        raise fault

    run.trainer.parts.feed.load_state_dict = faulty  # type: ignore[method-assign]
    asked = run.submit(RollbackCommand(global_step=45))
    wait = run.trainer.safe_point.wait_for_mail

    def waits() -> None:
        assert run.view.phase is TrainerPhase.HALTED
        run.trainer._rollback.look_at_deadline()
        clear(run)
        wait()

    run.trainer.safe_point.wait_for_mail = waits  # type: ignore[method-assign]
    run.steps(1)
    assert run.outcome(asked).state is CommandState.FAILED
    assert not run.trainer._rollback.is_under_way
    run.end()


def test_after_a_failed_rollback_one_that_succeeds_has_states_kept_again(tmp_path: Path):
    """The state that it leads to is sound."""
    run = begun(tmp_path)
    check, wait = run.trainer._rollback._check, run.trainer.safe_point.wait_for_mail

    def failing(_: Any) -> None:
        raise EsperdError("ROLLBACK_FAILED", detail="poisoned")

    def waits() -> None:
        run.trainer._rollback._check = check  # type: ignore[method-assign]
        run.submit(RollbackCommand(global_step=45))
        clear(run)
        wait()

    run.trainer._rollback._check = failing  # type: ignore[method-assign]
    run.trainer.safe_point.wait_for_mail = waits  # type: ignore[method-assign]
    run.submit(RollbackCommand(global_step=45))
    run.steps(1)
    run.until(81)
    flush(run)
    assert "t002-s000000080" in {stored.manifest.checkpoint_id for stored in run.store.list()}
    run.end()


def test_outcomes_are_told_in_the_order_of_their_numbers(tmp_path: Path):
    """Whatever else took effect at the safe point where a rollback is settled on the spot."""
    run = begun(tmp_path)
    run.bridge.submit_urgent(Command("e", EmergencyCommand(EmergencyLevel.NOTICE, "smoke"), "operator"))
    run.submit(RollbackCommand(global_step=45))
    run.steps(1)
    assert [event.sequence for event in run.take() if isinstance(event, Outcome)] == [1, 2]
    run.end()


def test_the_run_passes_over_files_that_are_damaged_and_goes_back_further(tmp_path: Path):
    """Its own rule wants a sound state, not this one; who asked for this one is told that it is damaged."""
    run = begun(tmp_path)
    run.until(90)
    flush(run)
    for state in run.trainer._keeper.states:
        state.drop_memory()
    (tmp_path / "run" / "t001-s000000080" / "host.safetensors").write_bytes(b"")
    asked = run.submit(RollbackCommand(checkpoint_id="t001-s000000080"))
    run.steps(1)
    assert run.outcome(asked).refusal.reason == "CHECKPOINT_CORRUPT"  # type: ignore[union-attr]
    run.trainer._troubles._take(Action(Answer.ROLLBACK, "loss_anomaly", "test"))
    run.bridge.submit_urgent(Command("look", EmergencyCommand(EmergencyLevel.ELEVATED, "look"), "operator"))
    run.steps(2)
    assert [e.fork_step for e in run.take() if isinstance(e, TimelineEvent)] == [40]
    run.end()
