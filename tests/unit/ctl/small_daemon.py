"""A small real daemon for the tools' tests: gRPC servicers in threads on a Unix socket, the real Verifier before them.

It keeps what it was asked and answers with what a test put into it.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb
from esper.leyline.v1 import checkpoint_service_pb2_grpc as checkpoint_grpc
from esper.leyline.v1 import command_pb2 as commands
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import command_service_pb2_grpc as command_grpc
from esper.leyline.v1 import emergency_service_pb2 as emergency_pb
from esper.leyline.v1 import emergency_service_pb2_grpc as emergency_grpc
from esper.leyline.v1 import field_report_pb2 as report_pb
from esper.leyline.v1 import kernel_service_pb2_grpc as kernel_grpc
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1 import policy_service_pb2_grpc as policy_grpc
from esper.leyline.v1 import run_service_pb2 as run_pb
from esper.leyline.v1 import run_service_pb2_grpc as run_grpc
from esper.leyline.v1 import server_service_pb2 as server_pb
from esper.leyline.v1 import server_service_pb2_grpc as server_grpc
from esper.leyline.v1 import state_pb2 as state
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import state_service_pb2_grpc as state_grpc
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb
from esper.leyline.v1 import telemetry_service_pb2_grpc as telemetry_grpc
from esper.leyline.v1 import vocabulary_pb2 as v
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from esperd.leyline.errors import DOMAIN, EsperdError
from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.secret import Secret
from esperd.leyline.verify import Verifier
from esperd.leyline.vocabulary import Permission
from tests.unit.ctl.small_library import Kernels, SmallLibrary

SECRET = bytes(range(32))
PREFIX = "/esper.leyline.v1."


class SmallDaemon:
    """What the daemon would say, and what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "leyline.sock"
        self.address = f"unix:{self.socket}"
        self.key = directory / "operator.key"
        self.key.write_text(f'key_id = "operator-1"\nprincipal = "operator"\nsecret = "{SECRET.hex()}"\n')
        self.key.chmod(0o600)
        self.run = state.Run(
            run_id="run-1", task="digits", phase=v.TRAINER_PHASE_TRAINING, global_step=405, num_steps_total=1500,
            train_loss=0.31, val_loss=0.29, metrics={"accuracy": 0.909}, learning_rate=0.003, lr_phase="stable",
            samples_per_s=12345, step_ms=2.0, timeline=1,
        )  # fmt: skip
        self.seeds = [
            state.SeedState(
                seed_id="1", site="conv1", blueprint_id="residual_conv", stage=v.SEED_STAGE_BLENDING, alpha=0.45
            )
        ]
        cost = state.Cost(num_parameters=4_000, forward_flops=74_000, backward_flops=148_000)
        offer = state.BlueprintOffer(blueprint_id="residual_conv", tier=v.BLUEPRINT_TIER_SAFE, risk=0.3, cost=cost)
        self.sites = [
            state.Site(
                site="conv1", module_type="Conv2d", activation_shape=[64, 8, 4, 4], dtype="float32", vacant=True,
                offers=[offer],
            )
        ]  # fmt: skip
        self.stories: dict[str, list[state_pb.SeedTransition]] = {}
        """Transitions of each seed, instead of the one that every seed has."""
        self.timelines = [state.Timeline(timeline=1)]
        self.restore_points: list[state.RestorePoint] = []
        self.checkpoints: list[checkpoint_pb.Checkpoint] = []
        """Newest first."""
        self.problems: dict[str, list[str]] = {}
        """What is wrong with which checkpoint."""
        self.damaged: list[checkpoint_pb.DamagedCheckpoint] = []
        self.prunings: list[checkpoint_pb.PruneCheckpointsPayload] = []
        self.past: list[commands.Command] = []
        """Commands of before, newest first."""
        self.on_submit: Callable[[commands.AdaptationCommand], None] = lambda asked: None
        """Called with every command that is accepted."""
        self.final_state = v.COMMAND_STATE_APPLIED
        self.final_error = commands.CommandError()
        self.refusal: EsperdError | None = None
        """Every call but GetServerInfo is answered with this while it is set."""
        self.asked: list[commands.AdaptationCommand] = []
        self.watched: list[command_pb.WatchCommandsRequest] = []
        self.changes: list[command_pb.WatchCommandsResponse] = []
        """What a watch of commands is told."""
        self.frames: list[telemetry_pb.StreamTelemetryResponse] = []
        self.steps: list[int] = []
        """GetRun tells these one by one; after the last the run has finished."""
        self.packets: list[state.SystemStatePacket] = []
        """What a policy's session is sent, one after each decision."""
        self.openings: list[policy_pb.SessionOpening] = []
        self.decisions: list[policy_pb.PolicyDecision] = []
        self.cut_after: int | None = None
        """The first session is cut after so many decisions."""
        self.reports: dict[str, report_pb.FieldReport] = {}
        self.library = SmallLibrary()
        """Its kernels."""
        self._numbers = itertools.count(1)
        key = Key("operator-1", "operator", frozenset(Permission), Secret(SECRET))
        self._verifier = Verifier(
            keyring=KeyRing([key]), audience="daemon-1", epoch=bytes(16), wall_clock=time.time, monotonic=time.monotonic
        )

    def admit(self, context: grpc.ServicerContext, method: str, envelope: Any = None) -> bytes:
        """Check a call as the daemon would; returns the signed payload."""
        try:
            if self.refusal is not None:
                raise self.refusal
            return b"" if envelope is None else self.verify(method, envelope)
        except EsperdError as error:
            code = grpc.StatusCode[error.entry.status]
            status = Status(code=code.value[0], message=error.message)
            status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(code, error.message)
            raise AssertionError("abort raises") from error

    def verify(self, method: str, envelope: Any) -> bytes:
        """The real check of one envelope."""
        verified = self._verifier.verify(
            method=PREFIX + method, header=envelope.header, payload=envelope.payload, signature=envelope.signature,
            peer="unix:", permission=Permission.COMMAND,
        )  # fmt: skip
        return bytes(verified.payload)

    def accept(self, asked: commands.AdaptationCommand) -> commands.Command:
        """Take a command down as accepted."""
        self.asked.append(asked)
        if asked.validate_only:
            return commands.Command(request=asked)
        self.on_submit(asked)
        number = next(self._numbers)
        return commands.Command(
            command_id=f"c-{number}", state=v.COMMAND_STATE_ACCEPTED, request=asked, principal="operator"
        )

    def settle(self, command: commands.Command) -> commands.Command:
        """The outcome that the test asked for."""
        done = commands.Command()
        done.CopyFrom(command)
        done.state = self.final_state
        done.global_step, done.revision, done.timeline = 406, 78, 1
        done.error.CopyFrom(self.final_error)
        if done.request.seed_operation.operation == v.SEED_OPERATION_GERMINATE and not done.error.code:
            done.seed_id = "7"
        return done


