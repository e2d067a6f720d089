"""Watches, telemetry and command streams over the wire: what each of them promises."""

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from esper.client.errors import decode_rpc_error
from esper.leyline.v1 import (
    command_pb2,
    command_service_pb2,
    server_service_pb2,
    state_service_pb2,
    telemetry_service_pb2,
)
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.server_service_pb2_grpc import ServerServiceStub
from esper.leyline.v1.state_service_pb2_grpc import StateServiceStub
from esper.leyline.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from esperd.config.settings import ControlSettings
from tests.integration.control.stage import SUBMIT, Theatre, eventually, fresh_command, open_stage

COMMAND_STREAM = "/esper.leyline.v1.CommandService/CommandStream"


def watch(stage: Theatre, **fields: Any) -> Any:
    return StateServiceStub(stage.channel).WatchState(state_service_pb2.WatchStateRequest(**fields))


def train_to(stage: Theatre, step: int) -> None:
    """The next revision: the run is at this step."""
    stage.trainer.at_safe_point(
        lambda: stage.trainer.publish(run=replace(stage.trainer.snapshot.run, global_step=step))
    )


async def deltas(call: Any, num: int) -> list[Any]:
    """The next messages that are no bookmarks."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while len(found) < num:
            message = await call.read()
            assert message is not grpc.aio.EOF
            if message.WhichOneof("content"):
                found.append(message)
    return found


async def rest(call: Any) -> list[Any]:
    """Everything up to the end of a stream."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while (message := await call.read()) is not grpc.aio.EOF:
            found.append(message)
    return found


async def submit(stage: Theatre, command: command_pb2.AdaptationCommand) -> Any:
    request = command_service_pb2.SubmitCommandRequest(envelope=stage.envelope(SUBMIT, command.SerializeToString()))
    return await CommandServiceStub(stage.channel).SubmitCommand(request)


async def test_watch_state_latest_sends_the_newest_of_each_thing(stage: Theatre) -> None:
    """A watcher of LATEST gets there, with what was passed over counted."""
    call = watch(stage, delivery=state_service_pb2.DELIVERY_POLICY_LATEST)
    (first,) = await deltas(call, 1)

    def many() -> None:
        for step in range(101, 301):
            stage.trainer.publish(run=replace(stage.trainer.snapshot.run, global_step=step))

    stage.trainer.at_safe_point(many)
    revision, num_seen, num_conflated = first.revision, 0, 0
    while revision < 205:
        (message,) = await deltas(call, 1)
        assert message.revision > revision
        revision = message.revision
        num_seen += message.delta.HasField("run") + len(message.delta.seeds)
        num_conflated += message.num_conflated
    assert num_seen + num_conflated == 400, "the run and the seed that ages with its steps"


async def test_watch_commands_tells_acceptance_and_outcome(stage: Theatre) -> None:
    """Each command twice: accepted, then settled; and again from a token."""
    call = CommandServiceStub(stage.channel).WatchCommands(command_service_pb2.WatchCommandsRequest())
    start = await call.read()
    accepted = (await submit(stage, fresh_command(stage))).command
    told = [await asyncio.wait_for(call.read(), 5) for _ in range(2)]
    assert [(c.command_id, c.state) for message in told for c in message.commands] == [
        (accepted.command_id, 1),
        (accepted.command_id, 2),
    ]
    again = CommandServiceStub(stage.channel).WatchCommands(
        command_service_pb2.WatchCommandsRequest(resume_token=start.resume_token)
    )
    assert [(await again.read()).commands[0].state for _ in range(2)] == [1, 2]


async def test_get_command_waits_for_the_outcome(stage: Theatre) -> None:
    """A waiting read answers with the outcome, the seed it made, and who asked."""
    accepted = (await submit(stage, fresh_command(stage))).command
    request = command_service_pb2.GetCommandRequest(command_id=accepted.command_id, wait_ms=5000)
    command = (await CommandServiceStub(stage.channel).GetCommand(request)).command
    assert (command.state, command.seed_id, command.principal) == (2, "2", "operator")
    assert command.request.seed_operation.site == "block.1"


