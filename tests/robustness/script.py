"""The scripted run of the crash matrix: every kind of command once at least, each at a step of its own.

The run stands still at the end of each act, so that a command which names a seed is sent when the seed is there, and
those without a step of their own (emergencies, cancellations, resuming) meet the same state in every performance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from esper.leyline.v1.command_pb2 import (
    OPTIMIZER_ACTION_RESET_STATE,
    OPTIMIZER_ACTION_SET_HYPERPARAMETERS,
    RUN_ACTION_PAUSE,
    RUN_ACTION_RESUME,
    RUN_ACTION_STOP,
    AdaptationCommand,
    AlphaSchedule,
    ApplyAt,
    CommandCheckpoint,
    CommandCircuitBreaker,
    CommandOptimizerAdjustment,
    CommandRollback,
    CommandRunControl,
    CommandSeedOperation,
    RunAction,
)
from esper.leyline.v1.vocabulary_pb2 import (
    ALPHA_CURVE_LINEAR,
    CIRCUIT_BREAKER_STATE_CLOSED,
    CIRCUIT_BREAKER_STATE_OPEN,
    ROLLBACK_TIER_FAST,
    ROLLBACK_TIER_FULL,
    SEED_OPERATION_CANCEL,
    SEED_OPERATION_CULL,
    SEED_OPERATION_EVALUATE,
    SEED_OPERATION_FINE_TUNE,
    SEED_OPERATION_FOSSILIZE,
    SEED_OPERATION_GERMINATE,
    SEED_OPERATION_SET_ALPHA,
    SEED_OPERATION_STABILIZE,
    SEED_OPERATION_START_GRAFTING,
    SEED_OPERATION_START_TRAINING,
    SEED_STAGE_TRAINING,
    CircuitBreakerState,
    SeedOperation,
)

OVERRIDES = (
    "training.device=cpu",
    "training.deterministic=true",
    "run.start_paused=true",
    "run.random_seed=5",
    "growth.sites=['0', '4']",
    "growth.min_training_steps=20",
    "growth.alpha_steps=12",
    "growth.seed_warmup_steps=5",
    "growth.embargo_steps=8",
    "growth.probe_budget=1.0",
    "growth.probe_every_steps=2",
    "growth.probe_units=64",
    "growth.max_probe_units=256",
    "growth.max_parameter_ratio=1000.0",
    "growth.max_seed_flops_ratio=1000.0",
    "growth.max_step_time_ratio=1000000.0",
    "growth.max_output_ratio=10.0",
    "growth.wanted_gain_ratio=0.0",
    "growth.non_inferiority_ratio=5.0",
    "growth.rent=0.0",
    "growth.error_level=0.45",
    "growth.isolation_check_every_steps=25",
    "checkpoints.every_steps=40",
    "checkpoints.keep=8",
    "checkpoints.snapshot_every_steps=10",
    "checkpoints.snapshots=4",
    "checkpoints.good_after_steps=5",
)
"""Gates that let nearly everything through, and checkpoints in quick succession."""


@dataclass(slots=True)
class Known:
    """What the performance has brought about so far."""

    seed_ids: dict[str, str] = field(default_factory=dict)
    """By the label of the germination."""
    command_ids: dict[str, str] = field(default_factory=dict)
    """By label."""
    checkpoint_ids: dict[int, str] = field(default_factory=dict)
    """By step."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the script; its label is its request id and its reason."""

    label: str
    kind: str
    """Which kind of command it is, for the matrix."""
    message: Callable[[Known], AdaptationCommand]
    is_awaited: bool = False
    """Its outcome is waited for before the next one is sent: it has no step of its own."""


@dataclass(frozen=True, slots=True)
class RaiseAsk:
    """Raise an emergency."""

    label: str
    level: int
    kind: str = "emergency"


@dataclass(frozen=True, slots=True)
class ClearAsk:
    """Clear the emergency that `raised` raised."""

    label: str
    raised: str
    kind: str = "clear_emergency"


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """Take back the command with label `target`."""

    label: str
    target: str
    kind: str = "cancel_command"


Request = Ask | RaiseAsk | ClearAsk | CancelAsk


def _asked(label: str, kind: str, step: int, **payload: object) -> Ask:
    return Ask(label, kind, lambda _: _message(label, step, **payload))


