"""Fifty subscribers that never read, and five that do: the daemon's memory is bounded, and nobody's step is lost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from esper.client import calls
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import command_service_pb2 as command_pb
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1 import telemetry_service_pb2 as telemetry_pb
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_TRAINING
from google.protobuf.message import Message

from tests.integration.daemon.conftest import StartDaemon, folder, start_daemon
from tests.integration.daemon.process import until_phase

__all__ = ["folder", "start_daemon"]

NUM_DEAF = 50
SECONDS = 15.0
ALLOWED_BYTES = 64 << 20
_METRIC = "tolaria.step.loss"
_LOOK_S = 0.1
_BATCH = 64
_REASON = "because " * 120

_OPENINGS: tuple[tuple[calls.Call[Any], Callable[[], Message]], ...] = (
    (calls.WATCH_STATE, lambda: state_pb.WatchStateRequest(delivery=state_pb.DELIVERY_POLICY_EVERY)),
    (calls.WATCH_STATE, lambda: state_pb.WatchStateRequest(delivery=state_pb.DELIVERY_POLICY_LATEST)),
    (calls.STREAM_TELEMETRY, telemetry_pb.StreamTelemetryRequest),
    (calls.WATCH_COMMANDS, command_pb.WatchCommandsRequest),
)


@pytest.mark.timeout(0)
async def test_who_does_not_read_costs_little(start_daemon: StartDaemon) -> None:
    """The memory grows by 64 MiB at most, every step reaches every reader, and what comes to them comes soon."""
    daemon = start_daemon("training.log_every_steps=1", "control.training_share=1.0")
    process = psutil.Process(daemon.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        reading = await stack.enter_async_context(daemon.client())
        await until_phase(reading, TRAINER_PHASE_TRAINING)
        readers = [_Steps(reading.stream_telemetry(metrics=[_METRIC], reconnect_s=0)) for _ in range(3)]
        watchers = [_Revisions(reading.watch_state(reconnect_s=0)) for _ in range(2)]
        work = [*(reader.read() for reader in readers), *(watcher.read() for watcher in watchers)]
        tasks = [asyncio.create_task(one) for one in (*work, _send_commands(reading))]
        await asyncio.sleep(2.0)
        before = process.memory_info().rss
        deaf = [
            _open(await stack.enter_async_context(daemon.client()), *_OPENINGS[number % len(_OPENINGS)])
            for number in range(NUM_DEAF)
        ]
        highest, lags_s = await _look(process, reading)
        assert not any(task.done() for task in tasks), tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(f"{len(deaf)} streams that nobody reads: memory +{(highest - before) / (1 << 20):.1f} MiB")
    print(f"reads p99 {_p99(lags_s) * 1e3:.0f} ms", *(f"frames p99 {_p99(one.lags_s) * 1e3:.0f} ms" for one in readers))
    assert highest - before < ALLOWED_BYTES
    for reader in readers:
        assert reader.num_lost == 0
        assert reader.steps == list(range(reader.steps[0], reader.steps[-1] + 1))
    for watcher in watchers:
        assert watcher.num_messages > SECONDS
        assert watcher.is_in_order
    assert "a call failed" not in daemon.log  # clients that go in the middle of a message are no fault


def _open(client: AsyncClient, call: calls.Call[Any], opening: Callable[[], Message]) -> Any:
    """A stream that nobody reads. That the daemon ends it its caller would learn by reading only."""
    return client._stub("unary_stream", call)(opening())


class _Steps:
    """Reads telemetry: which steps came, and how long after their time."""

    def __init__(self, frames: AsyncIterator[telemetry_pb.StreamTelemetryResponse]) -> None:
        self._frames = frames
        self.steps: list[int] = []
        self.lags_s: list[float] = []
        self.num_lost = 0

    async def read(self) -> None:
        """Until it is cancelled."""
        async for response in self._frames:
            self.num_lost += response.num_frames_dropped + response.frame.num_ring_dropped
            for series in response.frame.series:
                self.steps += series.global_steps
                self.lags_s.append(time.time() - series.times_unix_ns[-1] * 1e-9)


class _Revisions:
    """Reads the state: whether its revisions rise."""

    def __init__(self, messages: AsyncIterator[state_pb.WatchStateResponse]) -> None:
        self._messages = messages
        self.num_messages = 0
        self.is_in_order = True
        self._revision = 0

    async def read(self) -> None:
        """Until it is cancelled."""
        async for message in self._messages:
            self.num_messages += 1
            self.is_in_order = self.is_in_order and message.revision >= self._revision
            self._revision = message.revision


async def _send_commands(client: AsyncClient) -> None:
    """Bulky commands, batch after batch: every watch of commands gets each of them twice."""
    adjustment = pb.CommandOptimizerAdjustment(
        optimizer_id="host", action=pb.OPTIMIZER_ACTION_SET_HYPERPARAMETERS, hyperparameters={"lr": 0.001}
    )
    async with client.command_stream() as stream:
        while True:
            batch = [pb.AdaptationCommand(reason=_REASON, optimizer_adjustment=adjustment) for _ in range(_BATCH)]
            await stream.send(batch)
            await asyncio.sleep(_LOOK_S)


async def _look(process: psutil.Process, client: AsyncClient) -> tuple[int, list[float]]:
    """The most memory that the daemon had in this time, and how long each of many reads took."""
    highest, lags_s = 0, []
    deadline_s = time.monotonic() + SECONDS
    while (began_s := time.monotonic()) < deadline_s:
        with contextlib.suppress(LeylineError):
            await client.run()
            lags_s.append(time.monotonic() - began_s)
        highest = max(highest, process.memory_info().rss)
        await asyncio.sleep(_LOOK_S)
    return highest, lags_s


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]
