"""A small real daemon for the SDK's tests: grpc.aio servicers on a Unix socket, with the real Verifier before them.

A test bends it: shifts its clock, changes its epoch, queues refusals for the next calls, cuts streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
from esper.client.credentials import Credentials
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import command_service_pb2_grpc as command_grpc
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1 import policy_service_pb2_grpc as policy_grpc
from esper.leyline.v1 import run_service_pb2 as run_pb
from esper.leyline.v1 import run_service_pb2_grpc as run_grpc
from esper.leyline.v1 import server_service_pb2 as server_pb
from esper.leyline.v1 import server_service_pb2_grpc as server_grpc
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import state_service_pb2_grpc as state_grpc
from esper.leyline.v1.command_pb2 import AdaptationCommand, Command, CommandError
from esper.leyline.v1.state_pb2 import Run, SystemStatePacket
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_ACCEPTED,
    COMMAND_STATE_APPLIED,
    LEASE_MODE_STEER,
)
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from esperd.leyline.errors import DOMAIN, EsperdError
from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.secret import Secret
from esperd.leyline.verify import Verified, Verifier
from esperd.leyline.vocabulary import Permission

SECRET = bytes(range(32))
CREDENTIALS = Credentials("policy-1", "policy", SECRET)
PREFIX = "/esper.leyline.v1."


class Daemon:
    """The state of the fake daemon, and what a test may bend."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.epoch = bytes(16)
        self.clock_offset_s = 0.0
        self.refusals: list[EsperdError] = []
        """Taken one by one by the next calls, signed or not, before anything else."""
        self.attempts: list[str] = []
        """Every method that was called, in order."""
        self.nonces: list[bytes] = []
        self.commands: dict[str, AdaptationCommand] = {}
        """Accepted commands by request_id."""
        self.polls_until_applied = 1
        self.tokens: list[bytes] = []
        """Resume tokens that watches were opened with."""
        self.stream_errors: list[EsperdError | None] = []
        """How each opening of a watch ends after two messages; None is a clean end, past the list it stays open."""
        self.decisions: list[policy_pb.PolicyDecision] = []
        self.openings: list[policy_pb.SessionOpening] = []
        self._server: grpc.aio.Server | None = None
        self._verifier = self._new_verifier()

    async def start(self) -> None:
        """Listen."""
        self._verifier = self._new_verifier()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server_grpc.add_ServerServiceServicer_to_server(_Server(self), server)
        run_grpc.add_RunServiceServicer_to_server(_Runs(self), server)
        command_grpc.add_CommandServiceServicer_to_server(_Commands(self), server)
        state_grpc.add_StateServiceServicer_to_server(_State(self), server)
        policy_grpc.add_PolicyServiceServicer_to_server(_Policies(self), server)
        server.add_insecure_port(self.address)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Cut every connection."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def restart(self) -> None:
        """A new start with a new epoch on the same address."""
        await self.stop()
        self.epoch = (int.from_bytes(self.epoch, "big") + 1).to_bytes(16, "big")
        await self.start()

    def verify(self, method: str, envelope: Any) -> Verified:
        """The real check of one envelope."""
        verified = self._verifier.verify(
            method=PREFIX + method,
            header=envelope.header,
            payload=envelope.payload,
            signature=envelope.signature,
            peer="unix:",
            permission=Permission.COMMAND,
        )
        self.nonces.append(envelope.header)
        return verified

    async def admit(self, context: Any, method: str, envelope: Any = None) -> bytes:
        """Record the call, refuse it if a test asked for that, verify it if it is signed."""
        self.attempts.append(method)
        try:
            if self.refusals:
                raise self.refusals.pop(0)
            return b"" if envelope is None else self.verify(method, envelope).payload
        except EsperdError as error:
            await abort(context, error)

    def accept(self, command: AdaptationCommand) -> Command:
        """Accept a command, once for each request_id."""
        self.commands.setdefault(command.request_id, command)
        number = list(self.commands).index(command.request_id) + 1
        return Command(command_id=f"c{number}", state=COMMAND_STATE_ACCEPTED, request=command)

    def _new_verifier(self) -> Verifier:
        key = Key(CREDENTIALS.key_id, CREDENTIALS.principal, frozenset({Permission.COMMAND}), Secret(SECRET))
        return Verifier(
            keyring=KeyRing([key]),
            audience="daemon-1",
            epoch=self.epoch,
            wall_clock=lambda: time.time() + self.clock_offset_s,
            monotonic=time.monotonic,
        )


