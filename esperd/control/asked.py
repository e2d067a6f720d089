"""From the wire to values: what a client asks for.

Pure. Together with `shown.py` and the servicers the only place of the daemon that touches protobuf messages. What comes
in keeps the rules of the contract (`validation.py`); here is what they cannot say, or only at a price that every single
command would pay. Whether the run's state allows what comes out is somebody else's question.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from esper.leyline.v1 import command_pb2, emergency_service_pb2, field_report_pb2, vocabulary_pb2

from esperd.control.errors import Violation
from esperd.leyline.commands import (
    AlphaSchedule,
    ApplyAt,
    BreakerCommand,
    CheckpointCommand,
    Command,
    HyperparameterCommand,
    KernelSwapCommand,
    PauseCommand,
    Payload,
    ResetOptimizerCommand,
    ResumeCommand,
    RollbackCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.vocabulary import (
    AlphaCurve,
    BlendMode,
    BreakerState,
    EmergencyLevel,
    FieldReportOutcome,
    Isolation,
    Operation,
    RollbackTier,
    Stage,
    TrainingMode,
)

DEFAULT_ACKNOWLEDGE_MS = 2000
_NUM_NANOS = 1_000_000_000

_AT_ONCE = ApplyAt()
_NO_ALPHA = AlphaSchedule()
_TYPE_OF_PAYLOAD = {
    "seed_operation": command_pb2.COMMAND_TYPE_SEED,
    "optimizer_adjustment": command_pb2.COMMAND_TYPE_OPTIMIZER,
    "circuit_breaker": command_pb2.COMMAND_TYPE_CIRCUIT_BREAKER,
    "run_control": command_pb2.COMMAND_TYPE_PAUSE,
    "checkpoint": command_pb2.COMMAND_TYPE_CHECKPOINT,
    "rollback": command_pb2.COMMAND_TYPE_ROLLBACK,
    "kernel_swap": command_pb2.COMMAND_TYPE_KERNEL_SWAP,
}
_KINDS: dict[type[Payload], str] = {
    SeedCommand: "seed",
    HyperparameterCommand: "optimizer",
    ResetOptimizerCommand: "optimizer",
    BreakerCommand: "breaker",
    PauseCommand: "pause",
    ResumeCommand: "resume",
    StopCommand: "stop",
    CheckpointCommand: "checkpoint",
    RollbackCommand: "rollback",
    KernelSwapCommand: "kernel",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One command as a client asked for it, well formed."""

    request_id: str
    payload: Payload
    reason: str = ""
    expected_revision: int = 0
    apply_at: ApplyAt = _AT_ONCE
    expire_time_unix_s: float = 0.0
    validate_only: bool = False
    decision_id: str = ""

    @property
    def kind(self) -> str:
        """The kind's name in the journal."""
        return _KINDS[type(self.payload)]

    @property
    def seed_id(self) -> int:
        """The seed that it names, 0 if none."""
        payload = self.payload
        if isinstance(payload, SeedCommand | HyperparameterCommand | ResetOptimizerCommand | KernelSwapCommand):
            return payload.seed_id
        return 0

    def as_command(self, command_id: str, principal: str, decision_id: str) -> Command:
        """What the trainer is told, under the id that the daemon has given it and the decision that it answers."""
        return Command(
            command_id,
            self.payload,
            principal,
            self.reason,
            self.expected_revision,
            self.apply_at,
            self.expire_time_unix_s,
            decision_id,
        )


def read_command(message: command_pb2.AdaptationCommand, default_request_id: str = "") -> Asked:
    """Read one command.

    Args:
        message: one that keeps the rules of the contract and agrees with itself, or did so when it was accepted.
        default_request_id: stands in for an empty request id.

    Raises:
        ValueError: it can be no accepted command: it asks for nothing, or for what this daemon does not know.
    """
    expire_time = message.expire_time
    return Asked(
        message.request_id or default_request_id,
        _payload(message),
        message.reason,
        message.expected_revision,
        _apply_at(message) if message.HasField("apply_at") else _AT_ONCE,
        expire_time.seconds + expire_time.nanos * 1e-9 if message.HasField("expire_time") else 0.0,
        message.validate_only,
        message.decision_id,
    )


def disagreements(
    message: command_pb2.AdaptationCommand, prefix: str = "", *, needs_request_id: bool = True
) -> Iterator[Violation]:
    """What is wrong between the fields of a command, which as CEL in the contract would cost every command dear.

    Args:
        message: a command that may break other rules too.
        prefix: path of the message in its request.
        needs_request_id: False where the daemon gives a command without a request id one.
    """
    if needs_request_id and not message.request_id:
        yield Violation(prefix + "request_id", "is required")
    if not 0 <= message.expire_time.nanos < _NUM_NANOS:
        yield Violation(prefix + "expire_time", f"has {message.expire_time.nanos} nanoseconds")
    which = message.WhichOneof("payload")
    if message.command_type and which is not None and message.command_type != _TYPE_OF_PAYLOAD[which]:
        rule = f"{message.command_type} does not agree with the payload {which}"
        yield Violation(prefix + "command_type", rule)
    target_rule = _target_rule(message)
    if target_rule:
        yield Violation(prefix + "target_seed_id", target_rule)
    if which == "optimizer_adjustment":
        is_reset = message.optimizer_adjustment.action == command_pb2.OPTIMIZER_ACTION_RESET_STATE
        if is_reset == bool(message.optimizer_adjustment.hyperparameters):
            rule = "must be empty: RESET_STATE sets none" if is_reset else "is required"
            yield Violation(prefix + "optimizer_adjustment.hyperparameters", rule)


