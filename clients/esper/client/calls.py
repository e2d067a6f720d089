"""The contract's methods as a table: names, message types, and which of them are signed.

Any thread, without I/O. Both clients make their calls from this table; a test holds it against the proto files.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from esper.leyline.v1 import admin_service_pb2 as admin
from esper.leyline.v1 import audit_service_pb2 as audit
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint
from esper.leyline.v1 import command_service_pb2 as command
from esper.leyline.v1 import emergency_service_pb2 as emergency
from esper.leyline.v1 import kernel_service_pb2 as kernel
from esper.leyline.v1 import policy_service_pb2 as policy
from esper.leyline.v1 import run_service_pb2 as run
from esper.leyline.v1 import server_service_pb2 as server
from esper.leyline.v1 import state_service_pb2 as state
from esper.leyline.v1 import telemetry_service_pb2 as telemetry
from esper.leyline.v1.command_pb2 import AdaptationCommand
from esper.leyline.v1.field_report_pb2 import FieldReport

AnswerT = TypeVar("AnswerT", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[AnswerT]):
    """One method."""

    name: str
    """Service and method, `CommandService/SubmitCommand`."""
    request_type: type[Message]
    answer_type: type[AnswerT]
    payload_type: type[Message] | None = None
    """What a signed method carries in its envelope; None for a read."""

    @property
    def method(self) -> str:
        """The full name, as it is called and signed."""
        return f"/esper.leyline.v1.{self.name}"

    @property
    def signed(self) -> bool:
        """Whether the request carries a SignedEnvelope."""
        return self.payload_type is not None


RELOAD_CONFIG = Call(
    "AdminService/ReloadConfig", admin.ReloadConfigRequest, admin.ReloadConfigResponse, admin.AdminPayload
)
GET_CONFIG = Call("AdminService/GetConfig", admin.GetConfigRequest, admin.GetConfigResponse, admin.AdminPayload)
RELOAD_KEYS = Call("AdminService/ReloadKeys", admin.ReloadKeysRequest, admin.ReloadKeysResponse, admin.AdminPayload)
LIST_KEYS = Call("AdminService/ListKeys", admin.ListKeysRequest, admin.ListKeysResponse, admin.AdminPayload)
REVOKE_KEY = Call("AdminService/RevokeKey", admin.RevokeKeyRequest, admin.RevokeKeyResponse, admin.RevokeKeyPayload)
SET_LOG_LEVEL = Call(
    "AdminService/SetLogLevel", admin.SetLogLevelRequest, admin.SetLogLevelResponse, admin.SetLogLevelPayload
)
DRAIN = Call("AdminService/Drain", admin.DrainRequest, admin.DrainResponse, admin.AdminPayload)
LIST_CONNECTIONS = Call(
    "AdminService/ListConnections", admin.ListConnectionsRequest, admin.ListConnectionsResponse, admin.AdminPayload
)
DUMP_DIAGNOSTICS = Call(
    "AdminService/DumpDiagnostics", admin.DumpDiagnosticsRequest, admin.DumpDiagnosticsResponse, admin.AdminPayload
)
LIST_AUDIT_ENTRIES = Call(
    "AuditService/ListAuditEntries", audit.ListAuditEntriesRequest, audit.ListAuditEntriesResponse
)
VERIFY_AUDIT_LOG = Call("AuditService/VerifyAuditLog", audit.VerifyAuditLogRequest, audit.VerifyAuditLogResponse)
LIST_CHECKPOINTS = Call(
    "CheckpointService/ListCheckpoints", checkpoint.ListCheckpointsRequest, checkpoint.ListCheckpointsResponse
)
GET_CHECKPOINT = Call(
    "CheckpointService/GetCheckpoint", checkpoint.GetCheckpointRequest, checkpoint.GetCheckpointResponse
)
VERIFY_CHECKPOINT = Call(
    "CheckpointService/VerifyCheckpoint", checkpoint.VerifyCheckpointRequest, checkpoint.VerifyCheckpointResponse
)
PRUNE_CHECKPOINTS = Call(
    "CheckpointService/PruneCheckpoints",
    checkpoint.PruneCheckpointsRequest,
    checkpoint.PruneCheckpointsResponse,
    checkpoint.PruneCheckpointsPayload,
)
EXPORT_CHECKPOINT = Call(
    "CheckpointService/ExportCheckpoint",
    checkpoint.ExportCheckpointRequest,
    checkpoint.ExportCheckpointResponse,
    checkpoint.ExportCheckpointPayload,
)
LIST_BLUEPRINTS = Call("KernelService/ListBlueprints", kernel.ListBlueprintsRequest, kernel.ListBlueprintsResponse)
LIST_KERNELS = Call("KernelService/ListKernels", kernel.ListKernelsRequest, kernel.ListKernelsResponse)
GET_KERNEL = Call("KernelService/GetKernel", kernel.GetKernelRequest, kernel.GetKernelResponse)
WATCH_KERNELS = Call("KernelService/WatchKernels", kernel.WatchKernelsRequest, kernel.WatchKernelsResponse)
DOWNLOAD_KERNEL = Call("KernelService/DownloadKernel", kernel.DownloadKernelRequest, kernel.DownloadKernelResponse)
REPORT_COMPILATION = Call(
    "KernelService/ReportCompilation",
    kernel.ReportCompilationRequest,
    kernel.ReportCompilationResponse,
    kernel.ReportCompilationPayload,
)
CREATE_UPLOAD = Call(
    "KernelService/CreateUpload", kernel.CreateUploadRequest, kernel.CreateUploadResponse, kernel.CreateUploadPayload
)
UPLOAD_KERNEL = Call(
    "KernelService/UploadKernel", kernel.UploadKernelRequest, kernel.UploadKernelResponse, kernel.UploadChunk
)
VERIFY_KERNEL = Call(
    "KernelService/VerifyKernel", kernel.VerifyKernelRequest, kernel.VerifyKernelResponse, kernel.VerifyKernelPayload
)
DELETE_KERNEL = Call(
    "KernelService/DeleteKernel", kernel.DeleteKernelRequest, kernel.DeleteKernelResponse, kernel.DeleteKernelPayload
)
PIN_KERNEL = Call("KernelService/PinKernel", kernel.PinKernelRequest, kernel.PinKernelResponse, kernel.PinKernelPayload)
GET_SERVER_INFO = Call("ServerService/GetServerInfo", server.GetServerInfoRequest, server.GetServerInfoResponse)
CHECK_ACCESS = Call(
    "ServerService/CheckAccess", server.CheckAccessRequest, server.CheckAccessResponse, server.CheckAccessPayload
)
WATCH_SERVER_STATE = Call(
    "ServerService/WatchServerState", server.WatchServerStateRequest, server.WatchServerStateResponse
)
GET_RUN = Call("RunService/GetRun", run.GetRunRequest, run.GetRunResponse)
LIST_RUNS = Call("RunService/ListRuns", run.ListRunsRequest, run.ListRunsResponse)
START_RUN = Call("RunService/StartRun", run.StartRunRequest, run.StartRunResponse, run.StartRunPayload)
STOP_RUN = Call("RunService/StopRun", run.StopRunRequest, run.StopRunResponse, run.StopRunPayload)
SUBMIT_COMMAND = Call(
    "CommandService/SubmitCommand",
    command.SubmitCommandRequest,
    command.SubmitCommandResponse,
    AdaptationCommand,
)
SUBMIT_COMMANDS = Call(
    "CommandService/SubmitCommands", command.SubmitCommandsRequest, command.SubmitCommandsResponse, command.CommandBatch
)
CANCEL_COMMAND = Call(
    "CommandService/CancelCommand",
    command.CancelCommandRequest,
    command.CancelCommandResponse,
    command.CancelCommandPayload,
)
COMMAND_STREAM = Call(
    "CommandService/CommandStream", command.CommandStreamRequest, command.CommandStreamResponse, command.CommandBatch
)
GET_COMMAND = Call("CommandService/GetCommand", command.GetCommandRequest, command.GetCommandResponse)
LIST_COMMANDS = Call("CommandService/ListCommands", command.ListCommandsRequest, command.ListCommandsResponse)
WATCH_COMMANDS = Call("CommandService/WatchCommands", command.WatchCommandsRequest, command.WatchCommandsResponse)
RAISE_EMERGENCY = Call(
    "EmergencyService/RaiseEmergency",
    emergency.RaiseEmergencyRequest,
    emergency.RaiseEmergencyResponse,
    emergency.EmergencySignal,
)
CLEAR_EMERGENCY = Call(
    "EmergencyService/ClearEmergency",
    emergency.ClearEmergencyRequest,
    emergency.ClearEmergencyResponse,
    emergency.ClearEmergencyPayload,
)
LIST_EMERGENCIES = Call(
    "EmergencyService/ListEmergencies", emergency.ListEmergenciesRequest, emergency.ListEmergenciesResponse
)
GET_SEED = Call("StateService/GetSeed", state.GetSeedRequest, state.GetSeedResponse)
LIST_SEEDS = Call("StateService/ListSeeds", state.ListSeedsRequest, state.ListSeedsResponse)
LIST_SITES = Call("StateService/ListSites", state.ListSitesRequest, state.ListSitesResponse)
GET_OPTIMIZERS = Call("StateService/GetOptimizers", state.GetOptimizersRequest, state.GetOptimizersResponse)
LIST_TIMELINES = Call("StateService/ListTimelines", state.ListTimelinesRequest, state.ListTimelinesResponse)
WATCH_STATE = Call("StateService/WatchState", state.WatchStateRequest, state.WatchStateResponse)
DECISION_STREAM = Call(
    "PolicyService/DecisionStream", policy.DecisionStreamRequest, policy.DecisionStreamResponse, policy.PolicyDecision
)
"""Its first envelope carries a SessionOpening, every later one a PolicyDecision."""
SUBMIT_FIELD_REPORT = Call(
    "PolicyService/SubmitFieldReport",
    policy.SubmitFieldReportRequest,
    policy.SubmitFieldReportResponse,
    FieldReport,
)
LIST_FIELD_REPORTS = Call(
    "PolicyService/ListFieldReports", policy.ListFieldReportsRequest, policy.ListFieldReportsResponse
)
LIST_METRICS = Call("TelemetryService/ListMetrics", telemetry.ListMetricsRequest, telemetry.ListMetricsResponse)
QUERY_TELEMETRY = Call(
    "TelemetryService/QueryTelemetry", telemetry.QueryTelemetryRequest, telemetry.QueryTelemetryResponse
)
STREAM_TELEMETRY = Call(
    "TelemetryService/StreamTelemetry", telemetry.StreamTelemetryRequest, telemetry.StreamTelemetryResponse
)
CALLS: tuple[Call[Any], ...] = tuple(one for one in tuple(globals().values()) if isinstance(one, Call))
"""All of them."""
