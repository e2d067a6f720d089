"""A daemon that leaves while endless streams are open: each is ended with a word, and none holds it up."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc.aio
import pytest
from esper.client.aio import AsyncClient
from esper.client.decision_session import DecisionSession
from esper.client.errors import decode_rpc_error
from esper.leyline.v1.command_service_pb2 import CommandStreamRequest, CommandStreamResponse
from esper.leyline.v1.server_service_pb2 import SERVER_STATE_DRAINING
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER, TRAINER_PHASE_TRAINING
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.control.http2 import raw_connection
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase

FOR_EVER = "control.drain_s=600"
"""Longer than any test may last: a stream that is not ended would hold the daemon up for so long."""


async def last_of(messages: AsyncIterator[Any]) -> Any:
    """The last message of a stream."""
    last = None
    async for message in messages:
        last = message
    return last


async def end_of_session(session: DecisionSession) -> bool:
    """Whether a session ended with the word that the daemon drains."""
    async for _ in session:
        pass
    return session.draining


async def reason_of(reading: Awaitable[Any]) -> str:
    """The refusal that a stream ended with."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await reading
    return decode_rpc_error(ended.value, "").reason


def open_command_stream(channel: grpc.aio.Channel) -> Any:
    method = channel.stream_stream(
        "/esper.leyline.v1.CommandService/CommandStream",
        request_serializer=CommandStreamRequest.SerializeToString,
        response_deserializer=CommandStreamResponse.FromString,
    )
    return method()


@contextlib.asynccontextmanager
async def training(daemon: DaemonProcess) -> AsyncIterator[AsyncClient]:
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        yield client


async def test_every_stream_is_ended_with_a_word(start_daemon: StartDaemon) -> None:
    """With a token to resume from where there is one; then nothing is left to wait for."""
    daemon = start_daemon(FOR_EVER)
    async with (
        training(daemon) as client,
        grpc.aio.insecure_channel(daemon.address) as channel,
        client.decision_session(LEASE_MODE_STEER, "mine", "1") as session,
    ):
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="trainer"))
        commands = open_command_stream(channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await reflection.read()).list_services_response.service
        watches: dict[str, Any] = {
            "health": aiter(health),
            "state": client.watch_state(reconnect_s=0.0),
            "commands": client.watch_commands(reconnect_s=0.0),
            "telemetry": client.stream_telemetry(reconnect_s=0.0),
            "server": client.watch_server_state(reconnect_s=0.0),
        }
        for watch in watches.values():
            await anext(watch)
        ends = {name: asyncio.create_task(last_of(watch)) for name, watch in watches.items()}
        ended_session = asyncio.create_task(end_of_session(session))
        refusals = [asyncio.create_task(reason_of(stream.read())) for stream in (commands, reflection)]
        daemon.signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            last = {name: await task for name, task in ends.items()}
            assert await asyncio.gather(*refusals) == ["DRAINING", "DRAINING"]
            assert await ended_session
    for name in ("state", "commands"):
        assert last[name].draining, name
        assert last[name].resume_token, name
    assert last["telemetry"].draining
    assert last["server"].state == SERVER_STATE_DRAINING
    assert daemon.wait() == 0


STUCK = "/esper.leyline.v1.StateService/WatchState"


async def test_a_client_that_takes_nothing_is_cut_when_the_time_is_over(start_daemon: StartDaemon) -> None:
    """Its stream cannot even be told; the daemon waits as long as it may, and no longer."""
    daemon = start_daemon("control.drain_s=0.5")
    async with training(daemon), raw_connection(daemon.folder / "run" / "leyline.sock") as stuck:
        stuck.call_without_reading(STUCK)
        await stuck.receive()
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0


async def test_a_second_signal_cuts_what_holds_up_the_first(start_daemon: StartDaemon) -> None:
    """Streams that are well read have ended; the one that is stuck would have ten minutes."""
    daemon = start_daemon(FOR_EVER)
    async with training(daemon) as client, raw_connection(daemon.folder / "run" / "leyline.sock") as stuck:
        stuck.call_without_reading(STUCK)
        await stuck.receive()
        watch = client.watch_state(reconnect_s=0.0)
        await anext(watch)
        daemon.signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert (await last_of(watch)).draining
        assert daemon.process.poll() is None
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0
