"""Every refusal of the design's table, over the wire; nothing changes after any of them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from esper.client.errors import LeylineError, decode_rpc_error
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import command_service_pb2, emergency_service_pb2, run_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.emergency_service_pb2_grpc import EmergencyServiceStub
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.config.settings import ControlSettings
from esperd.oona.records import AuditQuery, CommandQuery
from tests.integration.control.stage import SUBMIT, Theatre, eventually, fresh_command, open_stage


async def refused(call: Any) -> LeylineError:
    """The error of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = decode_rpc_error(caught.value, "here")
    assert error.metadata["code"].startswith("E-"), "every refusal carries ErrorInfo"
    return error


async def submit(theatre: Theatre, command: pb.AdaptationCommand, who: str = "operator", **overrides: Any) -> Any:
    envelope = theatre.envelope(SUBMIT, command.SerializeToString(), who, **overrides)
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    return await CommandServiceStub(theatre.channel).SubmitCommand(request)


async def assert_untouched(theatre: Theatre) -> None:
    """Neither the trainer nor the journal knows of any command."""
    assert theatre.trainer.applied == []
    assert (await theatre.journal.list_commands(CommandQuery())).rows == ()
    theatre.bridge.box.reserve(theatre.bridge.box.capacity)  # every place of the box is free
    theatre.bridge.box.give_back(theatre.bridge.box.capacity)


SIGNATURES: list[tuple[str, str, dict[str, Any], str]] = [
    ("AUDIENCE_MISMATCH", "operator", {"audience": "esperd-other"}, "UNAUTHENTICATED"),
    ("METHOD_MISMATCH", "operator", {"method": SUBMIT + "s"}, "UNAUTHENTICATED"),
    ("EPOCH_STALE", "operator", {"epoch": bytes(16)}, "UNAUTHENTICATED"),
    ("TIMESTAMP_OUT_OF_WINDOW", "operator", {"now": time.time() - 3600}, "UNAUTHENTICATED"),
    ("PERMISSION_REQUIRED", "reader", {}, "PERMISSION_DENIED"),
    ("KEY_NOT_ACTIVE", "old", {}, "UNAUTHENTICATED"),
    ("ENVELOPE_MALFORMED", "operator", {"nonce": b"short"}, "INVALID_ARGUMENT"),
]


@pytest.mark.parametrize(("reason", "who", "overrides", "status"), SIGNATURES, ids=[row[0] for row in SIGNATURES])
async def test_checks_4_to_10(stage: Theatre, reason: str, who: str, overrides: dict[str, Any], status: str) -> None:
    """A request that is not genuine, fresh, rightly addressed and permitted is refused with its reason."""
    error = await refused(submit(stage, fresh_command(stage), who, **overrides))
    assert (error.reason, error.status) == (reason, status)
    await assert_untouched(stage)


async def test_unsigned_is_refused(stage: Theatre) -> None:
    """Check 3: no envelope, no change."""
    error = await refused(CommandServiceStub(stage.channel).SubmitCommand(command_service_pb2.SubmitCommandRequest()))
    assert error.reason == "SIGNATURE_MISSING"
    await assert_untouched(stage)


async def test_tampered_is_refused(stage: Theatre) -> None:
    """Check 5: one other byte, and the signature does not match."""
    envelope = stage.envelope(SUBMIT, fresh_command(stage).SerializeToString())
    envelope.payload = fresh_command(stage).SerializeToString()
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    assert (await refused(CommandServiceStub(stage.channel).SubmitCommand(request))).reason == "SIGNATURE_INVALID"
    await assert_untouched(stage)


async def test_replayed_is_refused(stage: Theatre) -> None:
    """Check 9: the same bytes a second time change nothing."""
    envelope = stage.envelope(SUBMIT, fresh_command(stage).SerializeToString())
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    stub = CommandServiceStub(stage.channel)
    await stub.SubmitCommand(request)
    assert (await refused(stub.SubmitCommand(request))).reason == "NONCE_REPLAYED"
    assert len((await stage.journal.list_commands(CommandQuery())).rows) == 1


async def test_too_large_is_refused(stage: Theatre) -> None:
    """Check 1: a header beyond 1 KiB."""
    envelope = stage.envelope(SUBMIT, b"")
    envelope.header = b"x" * 1025
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    assert (await refused(CommandServiceStub(stage.channel).SubmitCommand(request))).reason == "ENVELOPE_TOO_LARGE"


async def test_throttled_peer(stage: Theatre) -> None:
    """Check 2: a peer whose signatures keep failing has to wait, and is told how long."""
    reasons = []
    for _ in range(25):
        envelope = stage.envelope(SUBMIT, b"x")
        envelope.signature = bytes(32)
        request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
        error = await refused(CommandServiceStub(stage.channel).SubmitCommand(request))
        reasons.append(error.reason)
    assert reasons[0] == "SIGNATURE_INVALID"
    assert reasons[-1] == "AUTH_THROTTLED"
    assert error.retry_after_s is not None
    assert error.retry_after_s > 0


