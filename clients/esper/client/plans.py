"""What each method of the clients asks: the call, and the message that is sent or signed.

Any thread, without I/O. The async and the sync client carry out the same plans; ids that the caller left empty are
filled here once, before the first attempt, so that every retry carries the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from esper.client import calls
from esper.client.calls import AnswerT, Call
from esper.leyline.v1 import audit_service_pb2 as audit_pb
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import emergency_service_pb2 as emergency_pb
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1 import run_service_pb2 as run_pb
from esper.leyline.v1 import server_service_pb2 as server_pb
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb
from esper.leyline.v1.command_pb2 import AdaptationCommand, Command, CommandCheckpoint, CommandRollback
from esper.leyline.v1.field_report_pb2 import FieldReport
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_ACCEPTED,
    COMMAND_STATE_UNSPECIFIED,
    CommandState,
    EmergencyLevel,
    RollbackTier,
    SeedLifecycleStage,
)

OUTCOME_S = 60.0
"""How long a client waits for the outcome of a command, unless it is told otherwise."""

MAX_WAIT_S = 20.0
"""Longest single wait asked of GetCommand; longer waits are asked for again."""

VERIFY_S = 600.0
"""How long a verification may take, unless the client is told otherwise: the files are read whole."""

EXPORT_S = 600.0
"""The same for an export, which loads the run in a process of its own."""

LOOK_AGAIN_S = 0.1
"""How often a client looks whether a run that it began is served."""

NewId = Callable[[], str]
MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Plan(Generic[AnswerT]):
    """One call to be made."""

    call: Call[AnswerT]
    message: Message
    """The request of a read; the payload to be signed otherwise."""
    waits_s: float = 0.0
    """Time that the daemon itself is asked to wait before it answers."""


def is_final(command: Command) -> bool:
    """Whether nothing more will happen to the command."""
    return command.state not in (COMMAND_STATE_UNSPECIFIED, COMMAND_STATE_ACCEPTED)


def server_info() -> Plan[server_pb.GetServerInfoResponse]:
    """Who the daemon is."""
    return Plan(calls.GET_SERVER_INFO, server_pb.GetServerInfoRequest())


def check_access(methods: Iterable[str]) -> Plan[server_pb.CheckAccessResponse]:
    """What the key may do."""
    return Plan(calls.CHECK_ACCESS, server_pb.CheckAccessPayload(methods=methods))


def run(run_id: str) -> Plan[run_pb.GetRunResponse]:
    """One run; the current one for an empty id."""
    return Plan(calls.GET_RUN, run_pb.GetRunRequest(run_id=run_id))


def runs(page_size: int, page_token: str) -> Plan[run_pb.ListRunsResponse]:
    """A page of runs."""
    return Plan(calls.LIST_RUNS, run_pb.ListRunsRequest(page_size=page_size, page_token=page_token))


def start_run(after_run_id: str, reason: str) -> Plan[run_pb.StartRunResponse]:
    """Begin another run."""
    return Plan(calls.START_RUN, run_pb.StartRunPayload(after_run_id=after_run_id, reason=reason))


def stop_run(reason: str, request_id: str) -> Plan[run_pb.StopRunResponse]:
    """End the current run."""
    return Plan(calls.STOP_RUN, run_pb.StopRunPayload(request_id=request_id, reason=reason))


def seed(seed_id: str) -> Plan[state_pb.GetSeedResponse]:
    """One seed with its story."""
    return Plan(calls.GET_SEED, state_pb.GetSeedRequest(seed_id=seed_id))


def seeds(stage: SeedLifecycleStage, with_gone: bool) -> Plan[state_pb.ListSeedsResponse]:
    """The seeds, of one stage unless it is unknown (0)."""
    return Plan(calls.LIST_SEEDS, state_pb.ListSeedsRequest(stage=stage, with_gone=with_gone))


def sites() -> Plan[state_pb.ListSitesResponse]:
    """The sites."""
    return Plan(calls.LIST_SITES, state_pb.ListSitesRequest())


def optimizers() -> Plan[state_pb.GetOptimizersResponse]:
    """The optimizer groups."""
    return Plan(calls.GET_OPTIMIZERS, state_pb.GetOptimizersRequest())


def timelines(run_id: str) -> Plan[state_pb.ListTimelinesResponse]:
    """The timelines of a run; of the current one for an empty id."""
    return Plan(calls.LIST_TIMELINES, state_pb.ListTimelinesRequest(run_id=run_id))


def checkpoints(
    page_size: int, page_token: str, run_id: str, all_runs: bool
) -> Plan[checkpoint_pb.ListCheckpointsResponse]:
    """A page of checkpoints."""
    request = checkpoint_pb.ListCheckpointsRequest(
        page_size=page_size, page_token=page_token, run_id=run_id, all_runs=all_runs
    )
    return Plan(calls.LIST_CHECKPOINTS, request)


def checkpoint_info(checkpoint_id: str, run_id: str) -> Plan[checkpoint_pb.GetCheckpointResponse]:
    """One checkpoint."""
    return Plan(calls.GET_CHECKPOINT, checkpoint_pb.GetCheckpointRequest(checkpoint_id=checkpoint_id, run_id=run_id))


def verify_checkpoint(
    checkpoint_id: str, run_id: str, timeout_s: float
) -> Plan[checkpoint_pb.VerifyCheckpointResponse]:
    """Verify one checkpoint."""
    request = checkpoint_pb.VerifyCheckpointRequest(checkpoint_id=checkpoint_id, run_id=run_id)
    return Plan(calls.VERIFY_CHECKPOINT, request, waits_s=timeout_s)


def prune_checkpoints(
    keep: int, keep_requested: int | None, run_id: str, dry_run: bool, reason: str
) -> Plan[checkpoint_pb.PruneCheckpointsResponse]:
    """Remove checkpoints."""
    payload = checkpoint_pb.PruneCheckpointsPayload(
        run_id=run_id, keep=keep, keep_requested=keep_requested, dry_run=dry_run, reason=reason
    )
    return Plan(calls.PRUNE_CHECKPOINTS, payload)


def export_checkpoint(
    checkpoint_id: str,
    as_format: checkpoint_pb.ExportFormat,
    run_id: str,
    without_live_seeds: bool,
    directory: str,
    reason: str,
    timeout_s: float,
) -> Plan[checkpoint_pb.ExportCheckpointResponse]:
    """Export one checkpoint."""
    payload = checkpoint_pb.ExportCheckpointPayload(
        checkpoint_id=checkpoint_id,
        run_id=run_id,
        format=as_format,
        without_live_seeds=without_live_seeds,
        directory=directory,
        reason=reason,
    )
    return Plan(calls.EXPORT_CHECKPOINT, payload, waits_s=timeout_s)


def audit_entries(request: audit_pb.ListAuditEntriesRequest) -> Plan[audit_pb.ListAuditEntriesResponse]:
    """A page of audit rows."""
    return Plan(calls.LIST_AUDIT_ENTRIES, request)


def verify_audit_log(timeout_s: float) -> Plan[audit_pb.VerifyAuditLogResponse]:
    """Check the whole audit chain."""
    return Plan(calls.VERIFY_AUDIT_LOG, audit_pb.VerifyAuditLogRequest(), waits_s=timeout_s)


def write_checkpoint(note: str, reason: str, request_id: str) -> AdaptationCommand:
    """The command that writes a checkpoint."""
    return AdaptationCommand(version=1, request_id=request_id, reason=reason, checkpoint=CommandCheckpoint(note=note))


def roll_back(
    checkpoint_id: str,
    global_step: int | None,
    before_seed_id: str,
    tier: RollbackTier,
    reason: str,
    request_id: str,
) -> AdaptationCommand:
    """The command that goes back. Raises ValueError unless exactly one target is given."""
    if bool(checkpoint_id) + (global_step is not None) + bool(before_seed_id) != 1:
        raise ValueError("name exactly one of checkpoint_id, global_step and before_seed_id")
    rollback = CommandRollback(tier=tier)
    if global_step is not None:
        rollback.global_step = global_step
    elif checkpoint_id:
        rollback.checkpoint_id = checkpoint_id
    else:
        rollback.before_seed_id = before_seed_id
    return AdaptationCommand(version=1, request_id=request_id, reason=reason, rollback=rollback)


def submit(command: AdaptationCommand, new_id: NewId) -> Plan[command_pb.SubmitCommandResponse]:
    """One command, signed."""
    return Plan(calls.SUBMIT_COMMAND, identified(command, new_id))


def submit_batch(commands: Iterable[AdaptationCommand], new_id: NewId) -> Plan[command_pb.SubmitCommandsResponse]:
    """Several commands under one signature."""
    return Plan(calls.SUBMIT_COMMANDS, batch(commands, new_id))


def batch(commands: Iterable[AdaptationCommand], new_id: NewId) -> command_pb.CommandBatch:
    """Commands as one payload, each with a request_id."""
    return command_pb.CommandBatch(commands=[identified(command, new_id) for command in commands])


def cancel(command_id: str, reason: str) -> Plan[command_pb.CancelCommandResponse]:
    """Take back a command."""
    return Plan(calls.CANCEL_COMMAND, command_pb.CancelCommandPayload(command_id=command_id, reason=reason))


def command(command_id: str, wait_s: float) -> Plan[command_pb.GetCommandResponse]:
    """One command; the daemon waits up to `wait_s` for its outcome."""
    wait_s = min(max(wait_s, 0.0), MAX_WAIT_S)
    request = command_pb.GetCommandRequest(command_id=command_id, wait_ms=int(wait_s * 1000))
    return Plan(calls.GET_COMMAND, request, waits_s=wait_s)


def commands(
    page_size: int, page_token: str, state: CommandState, seed_id: str
) -> Plan[command_pb.ListCommandsResponse]:
    """A page of commands."""
    request = command_pb.ListCommandsRequest(page_size=page_size, page_token=page_token, state=state, seed_id=seed_id)
    return Plan(calls.LIST_COMMANDS, request)


def raise_emergency(
    level: EmergencyLevel, reason: str, origin: str, acknowledge_within_s: float, request_id: str
) -> Plan[emergency_pb.RaiseEmergencyResponse]:
    """Raise the emergency level."""
    signal = emergency_pb.EmergencySignal(
        version=1,
        level=level,
        reason=reason,
        origin=origin,
        request_id=request_id,
        acknowledge_within_ms=int(acknowledge_within_s * 1000),
    )
    return Plan(calls.RAISE_EMERGENCY, signal, waits_s=acknowledge_within_s)


def clear_emergency(emergency_id: str, reason: str, request_id: str) -> Plan[emergency_pb.ClearEmergencyResponse]:
    """Clear an emergency."""
    payload = emergency_pb.ClearEmergencyPayload(emergency_id=emergency_id, reason=reason, request_id=request_id)
    return Plan(calls.CLEAR_EMERGENCY, payload)


def emergencies() -> Plan[emergency_pb.ListEmergenciesResponse]:
    """The emergencies that stand."""
    return Plan(calls.LIST_EMERGENCIES, emergency_pb.ListEmergenciesRequest())


def metrics() -> Plan[telemetry_pb.ListMetricsResponse]:
    """The metrics there are."""
    return Plan(calls.LIST_METRICS, telemetry_pb.ListMetricsRequest())


def query_telemetry(request: telemetry_pb.QueryTelemetryRequest) -> Plan[telemetry_pb.QueryTelemetryResponse]:
    """Samples in buckets."""
    return Plan(calls.QUERY_TELEMETRY, request)


def submit_field_report(report: FieldReport, new_id: NewId) -> Plan[policy_pb.SubmitFieldReportResponse]:
    """Store a field report; without a report_id it gets one."""
    filled = _copy(report)
    filled.report_id = report.report_id or new_id()
    return Plan(calls.SUBMIT_FIELD_REPORT, filled)


def field_reports(page_size: int, page_token: str) -> Plan[policy_pb.ListFieldReportsResponse]:
    """A page of field reports."""
    request = policy_pb.ListFieldReportsRequest(page_size=page_size, page_token=page_token)
    return Plan(calls.LIST_FIELD_REPORTS, request)


def identified(command: AdaptationCommand, new_id: NewId) -> AdaptationCommand:
    """The command with a request_id; the caller's message is left as it is."""
    filled = _copy(command)
    filled.request_id = command.request_id or new_id()
    return filled


def _copy(message: MessageT) -> MessageT:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
