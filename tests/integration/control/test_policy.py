"""DecisionStream over the wire: lease, deadlines, rubbish, silence; and field reports."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from esper.client.errors import decode_rpc_error
from esper.leyline.v1 import command_pb2, field_report_pb2, policy_service_pb2, run_service_pb2
from esper.leyline.v1.policy_service_pb2_grpc import PolicyServiceStub
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.config.settings import BudgetSettings
from esperd.leyline.commands import SeedCommand
from esperd.oona.records import HistoryQuery, RowKind
from tests.integration.control.stage import Theatre, eventually, open_stage

METHOD = "/esper.leyline.v1.PolicyService/DecisionStream"
STEER, ADVISE = 1, 2
GERMINATE = command_pb2.CommandSeedOperation(operation=1, blueprint_id="bottleneck", site="block.1")


class Policy:
    """A policy by hand."""

    def __init__(self, stage: Theatre, who: str = "policy") -> None:
        self.stage = stage
        self.who = who
        self.call = PolicyServiceStub(stage.channel).DecisionStream()

    async def open(self, mode: int = STEER, **fields: Any) -> Any:
        opening = policy_service_pb2.SessionOpening(mode=mode, policy_name="by-hand", **fields)  # type: ignore[arg-type]
        await self.send(opening.SerializeToString())
        return (await self.read()).opened

    async def send(self, payload: bytes, *, spoil: bool = False) -> None:
        envelope = self.stage.envelope(METHOD, payload, self.who)
        if spoil:
            envelope.signature = bytes(32)
        await self.call.write(policy_service_pb2.DecisionStreamRequest(envelope=envelope))

    async def read(self) -> Any:
        message = await asyncio.wait_for(self.call.read(), 10)
        assert message is not grpc.aio.EOF
        return message

    async def read_until(self, content: str) -> Any:
        while (message := await self.read()).WhichOneof("content") != content:
            pass
        return getattr(message, content)

    async def decide(self, decision_id: str, *commands: command_pb2.AdaptationCommand, rationale: str = "") -> Any:
        decision = policy_service_pb2.PolicyDecision(decision_id=decision_id, commands=commands, rationale=rationale)
        await self.send(decision.SerializeToString())
        return await self.read_until("receipt")


async def reason_of(policy: Policy) -> str:
    """Why a session was refused or ended."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await policy.read_until("the end")
    return decode_rpc_error(caught.value, "").reason


def presences(stage: Theatre) -> list[bool]:
    return [presence.present for presence in stage.trainer.presences]


async def lease_holder(stage: Theatre) -> str:
    return (await RunServiceStub(stage.channel).GetRun(run_service_pb2.GetRunRequest())).lease_principal


async def test_a_session_from_opening_to_outcome(stage: Theatre) -> None:
    """Opening takes the lease; a packet asks; a decision is accepted, journaled with its id, and its outcome told."""
    policy = Policy(stage)
    opened = await policy.open(packet_every_steps=25)
    assert (opened.mode, opened.run_id) == (STEER, "run-1")
    assert await lease_holder(stage) == "policy"
    await eventually(lambda: presences(stage) == [True])
    assert stage.trainer.presences[0].packet_every_steps == 25
    stage.trainer.packet(1)
    request = await policy.read_until("request")
    assert (request.packet.revision, len(request.packet.sites), request.packet.run.run_id) == (5, 2, "run-1")
    assert request.deadline.seconds > 0
    receipt = await policy.decide(
        request.decision_id, command_pb2.AdaptationCommand(seed_operation=GERMINATE), rationale="it has stalled"
    )
    assert not receipt.HasField("error")
    outcome = (await policy.read_until("outcome")).command
    assert (outcome.state, outcome.seed_id, outcome.principal) == (2, "2", "policy")
    assert outcome.command_id == receipt.commands[0].command_id
    germination = next(c for c in stage.trainer.applied if isinstance(c.payload, SeedCommand))
    assert germination.decision_id == request.decision_id
    await eventually(lambda: stage.server.parts.recorder.is_idle)
    notices = (await stage.journal.list_history(HistoryQuery(kinds=(RowKind.NOTICE,)))).rows
    assert any("it has stalled" in str(row.record) and request.decision_id in str(row.record) for row in notices)


