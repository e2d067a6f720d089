"""The emergency lane over the wire: answered by the trainer, before everything else, under any load."""

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from esper.client.errors import decode_rpc_error
from esper.leyline.v1 import command_service_pb2 as command_pb2
from esper.leyline.v1 import emergency_service_pb2 as pb
from esper.leyline.v1 import run_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.emergency_service_pb2_grpc import EmergencyServiceStub
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.config.settings import ControlSettings
from esperd.control.recorded_commands import to_command
from esperd.leyline.commands import EmergencyCommand
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.records import CommandQuery, CommandRecord, HistoryQuery, RowKind
from tests.integration.control.stage import SUBMIT, Theatre, eventually, fresh_command, open_stage

RAISE = "/esper.leyline.v1.EmergencyService/RaiseEmergency"
CLEAR = "/esper.leyline.v1.EmergencyService/ClearEmergency"


async def raise_one(stage: Theatre, channel: Any = None, **fields: Any) -> Any:
    facts = {"level": 4, "reason": "smoke", "request_id": stage.request_id(), **fields}
    envelope = stage.envelope(RAISE, pb.EmergencySignal(**facts).SerializeToString())
    stub = EmergencyServiceStub(channel or stage.channel)
    return await stub.RaiseEmergency(pb.RaiseEmergencyRequest(envelope=envelope))


async def test_raise_and_clear(stage: Theatre) -> None:
    """Answered when the trainer has it; listed; cleared by its id; both in the journal."""
    answer = await raise_one(stage)
    assert (answer.emergency.level, answer.emergency.origin, answer.emergency.reason) == (4, "operator", "smoke")
    assert answer.revision == 6
    stub = EmergencyServiceStub(stage.channel)
    listed = await stub.ListEmergencies(pb.ListEmergenciesRequest())
    assert (listed.level, len(listed.emergencies)) == (4, 1)
    payload = pb.ClearEmergencyPayload(emergency_id=answer.emergency.emergency_id, reason="false", request_id="c")
    request = pb.ClearEmergencyRequest(envelope=stage.envelope(CLEAR, payload.SerializeToString()))
    assert (await stub.ClearEmergency(request)).level == 0
    await eventually(lambda: stage.server.parts.commands.num_open == 0 and stage.server.parts.recorder.is_idle)
    rows = (await stage.journal.list_commands(CommandQuery())).rows
    assert [(row.kind, row.reason, row.state.name) for row in rows] == [
        ("emergency", "false", "APPLIED"),
        ("emergency", "smoke", "APPLIED"),
    ]


async def test_the_same_request_is_one_emergency(stage: Theatre) -> None:
    """A retry is answered with the first emergency; another under its name is refused."""
    first = await raise_one(stage, request_id="same")
    again = await raise_one(stage, request_id="same")
    assert first.emergency.emergency_id == again.emergency.emergency_id
    assert len(stage.trainer.snapshot.emergencies) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raise_one(stage, request_id="same", reason="other")
    assert decode_rpc_error(caught.value, "").reason == "REQUEST_ID_REUSED"


async def test_unacknowledged_is_told_and_still_takes_effect(stage: Theatre) -> None:
    """A trainer without a safe point: the caller is told in time, and the emergency is not lost."""
    stage.trainer.is_stuck.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raise_one(stage, acknowledge_within_ms=50, request_id="late")
    assert decode_rpc_error(caught.value, "").reason == "EMERGENCY_UNACKNOWLEDGED"
    stage.trainer.is_stuck.clear()
    assert (await raise_one(stage, acknowledge_within_ms=50, request_id="late-2")).revision > 5
    await eventually(lambda: len(stage.trainer.snapshot.emergencies) == 2)


async def test_a_dead_journal_does_not_hold_an_emergency(stage: Theatre) -> None:
    """The trainer is told before the disk."""
    await stage.journal.close()
    assert (await raise_one(stage)).emergency.level == 4


