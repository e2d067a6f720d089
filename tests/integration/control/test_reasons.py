"""Refusals that no other test meets over the wire: ErrorInfo and status of each, and RetryInfo where waiting helps."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from esper.client.errors import LeylineError, decode_rpc_error
from esper.leyline.v1 import (
    admin_service_pb2,
    audit_service_pb2,
    checkpoint_service_pb2,
    command_service_pb2,
    emergency_service_pb2,
    run_service_pb2,
    state_service_pb2,
)
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1.admin_service_pb2_grpc import AdminServiceStub
from esper.leyline.v1.audit_service_pb2_grpc import AuditServiceStub
from esper.leyline.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.emergency_service_pb2_grpc import EmergencyServiceStub
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub
from esper.leyline.v1.state_service_pb2_grpc import StateServiceStub
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from esperd.config.settings import ControlSettings
from esperd.leyline.commands import SeedCommand
from esperd.leyline.errors import CATALOGUE, DOMAIN
from esperd.leyline.nonces import NonceStore
from esperd.leyline.vocabulary import TrainerPhase
from tests.integration.control.stage import SUBMIT, Theatre, fresh_command, open_stage
from tests.integration.control.test_policy import GERMINATE, Policy


async def refused(call: Any, reason: str, *, waits: bool = False) -> LeylineError:
    """The error of a call that must be refused for this reason, with everything that the contract promises of it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    entry = CATALOGUE[reason]
    assert caught.value.code() is grpc.StatusCode[entry.status]
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it takes the error of grpc.aio too
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, info.metadata["code"]) == (reason, DOMAIN, entry.code)
    assert status.message.startswith(f"{entry.code}: ")
    assert any(detail.Unpack(retry) for detail in status.details) == waits
    assert not waits or retry.retry_delay.ToNanoseconds() > 0
    return decode_rpc_error(caught.value, "here")


def submission(stage: Theatre, **fields: Any) -> Any:
    """A call that submits a command."""
    envelope = stage.envelope(SUBMIT, fresh_command(stage, **fields).SerializeToString())
    return CommandServiceStub(stage.channel).SubmitCommand(command_service_pb2.SubmitCommandRequest(envelope=envelope))


async def test_nonce_capacity(stage: Theatre) -> None:
    """A full store of nonces refuses what is new and says when it has room; nothing is forgotten to make room."""
    stage.verifier._nonces = NonceStore(per_key=1)
    await submission(stage)
    error = await refused(submission(stage), "NONCE_CAPACITY", waits=True)
    assert error.retry_after_s == pytest.approx(300, abs=5)


async def first_refused(calls: list[Any]) -> Any:
    """The first call that is; which of them are served, and which wait, is the transport's affair."""
    for code_of in asyncio.as_completed([with_code(call) for call in calls], timeout=10):
        call, code = await code_of
        if code is not grpc.StatusCode.OK:
            return call
    raise AssertionError("none was refused")


async def with_code(call: Any) -> tuple[Any, grpc.StatusCode]:
    return call, await call.code()


async def test_paced_out(directory: Any) -> None:
    """While training a call beyond those that may wait is refused, late, and told when to come again."""
    control = ControlSettings(training_share=0.001, max_concurrent_calls=1)
    async with open_stage(directory, control=control, phase=TrainerPhase.TRAINING) as stage:
        stub = StateServiceStub(stage.channel)
        calls = [stub.ListSites(state_service_pb2.ListSitesRequest()) for _ in range(10)]
        try:
            await refused(await first_refused(calls), "PACED_OUT", waits=True)
        finally:
            for call in calls:
                call.cancel()


@pytest.mark.parametrize(
    ("reason", "phase"),
    [("RUN_STARTING", TrainerPhase.STARTING), ("RUN_CATCHING_UP", TrainerPhase.CATCHING_UP)],
)
async def test_what_is_not_there_yet(directory: Any, reason: str, phase: TrainerPhase) -> None:
    """A seed that a run at its beginning does not know may still come: to be asked again, and not called unknown."""
    async with open_stage(directory, phase=phase) as stage:
        cull = pb.CommandSeedOperation(operation=8)  # type: ignore[arg-type]
        await refused(submission(stage, seed_operation=cull, target_seed_id="99"), reason, waits=True)


