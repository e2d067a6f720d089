"""The async client of a daemon: reads, signed changes, watches that resume, command streams, decision sessions.

One event loop. Every answer is a message of the contract; every refusal is a LeylineError. Signs each attempt anew
and tries again where that can help (`attempts.py`).

    async with AsyncClient("unix:/run/esperd/leyline.sock", Credentials.load("policy.key")) as client:
        print((await client.run()).run.global_step)
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from esper.client import plans, watches
from esper.client.calls import COMMAND_STREAM, DECISION_STREAM, AnswerT, Call
from esper.client.channel import OPTIONS
from esper.client.command_stream import CommandStream
from esper.client.connection import Connection
from esper.client.cursor import Cursor
from esper.client.decision_session import DecisionSession
from esper.client.errors import LeylineError, Unreachable, decode_rpc_error
from esper.client.plans import Plan
from esper.client.signed_stream import SignedStream
from esper.client.watches import RECONNECT_S, Watch
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import emergency_service_pb2 as emergency_pb
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1 import run_service_pb2 as run_pb
from esper.leyline.v1 import server_service_pb2 as server_pb
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb
from esper.leyline.v1.command_pb2 import AdaptationCommand, Command
from esper.leyline.v1.field_report_pb2 import FieldReport
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_UNSPECIFIED,
    LEASE_MODE_STEER,
    ROLLBACK_TIER_UNSPECIFIED,
    SEED_STAGE_UNKNOWN,
    CommandState,
    EmergencyLevel,
    LeaseMode,
    RollbackTier,
    SeedLifecycleStage,
)


class AsyncClient(Connection):
    """A connection to one daemon; an async context manager.

    Every method raises LeylineError, or its kind Unreachable when no daemon answers.
    """

    async def __aenter__(self) -> Self:
        self._open_channel = grpc.aio.insecure_channel(self._target, options=OPTIONS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._take_channel().close()

    # Reads

    async def server_info(self) -> server_pb.GetServerInfoResponse:
        """Who the daemon is: id, epoch, clock, versions, capabilities, limits."""
        info = await self._carry_out(plans.server_info())
        self._signer.learn(info)
        return info

    async def run(self, run_id: str = "") -> run_pb.GetRunResponse:
        """A run with its emergencies, breakers and lease; the current one unless named."""
        return await self._carry_out(plans.run(run_id))

    async def runs(self, *, page_size: int = 0, page_token: str = "") -> run_pb.ListRunsResponse:
        """A page of runs, newest first."""
        return await self._carry_out(plans.runs(page_size, page_token))

    async def seeds(
        self, *, stage: SeedLifecycleStage = SEED_STAGE_UNKNOWN, with_gone: bool = False
    ) -> state_pb.ListSeedsResponse:
        """Every seed in order of germination, or those in one stage; with those that are gone, from the journal."""
        return await self._carry_out(plans.seeds(stage, with_gone))

    async def seed(self, seed_id: str) -> state_pb.GetSeedResponse:
        """One seed with its story."""
        return await self._carry_out(plans.seed(seed_id))

    async def sites(self) -> state_pb.ListSitesResponse:
        """Every site in forward order, with what may grow there and what it would cost."""
        return await self._carry_out(plans.sites())

    async def timelines(self, run_id: str = "") -> state_pb.ListTimelinesResponse:
        """Every timeline of a run, oldest first, with what each rollback did; the current run unless named."""
        return await self._carry_out(plans.timelines(run_id))

    async def checkpoints(
        self, *, page_size: int = 0, page_token: str = "", run_id: str = "", all_runs: bool = False
    ) -> checkpoint_pb.ListCheckpointsResponse:
        """A page of checkpoints, newest first, and the states that memory holds; of the current run unless named."""
        return await self._carry_out(plans.checkpoints(page_size, page_token, run_id, all_runs))

    async def checkpoint_info(self, checkpoint_id: str, *, run_id: str = "") -> checkpoint_pb.GetCheckpointResponse:
        """One checkpoint with its manifest; of the current run unless named."""
        return await self._carry_out(plans.checkpoint_info(checkpoint_id, run_id))

    async def verify_checkpoint(
        self, checkpoint_id: str, *, run_id: str = "", timeout_s: float = plans.VERIFY_S
    ) -> checkpoint_pb.VerifyCheckpointResponse:
        """Have every file of a checkpoint read and compared; without problems it is sound."""
        return await self._carry_out(plans.verify_checkpoint(checkpoint_id, run_id, timeout_s))

    async def optimizers(self) -> state_pb.GetOptimizersResponse:
        """Every optimizer group."""
        return await self._carry_out(plans.optimizers())

    async def command(self, command_id: str, *, wait_s: float = 0.0) -> Command:
        """One command; waits at most `wait_s` (and at most 20 s) for its outcome."""
        return (await self._carry_out(plans.command(command_id, wait_s))).command

    async def commands(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        state: CommandState = COMMAND_STATE_UNSPECIFIED,
        seed_id: str = "",
    ) -> command_pb.ListCommandsResponse:
        """A page of commands, newest first; those in one state or of one seed if asked."""
        return await self._carry_out(plans.commands(page_size, page_token, state, seed_id))

    async def emergencies(self) -> emergency_pb.ListEmergenciesResponse:
        """Emergencies that stand."""
        return await self._carry_out(plans.emergencies())

    async def metrics(self) -> telemetry_pb.ListMetricsResponse:
        """Every metric there is."""
        return await self._carry_out(plans.metrics())

    async def field_reports(self, *, page_size: int = 0, page_token: str = "") -> policy_pb.ListFieldReportsResponse:
        """A page of field reports, newest first."""
        return await self._carry_out(plans.field_reports(page_size, page_token))

    # Signed changes

    async def submit(
        self, command: AdaptationCommand, *, wait: bool = False, timeout_s: float | None = None
    ) -> Command:
        """Submit a command; an empty request_id is filled in.

        Returns it as accepted, or with `wait` as soon as it has its outcome. An outcome that has not come within
        `timeout_s` (60 s unless stated) leaves it ACCEPTED; a refused command is returned with its error, not raised.
        """
        patience = self._patience(timeout_s)
        plan = plans.submit(command, self._signer.new_id)
        accepted = (await self._carry_out(plan, timeout_s)).command
        return await self.outcome(accepted, timeout_s=patience.remaining_s()) if wait else accepted

    async def outcome(self, command: Command, *, timeout_s: float | None = None) -> Command:
        """Wait for the outcome of an accepted command, at most `timeout_s` (60 s unless stated).

        A restart of the daemon is ridden out: every accepted command gets its outcome across it.
        """
        patience = self._patience(timeout_s)
        while not plans.is_final(command) and (left_s := patience.remaining_s()) > 0:
            try:
                command = await self.command(command.command_id, wait_s=left_s)
            except Unreachable as error:
                await asyncio.sleep(patience.after(error))
        return command

    async def checkpoint(
        self,
        *,
        note: str = "",
        reason: str = "",
        wait: bool = True,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Command:
        """Write a checkpoint of the next safe point; returns once it is on disk, unless `wait` is False."""
        command = plans.write_checkpoint(note, reason, request_id)
        return await self.submit(command, wait=wait, timeout_s=timeout_s)

    async def rollback(
        self,
        *,
        checkpoint_id: str = "",
        global_step: int | None = None,
        before_seed_id: str = "",
        tier: RollbackTier = ROLLBACK_TIER_UNSPECIFIED,
        reason: str = "",
        wait: bool = True,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Command:
        """Go back to a checkpoint, to the newest good state at or before a step, or to that before a seed.

        Exactly one of the three is given, else ValueError. Returns the command with its outcome unless `wait` is
        False; the run then goes on on a new timeline, and what came after the state is left behind.
        """
        command = plans.roll_back(checkpoint_id, global_step, before_seed_id, tier, reason, request_id)
        return await self.submit(command, wait=wait, timeout_s=timeout_s)

    async def prune_checkpoints(
        self,
        *,
        keep: int = 0,
        keep_requested: int | None = None,
        run_id: str = "",
        dry_run: bool = False,
        reason: str = "",
    ) -> checkpoint_pb.PruneCheckpointsResponse:
        """Remove all but the newest `keep` scheduled checkpoints (0: as many as the daemon is configured to keep).

        Of those that a command asked for the newest `keep_requested` stay, all of them without it; the newest good one
        stays in any case. With `dry_run` nothing is removed.
        """
        return await self._carry_out(plans.prune_checkpoints(keep, keep_requested, run_id, dry_run, reason))

    async def export_checkpoint(
        self,
        checkpoint_id: str,
        as_format: checkpoint_pb.ExportFormat,
        *,
        run_id: str = "",
        without_live_seeds: bool = False,
        directory: str = "",
        reason: str = "",
        timeout_s: float = plans.EXPORT_S,
    ) -> checkpoint_pb.ExportCheckpointResponse:
        """Have the model of a checkpoint written, fossilized seeds folded in, as files that load without the daemon.

        They go into a new directory below the daemon's run directory: `directory` (absolute), or one in `exports`.
        Refused while a seed is live, unless live seeds are to be left out.
        """
        plan = plans.export_checkpoint(
            checkpoint_id, as_format, run_id, without_live_seeds, directory, reason, timeout_s
        )
        return await self._carry_out(plan)

    async def submit_batch(self, commands: Iterable[AdaptationCommand]) -> command_pb.SubmitCommandsResponse:
        """Submit at most 256 commands: all are accepted, or none; empty request_ids are filled in."""
        return await self._carry_out(plans.submit_batch(commands, self._signer.new_id))

    async def cancel(self, command_id: str, reason: str) -> Command:
        """Take back a command that has not taken effect."""
        return (await self._carry_out(plans.cancel(command_id, reason))).command

    async def stop_run(self, reason: str, *, request_id: str = "") -> Command:
        """End the current run at the next safe point; the daemon stays up."""
        return (await self._carry_out(plans.stop_run(reason, request_id or self._signer.new_id()))).command

    async def raise_emergency(
        self,
        level: EmergencyLevel,
        reason: str,
        *,
        origin: str = "",
        acknowledge_within_s: float = 2.0,
        request_id: str = "",
    ) -> emergency_pb.RaiseEmergencyResponse:
        """Raise the emergency level; answered when the trainer has acknowledged it."""
        request_id = request_id or self._signer.new_id()
        return await self._carry_out(plans.raise_emergency(level, reason, origin, acknowledge_within_s, request_id))

    async def clear_emergency(
        self, emergency_id: str, reason: str, *, request_id: str = ""
    ) -> emergency_pb.ClearEmergencyResponse:
        """Clear an emergency."""
        request_id = request_id or self._signer.new_id()
        return await self._carry_out(plans.clear_emergency(emergency_id, reason, request_id))

    async def submit_field_report(self, report: FieldReport) -> policy_pb.SubmitFieldReportResponse:
        """Store a field report; an empty report_id is filled in, and sending an id again changes nothing."""
        return await self._carry_out(plans.submit_field_report(report, self._signer.new_id))

    # Streams

    def watch_server_state(
        self, *, reconnect_s: float = RECONNECT_S
    ) -> AsyncIterator[server_pb.WatchServerStateResponse]:
        """The daemon's state as it changes. See `watch_state` for `reconnect_s`."""
        return self._watch(watches.server_state(), b"", reconnect_s)

    def watch_state(
        self,
        *,
        latest: bool = False,
        resume_token: bytes = b"",
        resnapshot: bool = True,
        bookmark_interval_s: int = 0,
        reconnect_s: float = RECONNECT_S,
    ) -> AsyncIterator[state_pb.WatchStateResponse]:
        """A snapshot, then deltas, with bookmarks: every revision, or only the newest of each thing with `latest`.

        After a cut the watch resumes by itself for up to `reconnect_s`; 0 ends it at the first cut. A token that is
        too old brings a fresh snapshot, or OUT_OF_RANGE without `resnapshot`.
        """
        watch = watches.state(latest=latest, resnapshot=resnapshot, bookmark_interval_s=bookmark_interval_s)
        return self._watch(watch, resume_token, reconnect_s)

    def watch_commands(
        self, *, resume_token: bytes = b"", restart: bool = True, reconnect_s: float = RECONNECT_S
    ) -> AsyncIterator[command_pb.WatchCommandsResponse]:
        """Commands as they are accepted and settled. With `restart`, a token that is too old starts anew."""
        return self._watch(watches.commands(restart=restart), resume_token, reconnect_s)

    def stream_telemetry(
        self,
        *,
        metrics: Sequence[str] = (),
        max_frames_per_s: float = 0.0,
        latest_only: bool = False,
        min_event_level: str = "",
        reconnect_s: float = RECONNECT_S,
    ) -> AsyncIterator[telemetry_pb.StreamTelemetryResponse]:
        """Samples in frames; names, or prefixes that end in `.*`, choose the metrics."""
        watch = watches.telemetry(
            metrics=metrics,
            max_frames_per_s=max_frames_per_s,
            latest_only=latest_only,
            min_event_level=min_event_level,
        )
        return self._watch(watch, b"", reconnect_s)

    def command_stream(self, *, max_in_flight: int = 8) -> CommandStream:
        """A stream for high rates: signed batches up, receipts down, several batches under way at once."""
        return CommandStream(
            self._signed_stream(COMMAND_STREAM), new_id=self._signer.new_id, max_in_flight=max_in_flight
        )

    def decision_session(
        self,
        mode: LeaseMode = LEASE_MODE_STEER,
        policy_name: str = "",
        policy_version: str = "",
        packet_every_steps: int = 0,
    ) -> DecisionSession:
        """A policy's session: an async context manager that holds the lease, and an iterator of decision requests."""
        opening = policy_pb.SessionOpening(
            mode=mode,
            policy_name=policy_name,
            policy_version=policy_version,
            packet_every_steps=packet_every_steps,
        )
        return DecisionSession(self._signed_stream(DECISION_STREAM), opening, new_id=self._signer.new_id)

    # How calls are carried out

    async def _carry_out(self, plan: Plan[AnswerT], timeout_s: float | None = None) -> AnswerT:
        attempts = self._attempts_of(plan, timeout_s)
        if plan.call.signed:
            await self._meet()
        payload = plan.message.SerializeToString()
        while True:
            request = self._request(plan, payload)
            try:
                return await self._attempt(plan.call, request, attempts.remaining_s())
            except LeylineError as error:
                await asyncio.sleep(attempts.after(error))

    async def _attempt(self, call: Call[AnswerT], request: Message, timeout_s: float) -> AnswerT:
        try:
            answer: AnswerT = await self._stub("unary_unary", call)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise decode_rpc_error(error, self.address) from error
        return answer

    async def _meet(self) -> None:
        """Learn who the daemon is before the first signature."""
        self._signer.require_key()
        if not self._signer.knows_server:
            await self.server_info()

    async def _watch(self, watch: Watch[AnswerT], resume_token: bytes, reconnect_s: float) -> AsyncIterator[AnswerT]:
        cursor = Cursor(resume_token=resume_token, reconnect_s=reconnect_s, monotonic=self._monotonic)
        while True:
            stream = self._stub("unary_stream", watch.call)(watch.opening(cursor.resume_token))
            try:
                async for response in stream:
                    cursor.saw(response)
                    yield response
                wait_s = cursor.after_end()
            except grpc.aio.AioRpcError as error:
                wait_s = cursor.after_error(decode_rpc_error(error, self.address))
            finally:
                stream.cancel()
            if wait_s is None:
                return
            await asyncio.sleep(wait_s)

    def _signed_stream(self, call: Call[AnswerT]) -> SignedStream[AnswerT]:
        return SignedStream(
            call,
            signer=self._signer,
            meet=self._meet,
            start=self._stub("stream_stream", call),
            attempts=lambda: self._attempts(call),
            address=self.address,
        )