def _message(label: str, step: int, **payload: object) -> AdaptationCommand:
    command = AdaptationCommand(request_id=label, reason=label, **payload)  # type: ignore[arg-type]  # a oneof by name
    if step:
        command.apply_at.CopyFrom(ApplyAt(global_step=step))
    return command


def _germinate(label: str, step: int, site: str, blueprint_id: str, **more: object) -> Ask:
    operation = CommandSeedOperation(
        operation=SEED_OPERATION_GERMINATE, site=site, blueprint_id=blueprint_id, **more  # type: ignore[arg-type]
    )  # fmt: skip
    return _asked(label, "germinate", step, seed_operation=operation)


def _seed(label: str, kind: str, step: int, germination: str, operation: SeedOperation, **more: object) -> Ask:
    return Ask(label, kind, lambda known: seed_message(label, known.seed_ids[germination], operation, step, **more))


def seed_message(
    label: str, seed_id: str, operation: SeedOperation, step: int = 0, **more: object
) -> AdaptationCommand:
    """A command about one seed; `more` are fields of the operation."""
    asked = CommandSeedOperation(operation=operation, **more)  # type: ignore[arg-type]  # its fields by name
    return _message(label, step, target_seed_id=seed_id, seed_operation=asked)


def _rate(label: str, kind: str, step: int, target: Callable[[Known], str], rate: float) -> Ask:
    def message(known: Known) -> AdaptationCommand:
        adjustment = CommandOptimizerAdjustment(
            optimizer_id=target(known),
            hyperparameters={"lr": rate},
            action=OPTIMIZER_ACTION_SET_HYPERPARAMETERS,
        )
        return _message(label, step, optimizer_adjustment=adjustment)

    return Ask(label, kind, message)


def _now(label: str, rate: float) -> Ask:
    """Change the host's rate while the run stands still."""
    asked = _rate(label, "lr_host", 0, lambda _: "host", rate)
    return replace(asked, is_awaited=True)


def _reset(label: str, step: int, target: str) -> Ask:
    adjustment = CommandOptimizerAdjustment(optimizer_id=target, action=OPTIMIZER_ACTION_RESET_STATE)
    return _asked(label, "reset_optimizer", step, optimizer_adjustment=adjustment)


def _run(label: str, kind: str, step: int, action: RunAction) -> Ask:
    return _asked(label, kind, step, run_control=CommandRunControl(action=action))


def _breaker(label: str, step: int, state: CircuitBreakerState) -> Ask:
    return _asked(label, "breaker", step, circuit_breaker=CommandCircuitBreaker(name="isolation", desired_state=state))


def _checkpoint(label: str, step: int) -> Ask:
    return _asked(label, "checkpoint", step, checkpoint=CommandCheckpoint(note=label))


def _resume(number: int) -> Ask:
    label = f"resume-{number}"
    return Ask(label, "resume", lambda _: _message(label, 0, run_control=CommandRunControl(action=RUN_ACTION_RESUME)),
               is_awaited=True)  # fmt: skip


def _rollback(label: str, kind: str, step: int, target: Callable[[Known], CommandRollback]) -> Ask:
    return Ask(label, kind, lambda known: _message(label, step, rollback=target(known)))


_ALPHA = AlphaSchedule(curve=ALPHA_CURVE_LINEAR, num_steps=4, target=0.7)

