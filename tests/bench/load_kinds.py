"""The kinds of load: what each does to the daemon while it is on.

Runs in a load process, on asyncio. Calls are raw (bytes in, a message out), so that the client costs the machine as
little as it can beside what is measured.
"""

import asyncio
import dataclasses
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import uvloop
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.signing import Signer
from esper.leyline.v1 import command_pb2, command_service_pb2, server_service_pb2, telemetry_service_pb2, vocabulary_pb2
from esper.leyline.v1.envelope_pb2 import SignedEnvelope

from tests.bench.load import tally

_PACKAGE = "/esper.leyline.v1."
SUBMIT = _PACKAGE + "CommandService/SubmitCommand"
COMMAND_STREAM = _PACKAGE + "CommandService/CommandStream"
GET_RUN = _PACKAGE + "RunService/GetRun"
TELEMETRY = _PACKAGE + "TelemetryService/StreamTelemetry"
SERVER_INFO = _PACKAGE + "ServerService/GetServerInfo"
CALL_S = 30.0
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Client:
    """A channel, a signer, and what was done while the load was on."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.address, self.credentials = address, credentials
        self.channel: Any = grpc.aio.insecure_channel(address)
        self._signer = Signer(credentials, wall_clock=time.time, random_bytes=os.urandom)
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self.is_on = False
        self.forget()

    def forget(self) -> None:
        self.times_s: list[float] = []
        self.num_done = self.num_refused = self.num_items = 0

    async def meet(self) -> None:
        raw = await self.channel.unary_unary(SERVER_INFO)(b"")
        self._signer.learn(server_service_pb2.GetServerInfoResponse.FromString(raw))

    def command(self, *, validate_only: bool = False) -> command_pb2.AdaptationCommand:
        """A command that any run can carry out, of about the size of a real one: set the learning rate."""
        change = command_pb2.CommandOptimizerAdjustment(optimizer_id="host", hyperparameters={"lr": 1e-5})
        return command_pb2.AdaptationCommand(
            version=1,
            request_id=f"{self._prefix}-{next(self._numbers)}",
            reason="bench",
            optimizer_adjustment=change,
            validate_only=validate_only,
        )

    def submission(self, *, validate_only: bool = False) -> bytes:
        envelope = self._signer.sign(SUBMIT, self.command(validate_only=validate_only).SerializeToString())
        return command_service_pb2.SubmitCommandRequest(envelope=envelope).SerializeToString()

    def batch(self, size: int) -> bytes:
        payload = command_service_pb2.CommandBatch(commands=[self.command() for _ in range(size)])
        envelope = self._signer.sign(COMMAND_STREAM, payload.SerializeToString())
        return command_service_pb2.CommandStreamRequest(envelope=envelope).SerializeToString()

    def forgery(self) -> bytes:
        envelope = SignedEnvelope(header=b"", payload=os.urandom(240), signature=os.urandom(32))
        return command_service_pb2.SubmitCommandRequest(envelope=envelope).SerializeToString()

    async def unary(self, method: str, data: bytes) -> None:
        """One call, timed and counted."""
        began_s = time.perf_counter()
        try:
            await self.channel.unary_unary(method)(data, timeout=CALL_S)
        except grpc.aio.AioRpcError:
            self.num_refused += 1
            return
        self.num_done += 1
        self.times_s.append(time.perf_counter() - began_s)


Load = Callable[[Client], Awaitable[None]]


async def flood(client: Client, *, num_in_flight: int, method: str, make: Callable[[Client], bytes]) -> None:
    """Always so many calls in flight."""

    async def caller() -> None:
        while client.is_on:
            await client.unary(method, make(client))

    await asyncio.gather(*(caller() for _ in range(num_in_flight)))


async def steady(client: Client, *, per_s: float) -> None:
    """So many signed commands a second, each when its time has come, whatever became of the others."""
    loop, calls = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    due_s = loop.time()
    while client.is_on:
        due_s += 1.0 / per_s
        await asyncio.sleep(due_s - loop.time())
        call = loop.create_task(client.unary(SUBMIT, client.submission()))
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)


async def stream(client: Client, *, batch_size: int, per_s: float, num_ahead: int) -> None:
    """Signed batches up one CommandStream: at a rate, or with `per_s` 0 as fast as they are answered."""
    call = client.channel.stream_stream(COMMAND_STREAM)()
    room = asyncio.Semaphore(num_ahead)

    async def read() -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            room.release()
            answer = command_service_pb2.CommandStreamResponse.FromString(data)
            refused = sum(1 for receipt in answer.receipts if receipt.HasField("error"))
            client.num_refused += refused if answer.receipts else batch_size
            client.num_done += len(answer.receipts) - refused

    reader = asyncio.create_task(read())
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while client.is_on:
        if per_s:
            due_s += batch_size / per_s
            await asyncio.sleep(due_s - loop.time())
        await room.acquire()
        await call.write(client.batch(batch_size))
    await call.done_writing()
    await reader


async def subscribe(client: Client, *, num_subscribers: int) -> None:
    """So many readers of all telemetry, each on a stream of its own; counts frames."""

    async def follow() -> None:
        call = client.channel.unary_stream(TELEMETRY)(b"")
        try:
            while client.is_on and (data := await call.read()) is not grpc.aio.EOF:
                frame = telemetry_service_pb2.StreamTelemetryResponse.FromString(data).frame
                client.num_done += 1
                client.num_items += sum(len(series.values) for series in frame.series)
        finally:
            call.cancel()

    await asyncio.gather(*(follow() for _ in range(num_subscribers)))


async def emergencies(client: Client) -> None:
    """Raise and clear a notice four times a second through the SDK; times each raise."""
    async with AsyncClient(client.address, client.credentials, timeout_s=CALL_S) as sdk:
        while client.is_on:
            began_s = time.perf_counter()
            raised = await sdk.raise_emergency(vocabulary_pb2.EMERGENCY_LEVEL_NOTICE, "bench")
            client.times_s.append(time.perf_counter() - began_s)
            client.num_done += 1
            await sdk.clear_emergency(raised.emergency.emergency_id, "bench")
            await asyncio.sleep(0.2)


async def connect(client: Client) -> None:
    """One connection after the other, each for one read; times both together."""
    while client.is_on:
        began_s = time.perf_counter()
        async with grpc.aio.insecure_channel(client.address, options=OWN_CONNECTION) as channel:
            ask: Any = channel.unary_unary(GET_RUN)
            await ask(b"", timeout=CALL_S)
        client.times_s.append(time.perf_counter() - began_s)
        client.num_done += 1


KINDS: dict[str, Load] = {
    "steady": partial(steady, per_s=100.0),
    "stream-steady": partial(stream, batch_size=50, per_s=1000.0, num_ahead=8),
    "stream-1": partial(stream, batch_size=1, per_s=0.0, num_ahead=64),
    "stream-8": partial(stream, batch_size=8, per_s=0.0, num_ahead=16),
    "stream-64": partial(stream, batch_size=64, per_s=0.0, num_ahead=8),
    "flood-signed": partial(flood, num_in_flight=64, method=SUBMIT, make=Client.submission),
    "flood-unsigned": partial(flood, num_in_flight=64, method=GET_RUN, make=lambda _: b""),
    "flood-forged": partial(flood, num_in_flight=64, method=SUBMIT, make=Client.forgery),
    "one-signed": partial(flood, num_in_flight=1, method=SUBMIT, make=Client.submission),
    "one-read": partial(flood, num_in_flight=1, method=GET_RUN, make=lambda _: b""),
    "flood-checked": partial(
        flood, num_in_flight=64, method=SUBMIT, make=partial(Client.submission, validate_only=True)
    ),
    "connect": connect,
    "subscribers": partial(subscribe, num_subscribers=16),
    "emergencies": emergencies,
}


def serve_load(kind: str, address: str, key_file: str) -> None:
    """Be switched on and off through standard input, until it is closed."""
    uvloop.run(_serve(KINDS[kind], address, Credentials.load(key_file)))


async def _serve(load: Load, address: str, credentials: Credentials) -> None:
    client = Client(address, credentials)
    await client.meet()
    loop = asyncio.get_running_loop()
    running: Any = None
    began_s = 0.0
    _say("ready")
    while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if word == "on":
            client.forget()
            client.is_on, began_s = True, time.perf_counter()
            running = asyncio.ensure_future(load(client))
            _say("on")
        else:
            client.is_on = False
            seconds = time.perf_counter() - began_s
            await running
            done = tally(client.times_s, client.num_done, client.num_refused, client.num_items, seconds)
            _say(json.dumps(dataclasses.asdict(done)))
    await client.channel.close()


def _say(line: str) -> None:
    print(line, flush=True)