async def test_a_seeds_story_comes_from_the_journal(stage: Theatre) -> None:
    """GetSeed tells by which command the seed came."""
    accepted = (await submit(stage, fresh_command(stage))).command
    request = command_service_pb2.GetCommandRequest(command_id=accepted.command_id, wait_ms=5000)
    await CommandServiceStub(stage.channel).GetCommand(request)
    await eventually(lambda: stage.server.parts.recorder.is_idle)
    seed = await StateServiceStub(stage.channel).GetSeed(state_service_pb2.GetSeedRequest(seed_id="2"))
    assert [step.cause for step in seed.transitions] == [accepted.command_id]


async def test_cancel(stage: Theatre) -> None:
    """A waiting command can be taken back; one that took effect cannot."""
    stage.trainer.holds_commands = True
    accepted = (await submit(stage, fresh_command(stage))).command
    stub, method = CommandServiceStub(stage.channel), "/esper.leyline.v1.CommandService/CancelCommand"
    payload = command_service_pb2.CancelCommandPayload(command_id=accepted.command_id, reason="r").SerializeToString()
    request = command_service_pb2.CancelCommandRequest(envelope=stage.envelope(method, payload))
    assert (await stub.CancelCommand(request)).command.state == command_pb2.Command(state=5).state
    request = command_service_pb2.CancelCommandRequest(envelope=stage.envelope(method, payload))
    assert (await stub.CancelCommand(request)).command.state == 5
    assert stage.trainer.applied == []
    stage.trainer.holds_commands = False
    done = (await submit(stage, fresh_command(stage))).command
    await stub.GetCommand(command_service_pb2.GetCommandRequest(command_id=done.command_id, wait_ms=5000))
    payload = command_service_pb2.CancelCommandPayload(command_id=done.command_id).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CancelCommand(command_service_pb2.CancelCommandRequest(envelope=stage.envelope(method, payload)))
    assert decode_rpc_error(caught.value, "").reason == "COMMAND_NOT_CANCELLABLE"


async def test_batches_are_all_or_none(stage: Theatre) -> None:
    """One command that cannot be accepted refuses its whole batch."""
    method = "/esper.leyline.v1.CommandService/SubmitCommands"
    good, bad = fresh_command(stage), fresh_command(stage, expected_revision=4)
    for commands, is_accepted in (([good, bad], False), ([good], True)):
        payload = command_service_pb2.CommandBatch(commands=commands).SerializeToString()
        request = command_service_pb2.SubmitCommandsRequest(envelope=stage.envelope(method, payload))
        call = CommandServiceStub(stage.channel).SubmitCommands(request)
        if is_accepted:
            assert len((await call).commands) == 1
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            error = decode_rpc_error(caught.value, "")
            assert (error.reason, error.metadata["index"]) == ("STATE_CHANGED", "1")
            assert stage.trainer.applied == []


async def test_command_stream_answers_in_order_and_goes_on_after_a_refusal(stage: Theatre) -> None:
    """Receipts keep the order of batches and commands; a refused batch or command leaves the others alone."""
    call = CommandServiceStub(stage.channel).CommandStream()

    async def send(*commands: command_pb2.AdaptationCommand, spoil: bool = False) -> None:
        payload = command_service_pb2.CommandBatch(commands=commands).SerializeToString()
        envelope = stage.envelope(COMMAND_STREAM, payload)
        if spoil:
            envelope.signature = bytes(32)
        await call.write(command_service_pb2.CommandStreamRequest(envelope=envelope))

    pause = command_pb2.CommandRunControl(action=1)
    first = [fresh_command(stage, run_control=pause) for _ in range(64)]
    await send(*first)
    await send(fresh_command(stage), spoil=True)
    await send(fresh_command(stage, run_control=pause), fresh_command(stage, expected_revision=1), first[0])
    await call.done_writing()
    answers = [answer async for answer in call]
    assert [answer.batch_number for answer in answers] == [1, 2, 3]
    assert [receipt.request_id for receipt in answers[0].receipts] == [command.request_id for command in first]
    assert all(receipt.state == 1 for receipt in answers[0].receipts)
    assert answers[1].error.reason == "SIGNATURE_INVALID"
    good, stale, again = answers[2].receipts
    assert good.state == 1
    assert stale.error.reason == "STATE_CHANGED"
    assert again.duplicate


