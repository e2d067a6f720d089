"""What gRPC holds connections to, option by option: gRPC ignores a name that it does not know without a word.

Against a server with our options and small numbers; the last tests show that the daemon's own server has them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from esper.client.channel import OPTIONS
from esper.leyline.v1.run_service_pb2 import GetRunRequest
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.config.settings import ControlSettings
from esperd.control.transport import ConnectionLimits, server_options
from tests.integration.control.http2 import (
    ACK,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PING,
    SETTINGS,
    raw_connection,
)
from tests.integration.control.stage import open_stage

ECHO = "/test/Echo"


class Echo(grpc.GenericRpcHandler):
    """Answers with so many bytes as it is asked for."""

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, _: Any) -> bytes:
        return bytes(int(request)) if request.isdigit() else b"fine"


class Mute(asyncio.Protocol):
    """A server that says hello and then nothing any more."""

    def __init__(self, greeted: list[asyncio.BaseTransport]) -> None:
        self._greeted = greeted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._greeted.append(transport)
        for flags in (0, ACK):
            cast(asyncio.Transport, transport).write(bytes([0, 0, 0, SETTINGS, flags, 0, 0, 0, 0]))


@contextlib.asynccontextmanager
async def serving(**limits: int) -> AsyncIterator[int]:
    """A server with our options; its port."""
    server = grpc.aio.server(options=server_options(replace(ConnectionLimits(), **limits)))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def call(port: int, request: bytes = b"", **more: Any) -> grpc.StatusCode:
    """The status of one call, from a client without limits of its own."""
    options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        try:
            await channel.unary_unary(ECHO)(request, timeout=10, **more)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_large_requests_are_refused() -> None:
    """max_receive_message_length; a compressed one counts as what it unpacks to."""
    async with serving(max_request_bytes=1000) as port:
        assert await call(port, b"x" * 1000) is grpc.StatusCode.OK
        assert await call(port, b"x" * 1001) is grpc.StatusCode.RESOURCE_EXHAUSTED
        bomb = await call(port, b"x" * 100_000, compression=grpc.Compression.Gzip)
        assert bomb is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_answers_are_not_sent() -> None:
    """max_send_message_length."""
    async with serving(max_answer_bytes=1000) as port:
        assert await call(port, b"1000") is grpc.StatusCode.OK
        assert await call(port, b"1001") is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_metadata_is_refused() -> None:
    """max_metadata_size, and what is never let through, which the client is told in its SETTINGS."""
    async with serving(max_metadata_bytes=1000) as port:
        assert await call(port, metadata=(("x", "y" * 400),)) is grpc.StatusCode.OK
        assert await call(port, metadata=(("x", "y" * 2500),)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with raw_connection(port) as connection:
            settings = await connection.until(SETTINGS)
            assert settings is not None
            assert settings.settings[MAX_HEADER_LIST_SIZE] == 2000


async def test_streams_of_one_connection() -> None:
    """max_concurrent_streams, as the client is told it."""
    async with serving(max_streams_per_connection=7) as port, raw_connection(port) as connection:
        settings = await connection.until(SETTINGS)
        assert settings is not None
        assert settings.settings[MAX_CONCURRENT_STREAMS] == 7


async def test_connections_beyond_the_limit_are_closed() -> None:
    """max_allowed_incoming_connections; one that leaves makes room."""
    async with serving(max_connections=2) as port, raw_connection(port) as first:
        assert await first.until(SETTINGS) is not None
        async with raw_connection(port) as second:
            assert await second.until(SETTINGS) is not None
            async with raw_connection(port) as third:
                assert await third.receive() is None
        async with asyncio.timeout(10):
            while True:
                async with raw_connection(port) as next_one:
                    if await next_one.until(SETTINGS) is not None:
                        break


async def test_a_silent_newcomer_is_closed() -> None:
    """server_handshake_timeout_ms: nobody holds a connection by saying nothing."""
    async with serving(handshake_ms=50) as port, raw_connection(port, greets=False) as silent:
        frames = []
        while (frame := await silent.receive()) is not None:
            frames.append(frame)
        assert frames[-1].kind == GOAWAY
        assert "Did not receive HTTP/2" in frames[-1].error[1]


async def test_a_client_that_pings_too_often_is_cut_off() -> None:
    """min_ping_interval_without_data_ms: a flood of pings costs the flooder its connection."""
    async with serving() as port, raw_connection(port) as flooder:
        for number in range(8):
            flooder.ping(number)
            # One at a time: what the server has not read when it closes would have its last words thrown away.
            while (frame := await flooder.receive()) is not None and frame.kind not in (PING, GOAWAY):
                pass
            if frame is None or frame.kind == GOAWAY:
                break
        assert frame is not None
        assert frame.error == (ENHANCE_YOUR_CALM, "too_many_pings")


async def test_a_client_that_pings_rarely_enough_is_answered() -> None:
    """The same option the other way: with another name gRPC would hold to its own 5 minutes and cut this one off."""
    async with serving(min_ping_interval_ms=10) as port, raw_connection(port) as patient:
        for number in range(8):
            await asyncio.sleep(0.02)
            patient.ping(number)
            assert await patient.until(PING, ACK) is not None


async def test_a_vanished_client_is_noticed() -> None:
    """keepalive_time_ms and ping_timeout_ms: a silent peer is pinged, and closed when it does not answer."""
    async with serving(ping_ms=50, ping_answer_ms=100) as port, raw_connection(port) as dead:
        assert await dead.until(PING) is not None
        frame = await dead.until(GOAWAY)
        assert frame is not None
        assert frame.error[1] == "ping_timeout"
        assert await dead.receive() is None


async def test_a_client_notices_a_vanished_daemon() -> None:
    """The SDK's own options, with small numbers under the same names."""
    names = dict(OPTIONS)
    assert {"grpc.keepalive_time_ms", "grpc.http2.ping_timeout_ms"} < set(names)

    greeted: list[asyncio.BaseTransport] = []
    mute = await asyncio.get_running_loop().create_server(lambda: Mute(greeted), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    options = {**names, "grpc.keepalive_time_ms": 50, "grpc.http2.ping_timeout_ms": 100}
    async with mute, grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=tuple(options.items())) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await channel.unary_unary(ECHO)(b"", timeout=20)
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "ping timeout" in (cut.value.details() or "")
    for transport in greeted:
        transport.close()


async def test_the_daemons_own_server(directory: Path) -> None:
    """It has the options, and the configured number of connections."""
    control = ControlSettings(listen=("127.0.0.1:0",), max_connections=2)
    async with open_stage(directory, control=control) as stage:
        port = int(stage.address.rpartition(":")[2])
        await RunServiceStub(stage.channel).GetRun(GetRunRequest())
        async with raw_connection(port) as connection:
            settings = await connection.until(SETTINGS)
            assert settings is not None
            limits = ConnectionLimits()
            assert settings.settings[MAX_CONCURRENT_STREAMS] == limits.max_streams_per_connection
            assert settings.settings[MAX_HEADER_LIST_SIZE] == 2 * limits.max_metadata_bytes
            async with raw_connection(port) as third:
                assert await third.receive() is None