async def abort(context: Any, error: EsperdError) -> NoReturn:
    """End a call as the daemon does: ErrorInfo, RetryInfo where the facts hold a time, BadRequest where fields."""
    code = grpc.StatusCode[error.entry.status]
    status = Status(code=code.value[0], message=error.message)
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if "retry_after_s" in error.metadata:
        delay = Duration()
        delay.FromNanoseconds(int(float(error.metadata["retry_after_s"]) * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    if "field" in error.metadata:
        violation = BadRequest.FieldViolation(field=error.metadata["field"], description="bad")
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, error.message)
    raise AssertionError("abort raises")


def command_error(error: EsperdError) -> CommandError:
    """A refusal inside a stream."""
    return CommandError(code=error.entry.code, reason=error.reason, message=error.message, metadata=error.metadata)


class _Server(server_grpc.ServerServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        await self.daemon.admit(context, "ServerService/GetServerInfo")
        return server_pb.GetServerInfoResponse(server_id="daemon-1", epoch=self.daemon.epoch)


class _Runs(run_grpc.RunServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        await self.daemon.admit(context, "RunService/GetRun")
        return run_pb.GetRunResponse(run=Run(run_id=request.run_id or "r1", global_step=7))


class _Commands(command_grpc.CommandServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def SubmitCommand(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        payload = await self.daemon.admit(context, "CommandService/SubmitCommand", request.envelope)
        return command_pb.SubmitCommandResponse(command=self.daemon.accept(AdaptationCommand.FromString(payload)))

    async def GetCommand(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        await self.daemon.admit(context, "CommandService/GetCommand")
        self.daemon.polls_until_applied -= 1
        state = COMMAND_STATE_ACCEPTED if self.daemon.polls_until_applied > 0 else COMMAND_STATE_APPLIED
        return command_pb.GetCommandResponse(command=Command(command_id=request.command_id, state=state))

    async def CommandStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the contract's name
        self.daemon.attempts.append("CommandService/CommandStream")
        number = 0
        async for request in requests:
            number += 1
            try:
                if self.daemon.refusals:
                    raise self.daemon.refusals.pop(0)
                verified = self.daemon.verify("CommandService/CommandStream", request.envelope)
            except EsperdError as error:
                yield command_pb.CommandStreamResponse(batch_number=number, error=command_error(error))
                continue
            batch = command_pb.CommandBatch.FromString(verified.payload)
            if batch.commands[0].reason == "cut":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            accepted = [self.daemon.accept(command) for command in batch.commands]
            receipts = [
                command_pb.CommandReceipt(request_id=c.request.request_id, command_id=c.command_id, state=c.state)
                for c in accepted
            ]
            yield command_pb.CommandStreamResponse(batch_number=number, receipts=receipts)


class _State(state_grpc.StateServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def WatchState(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the contract's name
        await self.daemon.admit(context, "StateService/WatchState")
        self.daemon.tokens.append(request.resume_token)
        first = int(request.resume_token or b"0") + 1
        for revision in (first, first + 1):
            yield state_pb.WatchStateResponse(revision=revision, resume_token=str(revision).encode())
        if not self.daemon.stream_errors:
            await asyncio.Event().wait()
        ending = self.daemon.stream_errors.pop(0)
        if ending is not None:
            await abort(context, ending)


class _Policies(policy_grpc.PolicyServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def DecisionStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the contract's name
        method = "PolicyService/DecisionStream"
        incoming = aiter(requests)
        opening = await anext(incoming)
        payload = await self.daemon.admit(context, method, opening.envelope)
        self.daemon.openings.append(policy_pb.SessionOpening.FromString(payload))
        opened = policy_pb.SessionOpened(lease_id="l1", mode=LEASE_MODE_STEER, run_id="r1")
        yield policy_pb.DecisionStreamResponse(opened=opened)
        for number in (1, 2):
            packet = SystemStatePacket(global_step=number)
            yield policy_pb.DecisionStreamResponse(
                request=policy_pb.DecisionRequest(decision_id=f"d{number}", packet=packet)
            )
        async for request in incoming:
            verified = self.daemon.verify(method, request.envelope)
            decision = policy_pb.PolicyDecision.FromString(verified.payload)
            self.daemon.decisions.append(decision)
            receipt = policy_pb.DecisionReceipt(decision_id=decision.decision_id)
            if decision.rationale == "late":
                receipt.error.CopyFrom(command_error(EsperdError("DECISION_STALE", detail="late")))
            else:
                receipt.commands.extend(self.daemon.accept(command) for command in decision.commands)
            yield policy_pb.DecisionStreamResponse(receipt=receipt)
            for command in receipt.commands:
                settled = Command(command_id=command.command_id, state=COMMAND_STATE_APPLIED)
                yield policy_pb.DecisionStreamResponse(outcome=policy_pb.DecisionOutcome(command=settled))
            if decision.rationale == "last":
                yield policy_pb.DecisionStreamResponse(draining=policy_pb.SessionDraining())
                return