async def test_command_stream_that_breaks_loses_nothing_accepted(stage: Theatre) -> None:
    """A client that vanishes right after sending leaves whole commands behind, each with its outcome."""
    call = CommandServiceStub(stage.channel).CommandStream()
    pause = command_pb2.CommandRunControl(action=1)
    payload = command_service_pb2.CommandBatch(
        commands=[fresh_command(stage, run_control=pause) for _ in range(100)]
    ).SerializeToString()
    await call.write(command_service_pb2.CommandStreamRequest(envelope=stage.envelope(COMMAND_STREAM, payload)))
    await call.read()
    call.cancel()
    await eventually(lambda: len(stage.trainer.applied) == 100)
    await eventually(lambda: stage.server.parts.commands.num_open == 0)


async def test_streams_are_bounded(directory: Any) -> None:
    """One stream more than configured is refused, and the others stay."""
    async with open_stage(directory, control=ControlSettings(max_streams=2)) as stage:
        calls = [watch(stage) for _ in range(2)]
        for call in calls:
            await deltas(call, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await deltas(watch(stage), 1)
        assert decode_rpc_error(caught.value, "").reason == "TOO_MANY_STREAMS"
        calls[0].cancel()
        await eventually(lambda: stage.server.parts.connections.num_streams < 2)
        await deltas(watch(stage), 1)


async def test_telemetry_frames(stage: Theatre) -> None:
    """Samples come in frames with their metric, filtered by name; an unknown metric is refused."""
    stub = TelemetryServiceStub(stage.channel)
    call = stub.StreamTelemetry(telemetry_service_pb2.StreamTelemetryRequest(metrics=["tolaria.step.*"]))
    await eventually(lambda: stage.server.parts.telemetry._hub.num_subscriptions == 1)
    for step in range(5):
        stage.bridge.emit(("tolaria.step.loss", 0, step, 0.5, step))
        stage.bridge.emit(("kasmina.seed.alpha", 1, step, 0.5, step))
    message = await asyncio.wait_for(call.read(), 5)
    (series,) = message.frame.series
    assert (series.name, list(series.global_steps)) == ("tolaria.step.loss", list(range(5)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.StreamTelemetry(telemetry_service_pb2.StreamTelemetryRequest(metrics=["no.such"])).read()
    assert decode_rpc_error(caught.value, "").reason == "METRIC_UNKNOWN"
    assert len((await stub.ListMetrics(telemetry_service_pb2.ListMetricsRequest())).metrics) > 5


async def test_drain_ends_every_stream_with_a_token(stage: Theatre) -> None:
    """Endless streams do not hold the daemon up: each gets its last message, then OK."""
    states = [watch(stage) for _ in range(3)]
    for call in states:
        await deltas(call, 1)
    commands = CommandServiceStub(stage.channel).WatchCommands(command_service_pb2.WatchCommandsRequest())
    await commands.read()
    telemetry = TelemetryServiceStub(stage.channel).StreamTelemetry(telemetry_service_pb2.StreamTelemetryRequest())
    server = ServerServiceStub(stage.channel).WatchServerState(server_service_pb2.WatchServerStateRequest())
    assert (await server.read()).state == server_service_pb2.SERVER_STATE_SERVING
    await eventually(lambda: stage.server.parts.telemetry._hub.num_subscriptions == 1)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    stop = loop.create_task(stage.server.drain_and_stop(5.0))
    for call in (*states, commands, telemetry):
        messages = await rest(call)
        assert messages[-1].draining
        assert await call.code() is grpc.StatusCode.OK
    assert (await rest(server))[-1].state == server_service_pb2.SERVER_STATE_DRAINING
    await stop
    assert loop.time() - began_s < 4.0, "nothing waited for the grace to pass"


async def test_drain_answers_those_who_wait_for_an_outcome(stage: Theatre) -> None:
    """A waiting read is told DRAINING, long before its time is over: the outcome comes from the run's next start."""
    stage.trainer.holds_commands = True
    accepted = (await submit(stage, fresh_command(stage))).command
    request = command_service_pb2.GetCommandRequest(command_id=accepted.command_id, wait_ms=60_000)
    waiting = asyncio.ensure_future(CommandServiceStub(stage.channel).GetCommand(request))
    await eventually(lambda: bool(stage.server.parts.commands._settlements))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await stage.server.drain_and_stop(8.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    assert decode_rpc_error(caught.value, "").reason == "DRAINING"
    assert loop.time() - began_s < 4.0