async def test_later_packets_carry_only_sites_that_changed(stage: Theatre) -> None:
    """Every site in the first packet of a stream, then only what is new."""
    policy = Policy(stage)
    await policy.open()
    stage.trainer.packet(1)
    request = await policy.read_until("request")
    await policy.decide(request.decision_id)
    stage.trainer.packet(2, "interval")
    request = await policy.read_until("request")
    assert (len(request.packet.sites), request.packet.HasField("run")) == (0, False)


async def test_one_policy_steers(stage: Theatre) -> None:
    """A second steering policy is refused and named who steers; when the first leaves, the lease is free."""
    first = Policy(stage)
    await first.open()
    second = Policy(stage, "rival")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second.open()
    error = decode_rpc_error(caught.value, "")
    assert (error.reason, error.metadata["principal"]) == ("LEASE_TAKEN", "policy")
    await first.call.done_writing()
    await eventually(lambda: presences(stage) == [True, False])
    await Policy(stage, "rival").open()
    assert await lease_holder(stage) == "rival"


async def test_advisers_are_recorded_and_not_obeyed(stage: Theatre) -> None:
    """Any number of advisers beside the steering policy; what they say goes to the history only."""
    await Policy(stage).open()
    advisers = [Policy(stage, "rival"), Policy(stage, "rival")]
    for adviser in advisers:
        await adviser.open(ADVISE)
    stage.trainer.packet(1)
    request = await advisers[0].read_until("request")
    receipt = await advisers[0].decide(
        request.decision_id, command_pb2.AdaptationCommand(seed_operation=GERMINATE), rationale="I would grow"
    )
    assert [(command.command_id, command.state) for command in receipt.commands] == [("", 0)]
    await eventually(lambda: stage.server.parts.recorder.is_idle)
    assert not any(isinstance(command.payload, SeedCommand) for command in stage.trainer.applied)
    notices = (await stage.journal.list_history(HistoryQuery(kinds=(RowKind.NOTICE,)))).rows
    assert [row.record.kind for row in notices] == ["policy.advice"]  # type: ignore[union-attr]


async def test_a_decision_for_an_old_packet_is_stale(stage: Theatre) -> None:
    """An answer to anything but the outstanding packet changes nothing."""
    policy = Policy(stage)
    await policy.open()
    stage.trainer.packet(1)
    request = await policy.read_until("request")
    assert not (await policy.decide(request.decision_id)).HasField("error")
    receipt = await policy.decide(request.decision_id, command_pb2.AdaptationCommand(seed_operation=GERMINATE))
    assert receipt.error.reason == "DECISION_STALE"
    assert not any(isinstance(command.payload, SeedCommand) for command in stage.trainer.applied)


async def test_while_a_policy_thinks_only_the_newest_packet_waits(stage: Theatre) -> None:
    """One question at a time: the packets in between are passed over."""
    policy = Policy(stage)
    await policy.open()
    for number in range(1, 6):
        stage.trainer.packet(number)
    first = await policy.read_until("request")
    assert first.packet.packet_id == "1"
    await eventually(lambda: _waiting_packet(stage) == 5)
    await policy.decide(first.decision_id)
    assert (await policy.read_until("request")).packet.packet_id == "5"


def _waiting_packet(stage: Theatre) -> int:
    (session,) = stage.server.parts.sessions._sessions.values()
    return 0 if session.waiting is None else session.waiting.packet_number


RUBBISH: list[tuple[str, Callable[[Policy], Any]]] = [
    ("SIGNATURE_INVALID", lambda policy: policy.send(b"", spoil=True)),
    ("COMMAND_INVALID", lambda policy: policy.send(b"\xff\xff\xff")),
    ("SIGNATURE_MISSING", lambda policy: policy.call.write(policy_service_pb2.DecisionStreamRequest())),
]


@pytest.mark.parametrize(("reason", "write"), RUBBISH, ids=[row[0] for row in RUBBISH])
async def test_rubbish_ends_the_session_and_its_lease(
    stage: Theatre, reason: str, write: Callable[[Policy], Any]
) -> None:
    """What is not signed, or signed and no decision, ends the stream; the trainer learns that the policy is lost."""
    policy = Policy(stage)
    await policy.open()
    await write(policy)
    assert await reason_of(policy) == reason
    await eventually(lambda: presences(stage) == [True, False])
    assert await lease_holder(stage) == ""