async def test_unknown_things(stage: Theatre) -> None:
    """A command, a run, a checkpoint and a health service that nobody has heard of are told by their names."""
    channel = stage.channel
    command = CommandServiceStub(channel).GetCommand(command_service_pb2.GetCommandRequest(command_id="c-9"))
    assert (await refused(command, "COMMAND_UNKNOWN")).metadata["command_id"] == "c-9"
    run = RunServiceStub(channel).GetRun(run_service_pb2.GetRunRequest(run_id="run-9"))
    assert (await refused(run, "RUN_UNKNOWN")).metadata["run_id"] == "run-9"
    named = checkpoint_service_pb2.GetCheckpointRequest(checkpoint_id="t001-s000000009")
    await refused(CheckpointServiceStub(channel).GetCheckpoint(named), "CHECKPOINT_UNKNOWN")
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert (await refused(health, "HEALTH_UNKNOWN")).metadata["name"] == "other"


async def test_an_emergency_for_another_run(stage: Theatre) -> None:
    """An emergency that names a run other than the current one changes nothing."""
    signal = emergency_service_pb2.EmergencySignal(level=4, reason="r", request_id="e", run_id="run-9")  # type: ignore[arg-type]
    envelope = stage.envelope("/esper.leyline.v1.EmergencyService/RaiseEmergency", signal.SerializeToString())
    request = emergency_service_pb2.RaiseEmergencyRequest(envelope=envelope)
    await refused(EmergencyServiceStub(stage.channel).RaiseEmergency(request), "RUN_UNKNOWN")
    assert stage.trainer.applied == []


@pytest.mark.parametrize("token", ["x", "Y29tbWFuZHM6NQ", "Y29tbWFuZHM6LTE=", "é"])
async def test_page_tokens(stage: Theatre, token: str) -> None:
    """A page token of another list, or none at all, is refused by every list."""
    channel = stage.channel
    calls = (
        CommandServiceStub(channel).ListCommands(command_service_pb2.ListCommandsRequest(page_token=token)),
        RunServiceStub(channel).ListRuns(run_service_pb2.ListRunsRequest(page_token=token)),
        AuditServiceStub(channel).ListAuditEntries(audit_service_pb2.ListAuditEntriesRequest(page_token=token)),
    )
    for call in calls:
        await refused(call, "PAGE_TOKEN_INVALID")


async def test_internal(stage: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the daemon's own names its kind and no more: what it says may be anything."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret place")

    monkeypatch.setattr(stage.journal, "list_commands", broken)
    error = await refused(
        CommandServiceStub(stage.channel).ListCommands(command_service_pb2.ListCommandsRequest()), "INTERNAL"
    )
    assert error.metadata["detail"] == "ZeroDivisionError"
    assert "secret" not in error.message


async def test_lease_lost(stage: Theatre) -> None:
    """Another key that signs within somebody's session decides nothing: the receipt says whose session it is."""
    policy = Policy(stage)
    await policy.open()
    stage.trainer.packet(1)
    request = await policy.read_until("request")
    policy.who = "rival"
    receipt = await policy.decide(request.decision_id, pb.AdaptationCommand(seed_operation=GERMINATE))
    assert receipt.error.reason == "LEASE_LOST"
    assert "policy" in receipt.error.message
    assert [command for command in stage.trainer.applied if isinstance(command.payload, SeedCommand)] == []


async def test_revocation_not_kept(stage: Theatre) -> None:
    """A revocation that cannot be written is told as such, and the key is refused all the same."""
    (stage.directory / "revoked-keys.toml").mkdir()  # where the file would be
    payload = admin_service_pb2.RevokeKeyPayload(reason="lost", key_id="policy-1")
    envelope = stage.envelope("/esper.leyline.v1.AdminService/RevokeKey", payload.SerializeToString(), "admin")
    request = admin_service_pb2.RevokeKeyRequest(envelope=envelope)
    error = await refused(AdminServiceStub(stage.channel).RevokeKey(request), "REVOCATION_NOT_KEPT")
    assert error.metadata["key_id"] == "policy-1"
    envelope = stage.envelope(SUBMIT, fresh_command(stage).SerializeToString(), "policy")
    call = CommandServiceStub(stage.channel).SubmitCommand(command_service_pb2.SubmitCommandRequest(envelope=envelope))
    await refused(call, "KEY_NOT_ACTIVE")