async def test_no_keyring(directory: Any) -> None:
    """Without a key ring the daemon serves reads and refuses every change."""
    async with open_stage(directory, ring=None) as stage:
        assert (await refused(submit(stage, fresh_command(stage)))).reason == "NO_KEYRING"
        await RunServiceStub(stage.channel).GetRun(run_service_pb2.GetRunRequest())


INVALID: list[tuple[str, Callable[[pb.AdaptationCommand], Any]]] = [
    ("request_id", lambda c: c.ClearField("request_id")),
    ("request_id", lambda c: setattr(c, "request_id", "x" * 129)),
    ("reason", lambda c: setattr(c, "reason", "x" * 1025)),
    ("payload", lambda c: c.ClearField("payload") if c.ClearField("seed_operation") is None else None),
    ("command_type", lambda c: setattr(c, "command_type", 3)),
    ("command_id", lambda c: setattr(c, "command_id", "mine")),
    ("version", lambda c: setattr(c, "version", 2)),
    ("target_seed_id", lambda c: setattr(c, "target_seed_id", "1")),
    ("seed_operation.operation", lambda c: setattr(c.seed_operation, "operation", 99)),
    ("seed_operation.operation", lambda c: setattr(c.seed_operation, "operation", 0)),
    ("seed_operation.site", lambda c: setattr(c.seed_operation, "site", "")),
    ("seed_operation.blueprint_id", lambda c: setattr(c.seed_operation, "blueprint_id", "")),
    ("seed_operation.blend_mode", lambda c: setattr(c.seed_operation, "blend_mode", 77)),
    ("seed_operation.parameters[width]", lambda c: c.seed_operation.parameters.update({"width": float("nan")})),
    ("seed_operation.alpha.target", lambda c: c.seed_operation.alpha.MergeFrom(alpha(5, 1.5))),
    ("seed_operation.alpha.target", lambda c: c.seed_operation.alpha.MergeFrom(alpha(5, float("nan")))),
    ("seed_operation.alpha.num_steps", lambda c: c.seed_operation.alpha.MergeFrom(alpha(0, 0.5))),
    ("seed_operation.auto_advance_until", lambda c: setattr(c.seed_operation, "auto_advance_until", 7)),
    ("expire_time", lambda c: c.expire_time.FromSeconds(-5)),
    ("risk[0].action", lambda c: c.risk.add(rule="loss_spike", action="explode")),
]


def alpha(num_steps: int, target: float) -> pb.AlphaSchedule:
    return pb.AlphaSchedule(num_steps=num_steps, target=target)


@pytest.mark.parametrize(("field", "spoil"), INVALID, ids=[f"{i}-{row[0]}" for i, row in enumerate(INVALID)])
async def test_check_11(stage: Theatre, field: str, spoil: Callable[[Any], Any]) -> None:
    """A field out of range is refused by its name, never clamped."""
    command = fresh_command(stage)
    if field == "payload":
        command.ClearField("seed_operation")
    else:
        spoil(command)
    error = await refused(submit(stage, command))
    assert (error.reason, error.status) == ("COMMAND_INVALID", "INVALID_ARGUMENT")
    assert field in [name for name, _ in error.violations]
    await assert_untouched(stage)


async def test_payload_that_is_no_message(stage: Theatre) -> None:
    """Signed rubbish is still rubbish."""
    envelope = stage.envelope(SUBMIT, b"\xff\xff\xff")
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    error = await refused(CommandServiceStub(stage.channel).SubmitCommand(request))
    assert error.reason == "COMMAND_INVALID"
    await assert_untouched(stage)


async def test_checks_12_and_13(stage: Theatre) -> None:
    """The same request again is answered with its first command; another under its name is refused."""
    command = fresh_command(stage)
    first = await submit(stage, command)
    again = await submit(stage, command)
    assert again.duplicate
    assert again.command.command_id == first.command.command_id
    command.reason = "another"
    error = await refused(submit(stage, command))
    assert (error.reason, error.status) == ("REQUEST_ID_REUSED", "ALREADY_EXISTS")
    await eventually(lambda: len(stage.trainer.applied) > 0)
    assert [applied.command_id for applied in stage.trainer.applied] == [first.command.command_id]


SEED_OP = pb.CommandSeedOperation
STATES: list[tuple[str, str, dict[str, Any]]] = [
    ("STATE_CHANGED", "ABORTED", {"expected_revision": 4}),
    ("SITE_UNKNOWN", "NOT_FOUND", {"seed_operation": SEED_OP(operation=1, site="nowhere", blueprint_id="bottleneck")}),
    ("SEED_UNKNOWN", "NOT_FOUND", {"seed_operation": SEED_OP(operation=8), "target_seed_id": "99"}),
    ("SEED_STAGE", "FAILED_PRECONDITION", {"seed_operation": SEED_OP(operation=7), "target_seed_id": "1"}),
    (
        "SEED_NOT_BLENDING",
        "FAILED_PRECONDITION",
        {"seed_operation": SEED_OP(operation=11, alpha=alpha(5, 0.5)), "target_seed_id": "1"},
    ),
    ("BREAKER_UNKNOWN", "NOT_FOUND", {"circuit_breaker": pb.CommandCircuitBreaker(name="x", desired_state=2)}),
    (
        "OPTIMIZER_TARGET",
        "INVALID_ARGUMENT",
        {"optimizer_adjustment": pb.CommandOptimizerAdjustment(optimizer_id="seed:9", hyperparameters={"lr": 0.1})},
    ),
    ("COMMAND_EXPIRED", "FAILED_PRECONDITION", {"expire_time": {"seconds": 1000}}),
]