async def test_a_stuck_disk_that_would_have_to_be_asked_holds_an_emergency_for_a_moment_only(
    stage: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After very many requests only the disk knows whether an id is new; the trainer is told without its answer."""

    async def never(_: Sequence[str]) -> dict[str, CommandRecord]:
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(stage.journal, "find_requests", never)
    assert (await raise_one(stage)).emergency.level == 4


async def test_an_emergency_overtakes_a_full_command_box(directory: Any) -> None:
    """Where a command is refused for want of a place an emergency needs none, and the trainer has it first."""
    async with open_stage(directory, control=ControlSettings(command_box_capacity=4)) as stage:
        stage.trainer.is_stuck.set()
        commands = CommandServiceStub(stage.channel)

        async def submit() -> None:
            payload = fresh_command(stage).SerializeToString()
            await commands.SubmitCommand(command_pb2.SubmitCommandRequest(envelope=stage.envelope(SUBMIT, payload)))

        for _ in range(4):
            await submit()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await submit()
        assert decode_rpc_error(caught.value, "").reason == "COMMAND_BOX_FULL"
        raised = asyncio.ensure_future(raise_one(stage, acknowledge_within_ms=10_000))
        await eventually(lambda: bool(stage.bridge.box._emergency_lane))
        stage.trainer.is_stuck.clear()
        assert (await raised).emergency.level == 4
        await eventually(lambda: len(stage.trainer.applied) == 5)
        assert isinstance(stage.trainer.applied[0].payload, EmergencyCommand)


async def test_the_deadline_is_kept_while_the_box_is_full_and_the_trainer_stuck(directory: Any) -> None:
    """Neither the full box nor the busy trainer delays the answer, and the emergency still takes effect."""
    async with open_stage(directory, control=ControlSettings(command_box_capacity=1)) as stage:
        stage.trainer.is_stuck.set()
        payload = fresh_command(stage).SerializeToString()
        request = command_pb2.SubmitCommandRequest(envelope=stage.envelope(SUBMIT, payload))
        await CommandServiceStub(stage.channel).SubmitCommand(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raise_one(stage, acknowledge_within_ms=50)
        assert decode_rpc_error(caught.value, "").reason == "EMERGENCY_UNACKNOWLEDGED"
        stage.trainer.is_stuck.clear()
        await eventually(lambda: len(stage.trainer.snapshot.emergencies) == 1)


async def test_an_emergency_overtakes_a_flood(directory: Any) -> None:
    """With every caller of a flood paced, an emergency is answered at once; the flood is delayed, not lost."""
    control = ControlSettings(training_share=0.001, max_concurrent_calls=64)
    async with open_stage(directory, control=control, phase=TrainerPhase.TRAINING) as stage:
        flooding = grpc.aio.insecure_channel(stage.address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub = RunServiceStub(flooding)
        flood = [asyncio.ensure_future(stub.GetRun(run_service_pb2.GetRunRequest())) for _ in range(600)]
        await eventually(lambda: stage.server.parts.pacer.num_waiting >= 64)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await raise_one(stage)
        assert loop.time() - began_s < 2.0
        for call in flood:
            call.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        await flooding.close()
        await eventually(lambda: stage.server.parts.pacer.num_waiting == 0)


async def test_an_answered_emergency_is_durable(stage: Theatre) -> None:
    """Its outcome is in the journal when the caller hears of it: a kill of the daemon changes nothing of it then."""
    answer = await raise_one(stage)
    kept = await stage.journal.get_command(answer.emergency.emergency_id.removeprefix("e-"))
    assert kept is not None
    assert answer.durable
    assert (kept.method, kept.state.name, kept.global_step) == (RAISE, "APPLIED", answer.global_step)


async def test_a_stuck_disk_holds_an_emergency_for_its_deadline_at_most(stage: Theatre) -> None:
    """It is answered then, for the trainer has it; the answer says that it is not durable, and so does the history."""
    goes_on = threading.Event()
    stage.journal._writer.submit(goes_on.wait)
    try:
        answer = await raise_one(stage, acknowledge_within_ms=200)
        assert (answer.emergency.level, answer.durable) == (4, False)
        assert (await stage.journal.list_commands(CommandQuery())).rows == ()
    finally:
        goes_on.set()
    await eventually(lambda: stage.server.parts.recorder.is_idle)
    (row,) = (await stage.journal.list_history(HistoryQuery(kinds=(RowKind.NOTICE,)))).rows
    assert isinstance(row.record, NoticeEvent)
    assert (row.record.kind, row.record.attributes["emergency_id"]) == (
        "emergency.unwritten",
        answer.emergency.emergency_id,
    )


async def test_a_request_that_an_earlier_start_accepted_is_answered_by_its_outcome(stage: Theatre) -> None:
    """Sent again after a restart while the trainer has still to carry it out: the caller waits, nothing is doubled."""
    signal = pb.EmergencySignal(level=4, reason="smoke", request_id="again").SerializeToString()
    digest = hashlib.sha256(signal).digest()
    record = CommandRecord(
        "old-1", "again", "operator", "operator-1", RAISE, "emergency", signal, digest, 1.8e9, "smoke"
    )
    (accepted,) = await stage.journal.accept([record])
    stage.server.parts.commands.reopen([accepted.record])
    asking = asyncio.ensure_future(raise_one(stage, request_id="again"))
    await eventually(lambda: bool(stage.server.parts.commands._acknowledgements))
    stage.trainer.at_safe_point(lambda: stage.trainer._apply(to_command(accepted.record)))
    assert (await asking).emergency.emergency_id == "e-old-1"
    assert len(stage.trainer.snapshot.emergencies) == 1