class _Server(server_grpc.ServerServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def GetServerInfo(self, request: Any, context: Any) -> server_pb.GetServerInfoResponse:  # noqa: N802
        info = server_pb.GetServerInfoResponse(server_id="daemon-1", epoch=bytes(16), version="0.1.0", run_id="run-1")
        info.server_time.GetCurrentTime()
        return info


class _Runs(run_grpc.RunServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def GetRun(self, request: Any, context: Any) -> run_pb.GetRunResponse:  # noqa: N802
        self.daemon.admit(context, "RunService/GetRun")
        if self.daemon.steps:
            self.daemon.run.global_step = self.daemon.steps.pop(0)
            if not self.daemon.steps:
                self.daemon.run.phase = v.TRAINER_PHASE_FINISHED
        breaker = state.CircuitBreaker(name="isolation", state=v.CIRCUIT_BREAKER_STATE_CLOSED)
        return run_pb.GetRunResponse(
            run=self.daemon.run, revision=77, breakers=[breaker], timelines=self.daemon.timelines,
            restore_points=self.daemon.restore_points,
        )  # fmt: skip

    def StopRun(self, request: Any, context: Any) -> run_pb.StopRunResponse:  # noqa: N802
        payload = run_pb.StopRunPayload.FromString(self.daemon.admit(context, "RunService/StopRun", request.envelope))
        asked = commands.AdaptationCommand(request_id=payload.request_id, reason=payload.reason)
        asked.run_control.action = commands.RUN_ACTION_STOP
        return run_pb.StopRunResponse(command=self.daemon.accept(asked))


class _Commands(command_grpc.CommandServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon
        self.accepted: dict[str, commands.Command] = {}

    def SubmitCommand(self, request: Any, context: Any) -> command_pb.SubmitCommandResponse:  # noqa: N802
        payload = self.daemon.admit(context, "CommandService/SubmitCommand", request.envelope)
        return command_pb.SubmitCommandResponse(
            command=self.daemon.accept(commands.AdaptationCommand.FromString(payload))
        )

    def CancelCommand(self, request: Any, context: Any) -> command_pb.CancelCommandResponse:  # noqa: N802
        payload = self.daemon.admit(context, "CommandService/CancelCommand", request.envelope)
        asked = command_pb.CancelCommandPayload.FromString(payload)
        command = commands.Command(command_id=asked.command_id, state=v.COMMAND_STATE_CANCELLED)
        return command_pb.CancelCommandResponse(command=command)

    def GetCommand(self, request: Any, context: Any) -> command_pb.GetCommandResponse:  # noqa: N802
        self.daemon.admit(context, "CommandService/GetCommand")
        known = next((one for one in self.daemon.past if one.command_id == request.command_id), None)
        if known is not None:
            return command_pb.GetCommandResponse(command=known)
        asked = self.daemon.asked[-1] if self.daemon.asked else commands.AdaptationCommand(reason="because")
        command = commands.Command(command_id=request.command_id, request=asked, principal="operator")
        return command_pb.GetCommandResponse(command=self.daemon.settle(command))

    def WatchCommands(self, request: Any, context: Any) -> Iterator[command_pb.WatchCommandsResponse]:  # noqa: N802
        self.daemon.watched.append(request)
        yield command_pb.WatchCommandsResponse(resume_token=bytes(24))
        yield from self.daemon.changes
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the test's changes are used up")

    def ListCommands(self, request: Any, context: Any) -> command_pb.ListCommandsResponse:  # noqa: N802
        self.daemon.admit(context, "CommandService/ListCommands")
        found = [commands.Command(command_id=f"c-{n}", request=asked) for n, asked in enumerate(self.daemon.asked, 1)]
        past = [one for one in self.daemon.past if request.seed_id in ("", one.seed_id)]
        found += [one for one in past if request.state in (v.COMMAND_STATE_UNSPECIFIED, one.state)]
        return command_pb.ListCommandsResponse(commands=found)


class _Emergencies(emergency_grpc.EmergencyServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def RaiseEmergency(self, request: Any, context: Any) -> emergency_pb.RaiseEmergencyResponse:  # noqa: N802
        payload = self.daemon.admit(context, "EmergencyService/RaiseEmergency", request.envelope)
        signal = emergency_pb.EmergencySignal.FromString(payload)
        raised = state.Emergency(emergency_id="e-1", level=signal.level, reason=signal.reason, origin=signal.origin)
        return emergency_pb.RaiseEmergencyResponse(emergency=raised, global_step=406, revision=78, durable=True)

    def ClearEmergency(self, request: Any, context: Any) -> emergency_pb.ClearEmergencyResponse:  # noqa: N802
        self.daemon.admit(context, "EmergencyService/ClearEmergency", request.envelope)
        return emergency_pb.ClearEmergencyResponse(revision=79)

    def ListEmergencies(self, request: Any, context: Any) -> emergency_pb.ListEmergenciesResponse:  # noqa: N802
        self.daemon.admit(context, "EmergencyService/ListEmergencies")
        return emergency_pb.ListEmergenciesResponse()


class _State(state_grpc.StateServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def GetSeed(self, request: Any, context: Any) -> state_pb.GetSeedResponse:  # noqa: N802
        self.daemon.admit(context, "StateService/GetSeed")
        evidence = state.GateEvidence(name="output_ratio", value=0.02, threshold=0.5, sense="at_most", passed=True)
        gate = state.GateResult(
            gate=v.SEED_GATE_G2_STABILITY, verdict=v.GATE_VERDICT_PASSED, global_step=400, evidence=[evidence]
        )
        step = state_pb.SeedTransition(
            source=v.SEED_STAGE_TRAINING, target=v.SEED_STAGE_BLENDING, global_step=400, cause="c-1", gate=gate
        )
        seed = next(seed for seed in self.daemon.seeds if seed.seed_id == request.seed_id)
        steps = self.daemon.stories.get(request.seed_id, [step])
        return state_pb.GetSeedResponse(seed=seed, transitions=steps, revision=77)

    def ListTimelines(self, request: Any, context: Any) -> state_pb.ListTimelinesResponse:  # noqa: N802
        self.daemon.admit(context, "StateService/ListTimelines")
        return state_pb.ListTimelinesResponse(timelines=self.daemon.timelines)

    def ListSeeds(self, request: Any, context: Any) -> state_pb.ListSeedsResponse:  # noqa: N802
        self.daemon.admit(context, "StateService/ListSeeds")
        found = [seed for seed in self.daemon.seeds if request.stage in (0, seed.stage)]
        return state_pb.ListSeedsResponse(seeds=found, revision=77)

    def ListSites(self, request: Any, context: Any) -> state_pb.ListSitesResponse:  # noqa: N802
        self.daemon.admit(context, "StateService/ListSites")
        return state_pb.ListSitesResponse(sites=self.daemon.sites, revision=77)

    def GetOptimizers(self, request: Any, context: Any) -> state_pb.GetOptimizersResponse:  # noqa: N802
        self.daemon.admit(context, "StateService/GetOptimizers")
        group = state.OptimizerGroup(owner="host", optimizer_type="AdamW", hyperparameters={"lr": 0.003})
        return state_pb.GetOptimizersResponse(groups=[group], revision=77)


class _Checkpoints(checkpoint_grpc.CheckpointServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def ListCheckpoints(self, request: Any, context: Any) -> checkpoint_pb.ListCheckpointsResponse:  # noqa: N802
        self.daemon.admit(context, "CheckpointService/ListCheckpoints")
        start = int(request.page_token or 0)
        end = start + (request.page_size or 50)
        return checkpoint_pb.ListCheckpointsResponse(
            checkpoints=self.daemon.checkpoints[start:end],
            next_page_token=str(end) if end < len(self.daemon.checkpoints) else "",
            memory_points=[point for point in self.daemon.restore_points if point.in_memory],
            damaged=self.daemon.damaged,
        )

    def GetCheckpoint(self, request: Any, context: Any) -> checkpoint_pb.GetCheckpointResponse:  # noqa: N802
        self.daemon.admit(context, "CheckpointService/GetCheckpoint")
        found = next(one for one in self.daemon.checkpoints if one.checkpoint_id == request.checkpoint_id)
        file = checkpoint_pb.CheckpointFile(name="state.json", num_bytes=12, sha256="0" * 64)
        config = '{"run": {"task": "digits"}}'
        return checkpoint_pb.GetCheckpointResponse(checkpoint=found, files=[file], config_json=config, directory="/c")

    def VerifyCheckpoint(self, request: Any, context: Any) -> checkpoint_pb.VerifyCheckpointResponse:  # noqa: N802
        self.daemon.admit(context, "CheckpointService/VerifyCheckpoint")
        problems = self.daemon.problems.get(request.checkpoint_id, [])
        return checkpoint_pb.VerifyCheckpointResponse(problems=problems, num_bytes=1_000)

    def PruneCheckpoints(self, request: Any, context: Any) -> checkpoint_pb.PruneCheckpointsResponse:  # noqa: N802
        payload = self.daemon.admit(context, "CheckpointService/PruneCheckpoints", request.envelope)
        asked = checkpoint_pb.PruneCheckpointsPayload.FromString(payload)
        self.daemon.prunings.append(asked)
        going = self.daemon.checkpoints[asked.keep or 2 :]
        return checkpoint_pb.PruneCheckpointsResponse(removed=going, num_kept=len(self.daemon.checkpoints) - len(going))


class _Telemetry(telemetry_grpc.TelemetryServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def ListMetrics(self, request: Any, context: Any) -> telemetry_pb.ListMetricsResponse:  # noqa: N802
        metric = telemetry_pb.MetricDescriptor(name="tolaria.step.loss", unit="1", description="training loss")
        return telemetry_pb.ListMetricsResponse(metrics=[metric])

    def StreamTelemetry(self, request: Any, context: Any) -> Iterator[telemetry_pb.StreamTelemetryResponse]:  # noqa: N802
        yield from self.daemon.frames
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the test's frames are used up")


class _Policies(policy_grpc.PolicyServiceServicer):
    def __init__(self, daemon: SmallDaemon) -> None:
        self.daemon = daemon

    def SubmitFieldReport(self, request: Any, context: Any) -> policy_pb.SubmitFieldReportResponse:  # noqa: N802
        payload = self.daemon.admit(context, "PolicyService/SubmitFieldReport", request.envelope)
        report = report_pb.FieldReport.FromString(payload)
        duplicate = report.report_id in self.daemon.reports
        self.daemon.reports[report.report_id] = report
        return policy_pb.SubmitFieldReportResponse(duplicate=duplicate)

    def DecisionStream(self, requests: Any, context: Any) -> Iterator[policy_pb.DecisionStreamResponse]:  # noqa: N802
        method = "PolicyService/DecisionStream"
        daemon = self.daemon
        opening = policy_pb.SessionOpening.FromString(daemon.admit(context, method, next(requests).envelope))
        daemon.openings.append(opening)
        opened = policy_pb.SessionOpened(lease_id=f"s-{len(daemon.openings)}", mode=opening.mode, run_id="run-1")
        yield policy_pb.DecisionStreamResponse(opened=opened)
        while daemon.packets:
            packet = daemon.packets.pop(0)
            decision_id = f"d-{packet.global_step}"
            request = policy_pb.DecisionRequest(decision_id=decision_id, packet=packet)
            request.deadline.FromNanoseconds(int((time.time() + 2.0) * 1e9))
            yield policy_pb.DecisionStreamResponse(request=request)
            envelope = next(requests).envelope
            decision = policy_pb.PolicyDecision.FromString(daemon.admit(context, method, envelope))
            daemon.decisions.append(decision)
            accepted = [daemon.accept(asked) for asked in decision.commands]
            receipt = policy_pb.DecisionReceipt(decision_id=decision_id, commands=accepted)
            yield policy_pb.DecisionStreamResponse(receipt=receipt)
            if daemon.cut_after == len(daemon.decisions):
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            if opening.mode == v.LEASE_MODE_STEER:
                for command in accepted:
                    outcome = policy_pb.DecisionOutcome(command=daemon.settle(command))
                    yield policy_pb.DecisionStreamResponse(outcome=outcome)
        next(requests, None)


@contextmanager
def serving(daemon: SmallDaemon) -> Iterator[SmallDaemon]:
    """Serve until the block ends."""
    threads = ThreadPoolExecutor(8)
    server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
    server_grpc.add_ServerServiceServicer_to_server(_Server(daemon), server)
    run_grpc.add_RunServiceServicer_to_server(_Runs(daemon), server)
    command_grpc.add_CommandServiceServicer_to_server(_Commands(daemon), server)
    emergency_grpc.add_EmergencyServiceServicer_to_server(_Emergencies(daemon), server)
    state_grpc.add_StateServiceServicer_to_server(_State(daemon), server)
    checkpoint_grpc.add_CheckpointServiceServicer_to_server(_Checkpoints(daemon), server)
    telemetry_grpc.add_TelemetryServiceServicer_to_server(_Telemetry(daemon), server)
    policy_grpc.add_PolicyServiceServicer_to_server(_Policies(daemon), server)
    kernel_grpc.add_KernelServiceServicer_to_server(Kernels(daemon), server)
    server.add_insecure_port(daemon.address)
    server.start()
    try:
        yield daemon
    finally:
        daemon.library.close()
        server.stop(None).wait()
        threads.shutdown()
