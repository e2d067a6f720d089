"""One caller that asks too often, over a real server: told so with a time to wait, and nobody else's loss."""

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import decode_rpc_error
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.run_service_pb2 import GetRunRequest
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub
from esper.leyline.v1.vocabulary_pb2 import EMERGENCY_LEVEL_CONSERVATIVE, LEASE_MODE_ADVISE
from google.rpc import error_details_pb2, status_pb2

from esperd.config.settings import ControlSettings
from esperd.control.errors import DETAILS_KEY
from esperd.oona.records import AuditQuery
from tests.integration.control.stage import SUBMIT, Theatre, fresh_command, open_stage

ONE_IN_TEN_S = 0.1
"""So slow that on no machine a second request comes late enough."""
SLOW = ControlSettings(max_commands_per_s=ONE_IN_TEN_S, max_reads_per_s=1e6)


async def submit(stage: Theatre, who: str = "operator") -> None:
    envelope = stage.envelope(SUBMIT, fresh_command(stage).SerializeToString(), who)
    await CommandServiceStub(stage.channel).SubmitCommand(command_pb.SubmitCommandRequest(envelope=envelope))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    (raw,) = [value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY]
    return status_pb2.Status.FromString(raw)


async def test_too_many_commands_of_one_principal(directory: Path) -> None:
    """RESOURCE_EXHAUSTED with ErrorInfo, RetryInfo and QuotaFailure; in the audit trail; others go on."""
    async with open_stage(directory, control=SLOW) as stage:
        await submit(stage)
        error = await refused(submit(stage))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        decoded = decode_rpc_error(error, stage.address)
        assert decoded.reason == "RATE_LIMITED"
        assert decoded.message.startswith("E-AUTH-016: operator sends more than 0.1 commands a second.")
        assert decoded.retry_after_s is not None
        assert 0.0 < decoded.retry_after_s <= 10.0
        quota = error_details_pb2.QuotaFailure()
        assert any(detail.Unpack(quota) for detail in details(error).details)
        assert [(v.subject, v.description) for v in quota.violations] == [("operator", "0.1 commands a second")]
        await submit(stage, "rival")
        await stage.server.parts.recorder.flush(5.0)
        rows = (await stage.journal.list_audit(AuditQuery())).rows
        told = [row.entry for row in rows if row.entry.decision == "RATE_LIMITED"]
        assert [(entry.principal, entry.method) for entry in told] == [("operator", SUBMIT)]


async def test_emergencies_have_their_own(directory: Path) -> None:
    """Whoever has used up every other rate can still raise one, at once."""
    async with open_stage(directory, control=SLOW) as stage:
        await submit(stage)
        assert decode_rpc_error(await refused(submit(stage)), "").reason == "RATE_LIMITED"
        async with AsyncClient(stage.address, stage.credentials("operator")) as client:
            raised = await client.raise_emergency(EMERGENCY_LEVEL_CONSERVATIVE, "a test")
        assert raised.emergency.emergency_id


async def test_emergencies_are_bounded_too(directory: Path) -> None:
    """By a rate of their own."""
    async with (
        open_stage(directory, control=ControlSettings(max_emergencies_per_s=ONE_IN_TEN_S)) as stage,
        AsyncClient(stage.address, stage.credentials("operator"), timeout_s=0.2) as client,
    ):
        await client.raise_emergency(EMERGENCY_LEVEL_CONSERVATIVE, "a test")
        with pytest.raises(Exception, match=r"more than 0\.1 emergencies a second"):
            await client.raise_emergency(EMERGENCY_LEVEL_CONSERVATIVE, "a test")


async def test_reads_count_by_peer(directory: Path) -> None:
    """Unsigned calls and streams: nobody has signed, so the connection's other end is what is counted."""
    async with open_stage(directory, control=ControlSettings(max_reads_per_s=ONE_IN_TEN_S)) as stage:
        reads = RunServiceStub(stage.channel)
        await reads.GetRun(GetRunRequest())
        decoded = decode_rpc_error(await refused(reads.GetRun(GetRunRequest())), "")
        assert decoded.message.startswith("E-AUTH-016: unix: sends more than 0.1 reads a second.")
        watch = CommandServiceStub(stage.channel).WatchCommands(command_pb.WatchCommandsRequest())
        assert decode_rpc_error(await refused(watch.read()), "").reason == "RATE_LIMITED"
        await submit(stage)  # signed, and so its own kind


async def test_the_sdk_waits_as_it_is_told(directory: Path) -> None:
    """Twice the burst without an error, alone, on a command stream, and for a read."""
    control = ControlSettings(max_commands_per_s=50.0, max_reads_per_s=50.0)
    async with (
        open_stage(directory, control=control) as stage,
        AsyncClient(stage.address, stage.credentials("operator")) as client,
    ):
        commands = [fresh_command(stage) for _ in range(120)]
        await asyncio.gather(*(client.submit(command) for command in commands))
        async with client.command_stream() as stream:
            receipts = [await stream.send([fresh_command(stage)]) for _ in range(20)]
        assert all(receipt.state for batch in receipts for receipt in batch)
        await asyncio.gather(*(client.run() for _ in range(120)))


async def test_a_policy_that_opens_too_many_sessions(directory: Path) -> None:
    """Sessions, decisions and reports are a kind of their own."""
    async with (
        open_stage(directory, control=ControlSettings(max_decisions_per_s=ONE_IN_TEN_S)) as stage,
        AsyncClient(stage.address, stage.credentials("policy"), timeout_s=0.2) as client,
    ):
        async with client.decision_session(LEASE_MODE_ADVISE, "mine", "1"):
            pass
        with pytest.raises(Exception, match=r"policy sends more than 0\.1 decisions a second"):
            await client.decision_session(LEASE_MODE_ADVISE, "mine", "1").__aenter__()
