"""A daemon to which many clients have come, and gone or been refused, holds no more than before."""

import asyncio
import contextlib
import gc
import itertools
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from esper.client import calls
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, decode_rpc_error
from esper.client.signing import sign
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.command_service_pb2 import SubmitCommandRequest
from esper.leyline.v1.vocabulary_pb2 import (
    LEASE_MODE_STEER,
    SEED_OPERATION_GERMINATE,
    TRAINER_PHASE_PAUSED,
    TRAINER_PHASE_TRAINING,
)

from tests.integration.daemon.conftest import StartDaemon, folder, start_daemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.robustness.measured_daemon import bytes_in_use

__all__ = ["folder", "start_daemon"]

NUM_ROUNDS = 8
SETTLE_S = 20.0
ALLOWED_THREADS = 4
"""gRPC's own pool of threads breathes by a few."""

NUM_WARM = 10_000
"""Events after which every bounded table of the daemon is full."""
NUM_EVENTS = 20_000
NUM_LOOKS = 20
ALLOWED_BYTES = 10.0
"""Of memory in use, for each event; what is resident besides is the allocator's. Measured 1 to 3, as with a bare gRPC
server, on a quiet machine. A cancellation that is swallowed costs 106."""
_AT_ONCE = 32
_QUIET_S = 0.3


async def test_clients_that_come_and_go_leave_nothing_in_the_daemon(start_daemon: StartDaemon) -> None:
    """Reads, signed commands, watches and policy sessions, half of them cut short: files and threads return."""
    daemon = start_daemon()
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


@pytest.fixture
def measured_daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon that waits for its first step, and tells how much memory it uses."""
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    overrides = ("run.start_paused=true", "control.max_reads_per_s=100000.0")
    program = ("tests.robustness.measured_daemon", str(folder / "memory.sock"))
    daemon = DaemonProcess(folder, *overrides, program=program)
    yield daemon
    daemon.stop()
    print(daemon.log)


@pytest.mark.timeout(0)
async def test_cancelled_streams_leave_no_memory_behind(measured_daemon: DaemonProcess) -> None:
    """20,000 watches that were left after their first message."""
    daemon = measured_daemon
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_PAUSED)

        async def leave_one() -> None:
            stream = client.watch_state(reconnect_s=0)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator

        grown = await bytes_per_event(daemon, leave_one)
    print(f"{grown:.1f} bytes per cancelled stream")
    assert grown < ALLOWED_BYTES


@pytest.mark.timeout(0)
async def test_refused_signatures_leave_no_memory_behind(measured_daemon: DaemonProcess) -> None:
    """20,000 requests that nobody has signed: under a key's name, and under as many names as there are requests."""
    daemon = measured_daemon
    numbers = itertools.count()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_PAUSED)
        info = await client.server_info()
        known = Credentials.load(daemon.key_file)
        stub = client._stub("unary_unary", calls.SUBMIT_COMMAND)
        refusals: set[str] = set()

        async def be_refused() -> None:
            number = next(numbers)
            key_id = known.key_id if number % 2 else f"key-{number}"
            envelope = sign(
                Credentials(key_id, "nobody", bytes(32)),
                audience=info.server_id,
                epoch=info.epoch,
                method=calls.SUBMIT_COMMAND.method,
                payload=b"",
                now=time.time(),
                nonce=secrets.token_bytes(16),
            )
            try:
                await stub(SubmitCommandRequest(envelope=envelope))
            except grpc.aio.AioRpcError as error:
                refusals.add(decode_rpc_error(error, daemon.address).reason)

        grown = await bytes_per_event(daemon, be_refused)
    print(f"{grown:.1f} bytes per refused signature")
    assert refusals == {"SIGNATURE_INVALID", "AUTH_THROTTLED"}
    assert grown < ALLOWED_BYTES


async def bytes_per_event(daemon: DaemonProcess, event: Callable[[], Awaitable[None]]) -> float:
    """How the daemon's memory grows with each event, once its bounded tables are full.

    The median of the slopes between all pairs of looks (Theil and Sen), so that a table that is made larger once does
    not pass for a leak, nor a leak for a table.
    """
    await _happen(event, NUM_WARM)
    looks: list[tuple[int, int]] = []
    for number in range(NUM_LOOKS + 1):
        await asyncio.sleep(_QUIET_S)
        looks.append((number * NUM_EVENTS // NUM_LOOKS, bytes_in_use(str(daemon.folder / "memory.sock"))))
        if number < NUM_LOOKS:
            await _happen(event, NUM_EVENTS // NUM_LOOKS)
    print("KiB in use:", *(size // 1024 for _, size in looks))
    slopes = [(later[1] - first[1]) / (later[0] - first[0]) for first, later in itertools.combinations(looks, 2)]
    return statistics.median(slopes)


async def _happen(event: Callable[[], Awaitable[None]], number: int) -> None:
    left = iter(range(number))

    async def some() -> None:
        for _ in left:
            await event()

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


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