ACTS: tuple[tuple[Request, ...], ...] = (
    (
        _rate("rate-never", "lr_host", 5000, lambda _: "host", 0.5),
        CancelAsk("take-back", "rate-never"),
        _rate("rate-host", "lr_host", 5, lambda _: "host", 0.02),
        _germinate("germinate-1", 8, "0", "residual_mlp"),
        _germinate("germinate-2", 9, "4", "residual_linear"),
        _germinate("germinate-3", 10, "4", "residual_mlp", auto_advance=True, auto_advance_until=SEED_STAGE_TRAINING),
        _run("pause-1", "pause", 14, RUN_ACTION_PAUSE),
        _resume(1),
    ),
    (
        _seed("train-1", "start_training", 16, "germinate-1", SEED_OPERATION_START_TRAINING),
        _seed("train-2", "start_training", 17, "germinate-2", SEED_OPERATION_START_TRAINING),
        _rate("rate-seed", "lr_seed", 20, lambda known: f"seed:{known.seed_ids['germinate-1']}", 0.02),
        _rate("rate-all", "lr_all", 24, lambda _: "all", 0.015),
        _seed("graft-early", "start_grafting", 30, "germinate-1", SEED_OPERATION_START_GRAFTING),
        _seed("cancel-3", "cancel_seed", 34, "germinate-3", SEED_OPERATION_CANCEL),
        _seed("graft-1", "start_grafting", 50, "germinate-1", SEED_OPERATION_START_GRAFTING),
        _reset("reset-host", 52, "host"),
        _seed("alpha-1", "set_alpha", 64, "germinate-1", SEED_OPERATION_SET_ALPHA, alpha=_ALPHA),
        _rollback("back-to-step", "rollback_step", 70,
                  lambda _: CommandRollback(global_step=66, tier=ROLLBACK_TIER_FAST)),
        _seed("stabilize-1", "stabilize", 72, "germinate-1", SEED_OPERATION_STABILIZE),
        _seed("evaluate-1", "evaluate", 76, "germinate-1", SEED_OPERATION_EVALUATE),
        _run("pause-2", "pause", 78, RUN_ACTION_PAUSE),
        _resume(2),
    ),
    (
        RaiseAsk("halt", 4),
        ClearAsk("go-on", "halt"),
        _seed("fine-tune-1", "fine_tune", 80, "germinate-1", SEED_OPERATION_FINE_TUNE),
        _checkpoint("keep-this", 82),
        _seed("graft-2", "start_grafting", 86, "germinate-2", SEED_OPERATION_START_GRAFTING),
        _seed("fossilize-1", "fossilize", 92, "germinate-1", SEED_OPERATION_FOSSILIZE),
        _seed("cull-2", "cull", 96, "germinate-2", SEED_OPERATION_CULL),
        _germinate("germinate-4", 98, "0", "residual_linear"),
        _run("pause-3", "pause", 100, RUN_ACTION_PAUSE),
        _resume(3),
    ),
    (
        _rollback("back-to-checkpoint", "rollback_checkpoint", 104,
                  lambda known: CommandRollback(checkpoint_id=known.checkpoint_ids[82], tier=ROLLBACK_TIER_FULL)),
        _seed("fossilize-again", "fossilize", 108, "germinate-1", SEED_OPERATION_FOSSILIZE),
        _germinate("germinate-5", 112, "0", "residual_linear"),
        _run("pause-4", "pause", 116, RUN_ACTION_PAUSE),
        _resume(4),
    ),
    (
        _rollback("back-before-seed", "rollback_seed", 122,
                  lambda known: CommandRollback(before_seed_id=known.seed_ids["germinate-5"])),
        _germinate("germinate-6", 124, "4", "residual_mlp"),
        _run("pause-5", "pause", 126, RUN_ACTION_PAUSE),
        _resume(5),
    ),
    (
        _seed("train-6", "start_training", 128, "germinate-6", SEED_OPERATION_START_TRAINING),
        _seed("graft-6", "start_grafting", 150, "germinate-6", SEED_OPERATION_START_GRAFTING),
        _breaker("open", 154, CIRCUIT_BREAKER_STATE_OPEN),
        _breaker("close", 158, CIRCUIT_BREAKER_STATE_CLOSED),
        _checkpoint("keep-that", 160),
        _seed("cull-6", "cull", 162, "germinate-6", SEED_OPERATION_CULL),
        _run("pause-6", "pause", 170, RUN_ACTION_PAUSE),
        _resume(6),
    ),
    (
        _now("rate-now", 0.005),
        _rate("rate-later", "lr_host", 174, lambda _: "host", 0.01),
        _rollback("back-to-the-pause", "rollback_step", 178, lambda _: CommandRollback(global_step=170)),
        _run("stop", "stop", 190, RUN_ACTION_STOP),
        _resume(7),
    ),
)  # fmt: skip
"""What is asked while the run stands still; the last request of each act lets it go on."""

REQUESTS: Mapping[str, Request] = {request.label: request for act in ACTS for request in act}
"""Every request by its label."""


def pause_after(act: int) -> str:
    """The label of the pause with which an act ends; empty for the last one, which ends the run."""
    return next((request.label for request in ACTS[act] if request.kind == "pause"), "")
