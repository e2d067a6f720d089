"""Whether the state of the run allows a command, as far as a snapshot can tell (design 01, checks 14 and 15).

Pure. The trainer decides again, at the safe point, with the state as it is then; what is refused here would be refused
there, or names something that does not exist. What may have changed by then is left to the trainer.
"""

from esperd.control.asked import Asked
from esperd.kasmina.lifecycle import check_operation
from esperd.leyline.commands import (
    ApplyAt,
    BreakerCommand,
    HyperparameterCommand,
    KernelSwapCommand,
    ResetOptimizerCommand,
    RollbackCommand,
    SeedCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import are_all_shown, choose
from esperd.leyline.views import SeedView, Snapshot
from esperd.leyline.vocabulary import Operation, TrainerPhase

_AT_ONCE = ApplyAt()


def check_revision(asked: Asked, snapshot: Snapshot) -> None:
    """Raise STATE_CHANGED when the command was decided on another revision."""
    if asked.expected_revision not in (0, snapshot.revision):
        raise EsperdError("STATE_CHANGED", revision=snapshot.revision, expected=asked.expected_revision)


def check_state(asked: Asked, snapshot: Snapshot, now_unix_s: float, *, is_seed_busy: bool) -> None:
    """Refuse what cannot take effect.

    Args:
        asked: the command.
        snapshot: the newest state.
        now_unix_s: wall time.
        is_seed_busy: whether a command about the same seed still waits; then its stage is not known.

    Raises:
        EsperdError: with the reason that the trainer would give; RUN_STARTING or RUN_CATCHING_UP while the state is not
            yet the one that the command will meet.
    """
    if 0.0 < asked.expire_time_unix_s <= now_unix_s:
        raise EsperdError("COMMAND_EXPIRED")
    try:
        _check_payload(asked, snapshot, is_seed_busy=is_seed_busy)
    except EsperdError as refusal:
        run = snapshot.run
        if run.phase is TrainerPhase.STARTING:
            raise EsperdError("RUN_STARTING") from refusal
        if run.phase is TrainerPhase.CATCHING_UP:
            raise EsperdError("RUN_CATCHING_UP", step=run.global_step, until=run.catch_up_step) from refusal
        raise


def _check_payload(asked: Asked, snapshot: Snapshot, *, is_seed_busy: bool) -> None:
    payload = asked.payload
    if isinstance(payload, SeedCommand):
        _check_seed_command(payload, snapshot, stage_is_known=asked.apply_at == _AT_ONCE and not is_seed_busy)
    elif isinstance(payload, HyperparameterCommand | ResetOptimizerCommand):
        if payload.seed_id and _find(snapshot, payload.seed_id) is None:
            raise EsperdError("OPTIMIZER_TARGET", target=f"seed:{payload.seed_id}")
    elif isinstance(payload, KernelSwapCommand):
        if _find(snapshot, payload.seed_id) is None:
            raise EsperdError("SEED_UNKNOWN", seed_id=payload.seed_id)
    elif isinstance(payload, RollbackCommand) and asked.apply_at == _AT_ONCE and are_all_shown(snapshot):
        # Which states there are at a later step nobody knows yet, and of very many only the trainer knows them all.
        choose(payload, snapshot)
    elif isinstance(payload, BreakerCommand) and all(found.name != payload.name for found in snapshot.breakers):
        raise EsperdError("BREAKER_UNKNOWN", name=payload.name)


def _check_seed_command(command: SeedCommand, snapshot: Snapshot, *, stage_is_known: bool) -> None:
    if command.operation is Operation.GERMINATE:
        if all(found.site != command.site for found in snapshot.sites):
            raise EsperdError("SITE_UNKNOWN", site=command.site)
        return
    seed = _find(snapshot, command.seed_id)
    if seed is None:
        raise EsperdError("SEED_UNKNOWN", seed_id=command.seed_id)
    if stage_is_known:
        story = [f"{gate.gate.name} {gate.verdict.name} at step {gate.global_step}" for gate in seed.gates]
        check_operation(seed.stage, command.operation, seed_id=seed.seed_id, story=story)


def _find(snapshot: Snapshot, seed_id: int) -> SeedView | None:
    return next((found for found in snapshot.seeds if found.seed_id == seed_id), None)
