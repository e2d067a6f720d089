"""A daemon that many clients have come to and gone from, in order and not, holds no more than before."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import psutil
import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER, SEED_OPERATION_GERMINATE, TRAINER_PHASE_TRAINING

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase

NUM_ROUNDS = 8
SETTLE_S = 20.0
ALLOWED_THREADS = 4
"""gRPC's own pool of threads breathes by a few."""


async def test_clients_that_come_and_go_leave_nothing_in_the_daemon(start_daemon: StartDaemon) -> None:
    """Reads, signed commands, watches and policy sessions, half of them cut short: files and threads return."""
    daemon = start_daemon("control.allow_core_dumps=true")  # else only root may count its files
    process = psutil.Process(daemon.process.pid)
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
    for _ in range(2):
        await visit(daemon)
    num_files, num_threads = process.num_fds(), process.num_threads()
    for _ in range(NUM_ROUNDS):
        await visit(daemon)
    deadline_s = time.monotonic() + SETTLE_S
    while process.num_fds() > num_files or process.num_threads() > num_threads + ALLOWED_THREADS:
        assert time.monotonic() < deadline_s, (num_files, process.num_fds(), num_threads, process.num_threads())
        await asyncio.sleep(0.05)
    assert not process.children()


async def visit(daemon: DaemonProcess) -> None:
    """Eight clients at once; every second one is cut off in the middle."""
    await asyncio.gather(*(talk(daemon, is_cut=bool(number % 2), steers=number == 0) for number in range(8)))
    gc.collect()  # a closed channel of grpc.aio holds its socket until it is collected


async def talk(daemon: DaemonProcess, *, is_cut: bool, steers: bool) -> None:
    async with daemon.client() as client:
        streams: list[AsyncIterator[Any]] = [client.watch_state(), client.watch_commands(), client.stream_telemetry()]
        readers = [asyncio.create_task(first_of(stream)) for stream in streams]
        operation = CommandSeedOperation(operation=SEED_OPERATION_GERMINATE, site="nowhere", blueprint_id="nothing")
        with pytest.raises(LeylineError):
            await client.submit(AdaptationCommand(reason="a test", seed_operation=operation), wait=True)
        if steers:
            async with client.decision_session(LEASE_MODE_STEER, "visitor", "1"):
                await client.run()
        if is_cut:
            for reader in readers:
                reader.cancel()
            await cut(client)
        else:
            await readers[0]
            for reader in readers:
                reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def first_of(stream: AsyncIterator[Any]) -> Any:
    return await anext(stream)


async def cut(client: AsyncClient) -> None:
    """Close the channel under the client's streams."""
    channel = client._open_channel
    assert isinstance(channel, grpc.aio.Channel)
    with contextlib.suppress(LeylineError):
        await channel.close(0)
