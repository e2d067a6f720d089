"""From the wire to values: what a client asks for, checked field by field (design 01, check 11).

Pure. Together with `shown.py` and the servicers the only place of the daemon that touches protobuf messages. What comes
out needs no further check of form; whether the run's state allows it is somebody else's question.
"""

from dataclasses import dataclass

from esper.leyline.v1 import command_pb2, emergency_service_pb2, field_report_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from esperd.control.errors import InvalidRequest, Violation
from esperd.control.rules import MAX_ID_BYTES, MAX_NAME_BYTES, MAX_REASON_BYTES, Rules
from esperd.leyline.commands import (
    AlphaSchedule,
    ApplyAt,
    BreakerCommand,
    CheckpointCommand,
    Command,
    HyperparameterCommand,
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
MAX_ACKNOWLEDGE_MS = 60_000
MAX_ALPHA_STEPS = 1_000_000
MAX_RISK_VERDICTS = 64
MAX_NOTES_BYTES = 4096
MAX_STEP = 2**63 - 1
MAX_FOLLOW_UPS = 16

_AT_ONCE = ApplyAt()
_TYPE_OF_PAYLOAD = {
    "seed_operation": command_pb2.COMMAND_TYPE_SEED,
    "optimizer_adjustment": command_pb2.COMMAND_TYPE_OPTIMIZER,
    "circuit_breaker": command_pb2.COMMAND_TYPE_CIRCUIT_BREAKER,
    "run_control": command_pb2.COMMAND_TYPE_PAUSE,
    "checkpoint": command_pb2.COMMAND_TYPE_CHECKPOINT,
    "rollback": command_pb2.COMMAND_TYPE_ROLLBACK,
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
}
_FOLLOW_UPS = ("CONSERVATIVE_MODE", "ROLLBACK_REQUEST")
_FIRST_AUTO_STAGE, _LAST_AUTO_STAGE = Stage.TRAINING, Stage.FOSSILIZED


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
        if isinstance(payload, SeedCommand | HyperparameterCommand | ResetOptimizerCommand):
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


def read_command(message: command_pb2.AdaptationCommand, prefix: str = "", default_request_id: str = "") -> Asked:
    """Read one command.

    Args:
        message: as parsed from the signed bytes.
        prefix: path of the message in its request, for the report of broken rules.
        default_request_id: stands in for an empty request id; empty where the client must give one.

    Raises:
        InvalidRequest: COMMAND_INVALID, with every broken rule.
    """
    rules = Rules(prefix)
    request_id = message.request_id or default_request_id
    rules.need(message.version in (0, 1), "version", "this daemon knows version 1")
    rules.empty("command_id", message.command_id, "the daemon gives it")
    rules.text("request_id", request_id, MAX_ID_BYTES, required=True)
    rules.text("reason", message.reason, MAX_REASON_BYTES)
    rules.text("decision_id", message.decision_id, MAX_ID_BYTES)
    payload = _payload(rules, message)
    apply_at = _apply_at(message) if message.HasField("apply_at") else _AT_ONCE
    expire_s = _time(rules, "expire_time", message.expire_time) if message.HasField("expire_time") else 0.0
    _check_risk(rules, message)
    rules.check()
    assert payload is not None  # rules.check has raised otherwise
    return Asked(
        request_id,
        payload,
        message.reason,
        message.expected_revision,
        apply_at,
        expire_s,
        message.validate_only,
        message.decision_id,
    )


def _payload(rules: Rules, message: command_pb2.AdaptationCommand) -> Payload | None:
    which = message.WhichOneof("payload")
    if which is None:
        rules.refuse("payload", "is required")
        return None
    stated = message.command_type
    if stated and stated != _TYPE_OF_PAYLOAD[which]:
        rules.refuse("command_type", f"{stated} does not agree with the payload {which}")
    if which == "seed_operation":
        return _seed_command(rules, message.seed_operation, message.target_seed_id)
    rules.empty("target_seed_id", message.target_seed_id, "only seed operations name a seed")
    if which == "optimizer_adjustment":
        return _optimizer_command(rules, message.optimizer_adjustment)
    if which == "circuit_breaker":
        return _breaker_command(rules, message.circuit_breaker)
    if which == "checkpoint":
        rules.text("checkpoint.note", message.checkpoint.note, MAX_REASON_BYTES)
        return CheckpointCommand(message.checkpoint.note)
    if which == "rollback":
        return _rollback_command(rules, message.rollback)
    return _run_command(rules, message.run_control)


def _seed_command(rules: Rules, message: command_pb2.CommandSeedOperation, target: str) -> SeedCommand:
    operation = rules.choice("seed_operation.operation", message.operation, Operation, required=True)
    seed_id = 0
    if operation is Operation.GERMINATE:
        rules.empty("target_seed_id", target, "GERMINATE makes a new seed")
        rules.text("seed_operation.site", message.site, MAX_NAME_BYTES, required=True)
        rules.text("seed_operation.blueprint_id", message.blueprint_id, MAX_ID_BYTES, required=True)
        rules.numbers("seed_operation.parameters", message.parameters)
    else:
        seed_id = rules.seed_id("target_seed_id", target)
        rules.empty("seed_operation.site", message.site, "the seed has its site")
        rules.empty("seed_operation.blueprint_id", message.blueprint_id, "the seed has its blueprint")
        rules.empty("seed_operation.parameters", message.parameters, "the seed has its parameters")
    return SeedCommand(
        operation=operation,
        site=message.site,
        seed_id=seed_id,
        blueprint_id=message.blueprint_id,
        parameters=dict(message.parameters),
        alpha=_alpha(rules, message, operation),
        blend_mode=rules.choice("seed_operation.blend_mode", message.blend_mode, BlendMode),
        training_mode=rules.choice("seed_operation.training_mode", message.training_mode, TrainingMode),
        isolation=rules.choice("seed_operation.isolation", message.isolation, Isolation),
        auto_advance=message.auto_advance,
        auto_advance_until=_auto_advance_until(rules, message),
    )


def _alpha(rules: Rules, message: command_pb2.CommandSeedOperation, operation: Operation) -> AlphaSchedule | None:
    if not message.HasField("alpha"):
        rules.need(operation is not Operation.SET_ALPHA, "seed_operation.alpha", "is required")
        return None
    alpha = message.alpha
    curve = rules.choice("seed_operation.alpha.curve", alpha.curve, AlphaCurve)
    rules.number("seed_operation.alpha.num_steps", alpha.num_steps, 1, MAX_ALPHA_STEPS)
    rules.number("seed_operation.alpha.target", alpha.target, 0.0, 1.0)
    rules.number("seed_operation.alpha.steepness", alpha.steepness, 0.0, 1000.0)
    if operation is not Operation.SET_ALPHA:
        rules.need(alpha.target != 0.0, "seed_operation.alpha.target", "must be above 0")
    return AlphaSchedule(curve, alpha.num_steps, alpha.target, alpha.steepness or AlphaSchedule().steepness)


def _auto_advance_until(rules: Rules, message: command_pb2.CommandSeedOperation) -> str:
    field = "seed_operation.auto_advance_until"
    stage = rules.choice(field, message.auto_advance_until, Stage)
    if stage is Stage.UNKNOWN:
        return ""
    rules.need(message.auto_advance, field, "means nothing without auto_advance")
    rules.need(
        _FIRST_AUTO_STAGE <= stage <= _LAST_AUTO_STAGE,
        field,
        f"must lie between {_FIRST_AUTO_STAGE.name} and {_LAST_AUTO_STAGE.name}",
    )
    return stage.name


def _optimizer_command(
    rules: Rules, message: command_pb2.CommandOptimizerAdjustment
) -> HyperparameterCommand | ResetOptimizerCommand | None:
    target, _, number = message.optimizer_id.partition(":")
    seed_id = 0
    if target == "seed":
        seed_id = rules.seed_id("optimizer_adjustment.optimizer_id", number)
    elif message.optimizer_id not in ("host", "all"):
        rules.refuse("optimizer_adjustment.optimizer_id", "must be host, all or seed:<number>")
    values = message.hyperparameters
    if message.action == command_pb2.OPTIMIZER_ACTION_RESET_STATE:
        rules.empty("optimizer_adjustment.hyperparameters", values, "RESET_STATE sets none")
        return ResetOptimizerCommand(target, seed_id)
    known = (command_pb2.OPTIMIZER_ACTION_UNSPECIFIED, command_pb2.OPTIMIZER_ACTION_SET_HYPERPARAMETERS)
    rules.need(message.action in known, "optimizer_adjustment.action", "is not known to this daemon")
    rules.need(bool(values), "optimizer_adjustment.hyperparameters", "is required")
    rules.numbers("optimizer_adjustment.hyperparameters", values)
    return HyperparameterCommand(target, dict(values), seed_id)


def _breaker_command(rules: Rules, message: command_pb2.CommandCircuitBreaker) -> BreakerCommand:
    rules.text("circuit_breaker.name", message.name, MAX_ID_BYTES, required=True)
    rules.text("circuit_breaker.rationale", message.rationale, MAX_REASON_BYTES)
    state = rules.choice("circuit_breaker.desired_state", message.desired_state, BreakerState, required=True)
    return BreakerCommand(message.name, state)


def _rollback_command(rules: Rules, message: command_pb2.CommandRollback) -> RollbackCommand | None:
    tier = rules.choice("rollback.tier", message.tier, RollbackTier)
    match message.WhichOneof("target"):
        case "checkpoint_id":
            rules.text("rollback.checkpoint_id", message.checkpoint_id, MAX_ID_BYTES, required=True)
            return RollbackCommand(checkpoint_id=message.checkpoint_id, tier=tier)
        case "global_step":
            rules.need(message.global_step <= MAX_STEP, "rollback.global_step", "is beyond any run")
            return RollbackCommand(global_step=message.global_step, tier=tier)
        case "before_seed_id":
            seed_id = rules.seed_id("rollback.before_seed_id", message.before_seed_id)
            return RollbackCommand(before_seed_id=seed_id, tier=tier)
    rules.refuse("rollback.target", "is required: a checkpoint, a step, or a seed")
    return None


def _run_command(
    rules: Rules, message: command_pb2.CommandRunControl
) -> PauseCommand | ResumeCommand | StopCommand | None:
    match message.action:
        case command_pb2.RUN_ACTION_PAUSE:
            return PauseCommand()
        case command_pb2.RUN_ACTION_RESUME:
            return ResumeCommand()
        case command_pb2.RUN_ACTION_STOP:
            return StopCommand()
        case command_pb2.RUN_ACTION_UNSPECIFIED:
            rules.refuse("run_control.action", "is required")
        case _:
            rules.refuse("run_control.action", f"{message.action} is not known to this daemon")
    return None


def _apply_at(message: command_pb2.AdaptationCommand) -> ApplyAt:
    return ApplyAt(message.apply_at.global_step, message.apply_at.epoch_boundary)


def _time(rules: Rules, field: str, time: Timestamp) -> float:
    if time.seconds <= 0 or not 0 <= time.nanos < 1_000_000_000:
        rules.refuse(field, "is no time after 1970")
    return time.seconds + time.nanos * 1e-9


def _check_risk(rules: Rules, message: command_pb2.AdaptationCommand) -> None:
    verdicts = message.risk
    if not verdicts:
        return
    rules.need(len(verdicts) <= MAX_RISK_VERDICTS, "risk", f"has more than {MAX_RISK_VERDICTS} verdicts")
    for number, verdict in enumerate(verdicts[:MAX_RISK_VERDICTS]):
        rules.text(f"risk[{number}].rule", verdict.rule, MAX_ID_BYTES, required=True)
        rules.need(
            verdict.action in ("allow", "downgrade", "pause"),
            f"risk[{number}].action",
            "must be allow, downgrade or pause",
        )
        rules.numbers(f"risk[{number}]", {"value": verdict.value, "threshold": verdict.threshold})


@dataclass(frozen=True, slots=True)
class AskedEmergency:
    """An emergency as a client raised it."""

    request_id: str
    level: EmergencyLevel
    reason: str
    origin: str
    acknowledge_within_s: float


def read_emergency(message: emergency_service_pb2.EmergencySignal) -> AskedEmergency:
    """Read an emergency. Raises InvalidRequest."""
    rules = Rules()
    rules.need(message.version in (0, 1), "version", "this daemon knows version 1")
    level = rules.choice("level", message.level, EmergencyLevel, required=True)
    rules.text("reason", message.reason, MAX_REASON_BYTES, required=True)
    rules.text("origin", message.origin, MAX_ID_BYTES)
    rules.text("request_id", message.request_id, MAX_ID_BYTES, required=True)
    wait_ms = message.acknowledge_within_ms or DEFAULT_ACKNOWLEDGE_MS
    rules.number("acknowledge_within_ms", wait_ms, 1, MAX_ACKNOWLEDGE_MS)
    rules.check()
    return AskedEmergency(message.request_id, level, message.reason, message.origin, wait_ms / 1e3)


def check_named_request(request_id: str, reason: str, *, reason_required: bool = False) -> None:
    """The two fields that every other signed request has. Raises InvalidRequest."""
    rules = Rules()
    rules.text("request_id", request_id, MAX_ID_BYTES, required=True)
    rules.text("reason", reason, MAX_REASON_BYTES, required=reason_required)
    rules.check()


@dataclass(frozen=True, slots=True)
class AskedReport:
    """A field report as a policy files it."""

    report_id: str
    command_id: str
    seed_id: int
    outcome: FieldReportOutcome


def read_report(message: field_report_pb2.FieldReport) -> AskedReport:
    """Read a field report. Raises InvalidRequest with REPORT_INVALID."""
    rules = Rules(reason="REPORT_INVALID")
    rules.need(message.version in (0, 1), "version", "this daemon knows version 1")
    rules.text("report_id", message.report_id, MAX_ID_BYTES, required=True)
    rules.text("command_id", message.command_id, MAX_ID_BYTES)
    rules.text("blueprint_id", message.blueprint_id, MAX_ID_BYTES)
    rules.text("notes", message.notes, MAX_NOTES_BYTES)
    seed_id = rules.seed_id("seed_id", message.seed_id) if message.seed_id else 0
    outcome = rules.choice("outcome", message.outcome, FieldReportOutcome, required=True)
    rules.numbers("metrics", message.metrics)
    rules.number("propensity", message.propensity, 0.0, 1.0)
    rules.need(len(message.follow_up_actions) <= MAX_FOLLOW_UPS, "follow_up_actions", "are too many")
    for number, action in enumerate(message.follow_up_actions[:MAX_FOLLOW_UPS]):
        field = f"follow_up_actions[{number}]"
        rules.need(action.action_type in _FOLLOW_UPS, f"{field}.action_type", f"must be {' or '.join(_FOLLOW_UPS)}")
        rules.text(f"{field}.rationale", action.rationale, MAX_REASON_BYTES)
    rules.check()
    return AskedReport(message.report_id, message.command_id, seed_id, outcome)


def unreadable(what: str) -> InvalidRequest:
    """The refusal of a payload that is not a message of its type."""
    return InvalidRequest([Violation("payload", f"is not a serialized {what}")])
