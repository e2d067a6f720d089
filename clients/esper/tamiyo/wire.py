"""Translates a decision into the commands that are sent.

Policy process. The request id of a command is made from the decision's id and its place in it, so that sending a
decision again can never do a thing twice.
"""

from collections.abc import Sequence

from esper.leyline.v1 import command_pb2, field_report_pb2, vocabulary_pb2
from esper.tamiyo.decision import (
    Cull,
    Germinate,
    PauseRun,
    PolicyCommand,
    SetSeedLearningRate,
    StartGrafting,
    Withdraw,
)
from esper.tamiyo.field_reports import Report
from esper.tamiyo.observation import Attempt, Observation
from esper.tamiyo.risk import Verdict

MAX_REASON_BYTES = 1024


def short(text: str) -> str:
    """The text as far as the daemon takes reasons and rationales."""
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def to_commands(
    decision_id: str, prefix: str, commands: Sequence[PolicyCommand], verdicts: Sequence[Verdict]
) -> list[command_pb2.AdaptationCommand]:
    """The commands of a decision, each with every verdict of the risk engine.

    `prefix` makes the request ids unique over runs and processes.
    """
    return [
        _command(command, f"{prefix}/{decision_id}/{index}", decision_id, verdicts)
        for index, command in enumerate(commands)
    ]


def to_attempts(
    commands: Sequence[PolicyCommand], messages: Sequence[command_pb2.AdaptationCommand], observation: Observation
) -> list[Attempt]:
    """What the policy should remember of the commands it sent."""
    seeds = {seed.seed_id: seed for seed in observation.seeds}
    found = []
    for command, message in zip(commands, messages, strict=True):
        if isinstance(command, Germinate):
            found.append(
                Attempt(
                    message.request_id,
                    "GERMINATE",
                    observation.step,
                    site=command.site,
                    blueprint_id=command.blueprint_id,
                    parameters=dict(command.parameters),
                )
            )
        elif isinstance(command, StartGrafting | Cull | Withdraw):
            seed = seeds[command.seed_id]
            operation = "START_GRAFTING" if isinstance(command, StartGrafting) else "CULL"
            found.append(
                Attempt(message.request_id, operation, observation.step, seed.site, seed.seed_id, seed.blueprint_id)
            )
    return found


def to_field_report(report: Report) -> field_report_pb2.FieldReport:
    """A report as it is delivered."""
    message = field_report_pb2.FieldReport(
        version=1,
        report_id=report.report_id,
        command_id=report.command_id,
        training_run_id=report.run_id,
        seed_id=report.seed_id,
        blueprint_id=report.blueprint_id,
        outcome=f"FIELD_REPORT_OUTCOME_{report.outcome}",
        metrics=report.metrics,
        tamiyo_policy_version=report.policy_version,
        notes=report.notes,
        observation_window_steps=report.window_steps,
        propensity=report.propensity,
        held_out=report.held_out,
        follow_up_actions=[
            field_report_pb2.MitigationAction(action_type=action, rationale=why) for action, why in report.follow_ups
        ],
    )
    message.issued_at.FromNanoseconds(int(report.issued_unix_s * 1e9))
    return message


def _command(
    command: PolicyCommand, request_id: str, decision_id: str, verdicts: Sequence[Verdict]
) -> command_pb2.AdaptationCommand:
    message = command_pb2.AdaptationCommand(
        version=1,
        request_id=request_id,
        decision_id=decision_id,
        reason=short(command.reason),
        risk=[
            command_pb2.RiskVerdict(
                rule=verdict.rule, action=verdict.action.name.lower(), value=verdict.value, threshold=verdict.threshold
            )
            for verdict in verdicts
        ],
    )
    _fill(message, command)
    return message


def _fill(message: command_pb2.AdaptationCommand, command: PolicyCommand) -> None:
    operations = vocabulary_pb2
    match command:
        case Germinate():
            asked = command_pb2.CommandSeedOperation(
                operation=operations.SEED_OPERATION_GERMINATE,
                site=command.site,
                blueprint_id=command.blueprint_id,
                parameters=command.parameters,
                auto_advance=True,
                auto_advance_until=f"SEED_STAGE_{command.until}",
            )
            message.seed_operation.CopyFrom(asked)
        case StartGrafting():
            message.target_seed_id = command.seed_id
            message.seed_operation.operation = operations.SEED_OPERATION_START_GRAFTING
            message.seed_operation.auto_advance = True
        case Cull():
            message.target_seed_id = command.seed_id
            message.seed_operation.operation = operations.SEED_OPERATION_CULL
        case Withdraw():
            message.target_seed_id = command.seed_id
            message.seed_operation.operation = operations.SEED_OPERATION_CANCEL
        case SetSeedLearningRate():
            message.optimizer_adjustment.optimizer_id = f"seed:{command.seed_id}"
            message.optimizer_adjustment.action = command_pb2.OPTIMIZER_ACTION_SET_HYPERPARAMETERS
            message.optimizer_adjustment.hyperparameters["lr"] = command.learning_rate
        case PauseRun():
            message.run_control.action = command_pb2.RUN_ACTION_PAUSE