def _target_rule(message: command_pb2.AdaptationCommand) -> str:
    """The rule that the target breaks, empty when it breaks none."""
    target = message.target_seed_id
    if message.HasField("kernel_swap"):
        return "" if target else "is required"
    if not message.HasField("seed_operation"):
        return "must be empty: only seed operations and kernel swaps name a seed" if target else ""
    match message.seed_operation.operation:
        case vocabulary_pb2.SEED_OPERATION_UNKNOWN:
            return ""  # itself a fault
        case vocabulary_pb2.SEED_OPERATION_GERMINATE:
            return "must be empty: GERMINATE makes a new seed" if target else ""
    return "" if target else "is required"


def _payload(message: command_pb2.AdaptationCommand) -> Payload:
    match message.WhichOneof("payload"):
        case "seed_operation":
            return _seed_command(message.seed_operation, message.target_seed_id)
        case "optimizer_adjustment":
            return _optimizer_command(message.optimizer_adjustment)
        case "circuit_breaker":
            return BreakerCommand(message.circuit_breaker.name, BreakerState(message.circuit_breaker.desired_state))
        case "checkpoint":
            return CheckpointCommand(message.checkpoint.note)
        case "rollback":
            return _rollback_command(message.rollback)
        case "kernel_swap":
            return KernelSwapCommand(int(message.target_seed_id), message.kernel_swap.artifact_id)
        case "run_control":
            return _run_command(message.run_control)
    raise ValueError("it asks for nothing")


def _seed_command(message: command_pb2.CommandSeedOperation, target: str) -> SeedCommand:
    until = Stage(message.auto_advance_until)
    return SeedCommand(
        operation=Operation(message.operation),
        site=message.site,
        seed_id=int(target or 0),
        blueprint_id=message.blueprint_id,
        parameters=dict(message.parameters),
        alpha=_alpha(message.alpha) if message.HasField("alpha") else None,
        blend_mode=BlendMode(message.blend_mode),
        training_mode=TrainingMode(message.training_mode),
        isolation=Isolation(message.isolation),
        auto_advance=message.auto_advance,
        auto_advance_until="" if until is Stage.UNKNOWN else until.name,
    )


def _alpha(message: command_pb2.AlphaSchedule) -> AlphaSchedule:
    steepness = message.steepness or _NO_ALPHA.steepness
    return AlphaSchedule(AlphaCurve(message.curve), message.num_steps, message.target, steepness)


def _optimizer_command(
    message: command_pb2.CommandOptimizerAdjustment,
) -> HyperparameterCommand | ResetOptimizerCommand:
    target, _, number = message.optimizer_id.partition(":")
    seed_id = int(number or 0)
    if message.action == command_pb2.OPTIMIZER_ACTION_RESET_STATE:
        return ResetOptimizerCommand(target, seed_id)
    return HyperparameterCommand(target, dict(message.hyperparameters), seed_id)


def _rollback_command(message: command_pb2.CommandRollback) -> RollbackCommand:
    tier = RollbackTier(message.tier)
    match message.WhichOneof("target"):
        case "checkpoint_id":
            return RollbackCommand(checkpoint_id=message.checkpoint_id, tier=tier)
        case "global_step":
            return RollbackCommand(global_step=message.global_step, tier=tier)
        case "before_seed_id":
            return RollbackCommand(before_seed_id=int(message.before_seed_id), tier=tier)
    raise ValueError("it names no state to go back to")


def _run_command(message: command_pb2.CommandRunControl) -> PauseCommand | ResumeCommand | StopCommand:
    match message.action:
        case command_pb2.RUN_ACTION_PAUSE:
            return PauseCommand()
        case command_pb2.RUN_ACTION_RESUME:
            return ResumeCommand()
        case command_pb2.RUN_ACTION_STOP:
            return StopCommand()
    raise ValueError(f"{message.action} is no action that this daemon knows")


def _apply_at(message: command_pb2.AdaptationCommand) -> ApplyAt:
    return ApplyAt(message.apply_at.global_step, message.apply_at.epoch_boundary)


@dataclass(frozen=True, slots=True)
class AskedEmergency:
    """An emergency as a client raised it."""

    request_id: str
    level: EmergencyLevel
    reason: str
    origin: str
    acknowledge_within_s: float


def read_emergency(message: emergency_service_pb2.EmergencySignal) -> AskedEmergency:
    """Read an emergency that keeps its rules. Raises ValueError when it can be none that was accepted."""
    level = EmergencyLevel(message.level)
    if level is EmergencyLevel.UNSPECIFIED:
        raise ValueError("it has no level")
    wait_ms = message.acknowledge_within_ms or DEFAULT_ACKNOWLEDGE_MS
    return AskedEmergency(message.request_id, level, message.reason, message.origin, wait_ms / 1e3)


@dataclass(frozen=True, slots=True)
class AskedReport:
    """A field report as a policy files it."""

    report_id: str
    command_id: str
    seed_id: int
    outcome: FieldReportOutcome


def read_report(message: field_report_pb2.FieldReport) -> AskedReport:
    """Read a field report that keeps its rules."""
    outcome = FieldReportOutcome(message.outcome)
    return AskedReport(message.report_id, message.command_id, int(message.seed_id or 0), outcome)