async def test_invalid_commands_count_as_missed_deadlines(stage: Theatre) -> None:
    """A policy that only sends commands that are not well formed is told each time, and loses its lease."""
    policy = Policy(stage)
    await policy.open()
    for number in range(1, 4):
        stage.trainer.packet(number)
        request = await policy.read_until("request")
        receipt = await policy.decide(request.decision_id, command_pb2.AdaptationCommand())
        assert receipt.error.reason == "COMMAND_INVALID"
    await eventually(lambda: presences(stage) == [True, False])


async def test_silence_loses_the_lease_and_an_answer_takes_it_back(directory: Any) -> None:
    """Three missed deadlines in a row make the run conservative; the session stays, and a timely answer ends it."""
    async with open_stage(directory, budgets=BudgetSettings(policy_answer_s=0.3, missed_deadlines=3)) as stage:
        policy = Policy(stage)
        await policy.open()
        late = ""
        for number in range(1, 4):
            stage.trainer.packet(number)
            late = (await policy.read_until("request")).decision_id
        await eventually(lambda: presences(stage) == [True, False])
        assert await lease_holder(stage) == ""
        receipt = await policy.decide(late, command_pb2.AdaptationCommand(seed_operation=GERMINATE))
        assert receipt.error.reason == "DECISION_STALE"
        stage.trainer.packet(4)
        request = await policy.read_until("request")
        assert not (await policy.decide(request.decision_id)).HasField("error")
        await eventually(lambda: presences(stage) == [True, False, True])
        assert await lease_holder(stage) == "policy"


async def test_a_policy_that_reads_nothing_costs_nothing(directory: Any) -> None:
    """What waits for a stopped policy is bounded, and the trainer's commands still get their outcomes."""
    async with open_stage(directory, budgets=BudgetSettings(policy_answer_s=0.01, missed_deadlines=3)) as stage:
        policy = Policy(stage)
        await policy.open()
        number = 0
        while presences(stage) != [True, False]:
            for _ in range(100):
                number += 1
                stage.trainer.packet(number)
            await asyncio.sleep(0.02)
        (session,) = stage.server.parts.sessions._sessions.values()
        assert len(session.outbox._messages) < 10


async def test_the_lease_is_lost_with_the_connection(stage: Theatre) -> None:
    """A killed policy is noticed at once."""
    policy = Policy(stage)
    await policy.open()
    policy.call.cancel()
    await eventually(lambda: presences(stage) == [True, False])


async def test_drain_ends_sessions(stage: Theatre) -> None:
    """The daemon says that it leaves."""
    policy = Policy(stage)
    await policy.open()
    stop = asyncio.get_running_loop().create_task(stage.server.drain_and_stop(5.0))
    assert (await policy.read_until("draining")) is not None
    assert await policy.call.read() is grpc.aio.EOF
    await stop


async def test_field_reports_are_stored_once(stage: Theatre) -> None:
    """Delivered twice, kept once; a number that is none is refused."""
    method = "/esper.leyline.v1.PolicyService/SubmitFieldReport"
    stub = PolicyServiceStub(stage.channel)
    report = field_report_pb2.FieldReport(report_id="r1", outcome=1, seed_id="1", metrics={"delta": 0.5})  # type: ignore[arg-type]

    async def file(message: field_report_pb2.FieldReport) -> bool:
        envelope = stage.envelope(method, message.SerializeToString(), "policy")
        return (await stub.SubmitFieldReport(policy_service_pb2.SubmitFieldReportRequest(envelope=envelope))).duplicate

    assert [await file(report), await file(report)] == [False, True]
    listed = await stub.ListFieldReports(policy_service_pb2.ListFieldReportsRequest())
    assert [found.report_id for found in listed.reports] == ["r1"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await file(field_report_pb2.FieldReport(report_id="r2", outcome=1, metrics={"delta": float("inf")}))  # type: ignore[arg-type]
    assert decode_rpc_error(caught.value, "").reason == "REPORT_INVALID"
