"""Checkpoints and rollbacks as they are asked for: every field checked, and whether the state allows them."""

from dataclasses import replace

import pytest
from esper.leyline.v1 import command_pb2

from esperd.control.admissible import check_state
from esperd.control.asked import Asked, read_command
from esperd.control.batches import read_single
from esperd.control.errors import InvalidRequest
from esperd.leyline.commands import ApplyAt, CheckpointCommand, RollbackCommand, SeedCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import MAX_SHOWN
from esperd.leyline.views import RestorePoint
from esperd.leyline.vocabulary import Operation, RollbackTier, TrainerPhase
from tests.integration.control.stage import first_snapshot

POINT = RestorePoint(50, 1, "t001-s000000050", False, True, 10)


def command(**fields: object) -> command_pb2.AdaptationCommand:
    return command_pb2.AdaptationCommand(request_id="r", **fields)  # type: ignore[arg-type]


def rollback(**fields: object) -> command_pb2.AdaptationCommand:
    return command(rollback=command_pb2.CommandRollback(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "payload", "kind"),
    [
        (command(checkpoint=command_pb2.CommandCheckpoint(note="n")), CheckpointCommand("n"), "checkpoint"),
        (rollback(checkpoint_id="c"), RollbackCommand(checkpoint_id="c"), "rollback"),
        (rollback(global_step=0, tier=1), RollbackCommand(global_step=0, tier=RollbackTier.FAST), "rollback"),
        (rollback(before_seed_id="3", tier=2), RollbackCommand(before_seed_id=3, tier=RollbackTier.FULL), "rollback"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_good_command_is_read(message: command_pb2.AdaptationCommand, payload: object, kind: str) -> None:
    """Step 0 is a target like any other, not an absent one; the stated type must agree with the payload."""
    message.command_type = 8 if kind == "checkpoint" else 2
    asked = read_command(message)
    assert (asked.payload, asked.kind, asked.seed_id) == (payload, kind, 0)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (command(checkpoint=command_pb2.CommandCheckpoint(note="n" * 1025)), "checkpoint.note"),
        (rollback(), "rollback.target"),
        (rollback(checkpoint_id=""), "rollback.checkpoint_id"),
        (rollback(checkpoint_id="c" * 129), "rollback.checkpoint_id"),
        (rollback(global_step=2**63), "rollback.global_step"),
        (rollback(before_seed_id="one"), "rollback.before_seed_id"),
        (rollback(global_step=1, tier=9), "rollback.tier"),
        (command(rollback=command_pb2.CommandRollback(global_step=1), target_seed_id="1"), "target_seed_id"),
        (command(rollback=command_pb2.CommandRollback(global_step=1), command_type=8), "command_type"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_command_names_its_field(message: command_pb2.AdaptationCommand, field: str) -> None:
    """Out of range is refused, never clamped; an unknown tier too."""
    with pytest.raises(InvalidRequest) as refused:
        read_single(message.SerializeToString(), b"")
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_rollback_needs_a_state_to_go_to() -> None:
    """Refused at acceptance with the reason that the trainer would give."""
    snapshot = replace(first_snapshot(), restore_points=(POINT,))
    busy = replace(snapshot, run=replace(snapshot.run, phase=TrainerPhase.CATCHING_UP, catch_up_step=200))
    cases = (
        (snapshot, RollbackCommand(global_step=50), ""),
        (snapshot, RollbackCommand(before_seed_id=1), ""),
        (snapshot, RollbackCommand(global_step=49), "ROLLBACK_TARGET"),
        (snapshot, RollbackCommand(checkpoint_id="other"), "CHECKPOINT_UNKNOWN"),
        (snapshot, RollbackCommand(before_seed_id=7), ""),
        (first_snapshot(), RollbackCommand(before_seed_id=7), "ROLLBACK_TARGET"),
        (busy, RollbackCommand(global_step=50), ""),
        (busy, RollbackCommand(global_step=49), "RUN_CATCHING_UP"),
        (busy, CheckpointCommand(), ""),
    )
    for state, payload, reason in cases:
        found = ""
        try:
            check_state(Asked("r", payload), state, 1.8e9, is_seed_busy=False)
        except EsperdError as refused:
            found = refused.reason
        assert found == reason, payload


def test_a_rollback_beyond_what_is_shown_is_left_to_the_trainer() -> None:
    """Of very many states the snapshot names the newest only: an older one is not refused at acceptance."""
    many = tuple(replace(POINT, global_step=step, checkpoint_id=f"c{step}") for step in range(100, 100 + MAX_SHOWN))
    for payload in (RollbackCommand(checkpoint_id="c9"), RollbackCommand(global_step=9)):
        check_state(Asked("r", payload), replace(first_snapshot(), restore_points=many), 1.8e9, is_seed_busy=False)


def test_a_rollback_at_a_later_step_is_left_to_the_trainer() -> None:
    """Which states there will be then, nobody knows at acceptance."""
    later = Asked("r", RollbackCommand(global_step=49), apply_at=ApplyAt(global_step=900))
    check_state(later, first_snapshot(), 1.8e9, is_seed_busy=False)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (TrainerPhase.STARTING, "RUN_STARTING"),
        (TrainerPhase.CATCHING_UP, "RUN_CATCHING_UP"),
        (TrainerPhase.TRAINING, "SEED_UNKNOWN"),
    ],
)
def test_what_is_not_there_yet_is_not_called_unknown(phase: TrainerPhase, reason: str) -> None:
    """After a restart the state is that of an earlier step: what a command names may still come, so it is to wait."""
    snapshot = first_snapshot()
    early = replace(snapshot, run=replace(snapshot.run, phase=phase))
    with pytest.raises(EsperdError) as refused:
        check_state(Asked("r", SeedCommand(Operation.CULL, seed_id=9)), early, 1.8e9, is_seed_busy=False)
    assert refused.value.reason == reason