@pytest.mark.parametrize(("reason", "status", "fields"), STATES, ids=[row[0] for row in STATES])
async def test_checks_14_and_15(stage: Theatre, reason: str, status: str, fields: dict[str, Any]) -> None:
    """What the state does not allow is refused before it is accepted."""
    error = await refused(submit(stage, fresh_command(stage, **fields)))
    assert (error.reason, error.status) == (reason, status)
    await assert_untouched(stage)


async def test_full_box(directory: Any) -> None:
    """A full box refuses at once and says when to come again; what was accepted keeps its place."""
    async with open_stage(directory, control=ControlSettings(command_box_capacity=2)) as stage:
        stage.trainer.is_stuck.set()
        for _ in range(2):
            await submit(stage, fresh_command(stage))
        error = await refused(submit(stage, fresh_command(stage)))
        assert (error.reason, error.status) == ("COMMAND_BOX_FULL", "RESOURCE_EXHAUSTED")
        assert error.retry_after_s is not None


async def test_draining(stage: Theatre) -> None:
    """A daemon that leaves accepts no change."""
    stage.server.parts.desk.is_draining = True  # the state between the first and the last moment of a drain
    error = await refused(submit(stage, fresh_command(stage)))
    assert (error.reason, error.status) == ("DRAINING", "UNAVAILABLE")
    assert error.retry_after_s is not None
    await assert_untouched(stage)


async def test_journal_unavailable(stage: Theatre) -> None:
    """What cannot be made durable is not accepted, and its place in the box is free again."""
    await stage.journal.close()
    error = await refused(submit(stage, fresh_command(stage)))
    assert (error.reason, error.status) == ("JOURNAL_UNAVAILABLE", "UNAVAILABLE")
    assert error.retry_after_s is not None
    assert stage.trainer.applied == []
    stage.bridge.box.reserve(stage.bridge.box.capacity)
    stage.bridge.box.give_back(stage.bridge.box.capacity)


async def test_trainer_gone(stage: Theatre) -> None:
    """Nobody to carry it out: refused at once."""
    await asyncio.to_thread(stage.trainer.stop)
    error = await refused(submit(stage, fresh_command(stage)))
    assert (error.reason, error.status) == ("TRAINER_NOT_RUNNING", "UNAVAILABLE")


async def test_validate_only_changes_nothing(stage: Theatre) -> None:
    """Everything is checked, nothing is done."""
    answer = await submit(stage, fresh_command(stage, validate_only=True))
    assert answer.command.command_id == ""
    assert answer.command.state == 0
    await assert_untouched(stage)


async def test_other_permissions(stage: Theatre) -> None:
    """A policy may neither stop the run nor raise an emergency."""
    payload = run_service_pb2.StopRunPayload(request_id="s", reason="r").SerializeToString()
    envelope = stage.envelope("/esper.leyline.v1.RunService/StopRun", payload, "policy")
    error = await refused(RunServiceStub(stage.channel).StopRun(run_service_pb2.StopRunRequest(envelope=envelope)))
    assert error.reason == "PERMISSION_REQUIRED"
    signal = emergency_service_pb2.EmergencySignal(level=4, reason="r", request_id="e").SerializeToString()
    envelope = stage.envelope("/esper.leyline.v1.EmergencyService/RaiseEmergency", signal, "policy")
    request = emergency_service_pb2.RaiseEmergencyRequest(envelope=envelope)
    assert (await refused(EmergencyServiceStub(stage.channel).RaiseEmergency(request))).reason == "PERMISSION_REQUIRED"
    await assert_untouched(stage)


async def test_unknown_method_is_unimplemented(stage: Theatre) -> None:
    """A method that the contract does not know is told so."""
    call = stage.channel.unary_unary("/esper.leyline.v1.CommandService/Nonsense")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_refusals_are_audited_with_their_true_cause(stage: Theatre) -> None:
    """The caller learns SIGNATURE_INVALID, the audit log that the key is unknown."""
    envelope = stage.envelope(SUBMIT, b"x")
    envelope.signature = bytes(32)
    request = command_service_pb2.SubmitCommandRequest(envelope=envelope)
    await refused(CommandServiceStub(stage.channel).SubmitCommand(request))
    await submit(stage, fresh_command(stage))
    await eventually(lambda: stage.server.parts.recorder.is_idle)  # the trail is written behind the answers
    rows = (await stage.journal.list_audit(AuditQuery())).rows[::-1]
    assert [(row.entry.decision, row.entry.detail) for row in rows] == [
        ("SIGNATURE_INVALID", "wrong signature"),
        ("OK", ""),
    ]
    assert rows[1].entry.principal == "operator"
    assert (await stage.journal.verify_audit()).intact
