"""A real control plane for benchmarks: server, verifier, key ring and journal around a bridge, on a Unix socket.

Main thread, on uvloop, as in the daemon; whoever trains gets the other end of the bridge. Knows nothing of torch.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
import uvloop

from esperd.bridge.bridge import Bridge
from esperd.config.settings import ControlSettings, RunSettings, Settings
from esperd.control.identity import ServerIdentity
from esperd.control.parts import Surroundings
from esperd.control.server import ControlServer
from esperd.leyline.commands import Outcome
from esperd.leyline.keyring_edit import append_key, new_key, write_client_file
from esperd.leyline.nonces import NonceStore
from esperd.leyline.views import OptimizerGroupView, RunView, Snapshot
from esperd.leyline.vocabulary import CommandState, Permission, TrainerPhase
from esperd.oona.journal import Journal
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.sqlite_journal import SqliteJournal
from esperd.weatherlight.serve import SWITCH_INTERVAL_S
from tests.supervision import RecordingSupervisor, open_keys

ResultT = TypeVar("ResultT")

MANY_NONCES = 10_000_000
"""What one caller sends in five minutes of a benchmark is more than a key may."""
UNLIMITED = 1e9
SERVER_ID = "esperd-bench"


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands during a benchmark."""

    bridge: Bridge
    address: str
    """The Unix socket."""
    key_file: Path
    addresses: tuple[str, ...] = ()
    """Every address that it listens on."""


def new_bridge(phase: TrainerPhase = TrainerPhase.STARTING) -> Bridge:
    """A bridge that shows a host with one optimizer."""
    run = RunView("bench", "bench", phase, 0, 0, 0, math.nan, math.nan)
    groups = (OptimizerGroupView("host", "Adam", 1, 1, {"lr": 0.001}),)
    return Bridge(first_snapshot=Snapshot(1, run, optimizers=groups))


def on_uvloop(work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Run a benchmark as the daemon runs: uvloop on the main thread, the daemon's switch interval."""

    async def wait() -> ResultT:
        return await work()

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(wait())


@contextlib.asynccontextmanager
async def open_stage(bridge: Bridge, *, durable: bool = True, listen: Sequence[str] = ()) -> AsyncIterator[Stage]:
    """Serve the port on a Unix socket, and on `listen`; with `durable` the journal is on disk, else in memory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        key = new_key("bench", [p for p in Permission if p is not Permission.UNSPECIFIED], time.time())
        journal: Journal = await SqliteJournal.open(directory / "journal.db") if durable else MemoryJournal()
        identity = ServerIdentity(SERVER_ID, secrets.token_bytes(16), "bench", "bench")
        append_key(directory / "keys.toml", key)
        verifier, keys = open_keys(
            directory,
            identity,
            lambda: server.parts.key_service.end_refused_streams(),
            NonceStore(per_key=MANY_NONCES, total=MANY_NONCES),
        )
        around = Surroundings(
            port=bridge,
            journal=journal,
            verifier=verifier,
            identity=identity,
            supervisor=RecordingSupervisor(),
            keys=keys,
            clock=time.time,
            monotonic=time.monotonic,
            log=structlog.get_logger(),
        )
        server = ControlServer(
            around,
            Settings(
                run=RunSettings(directory=name),
                control=ControlSettings(
                    listen=(f"unix:{name}/leyline.sock", *listen),
                    # What the daemon can do is measured, not what one caller may.
                    max_reads_per_s=UNLIMITED,
                    max_commands_per_s=UNLIMITED,
                    max_decisions_per_s=UNLIMITED,
                    max_emergencies_per_s=UNLIMITED,
                ),
            ),
        )
        addresses = await server.start()
        write_client_file(directory / "client.toml", key, addresses[0])
        try:
            yield Stage(bridge, addresses[0], directory / "client.toml", tuple(addresses))
        finally:
            await server.drain_and_stop(2.0)
            await journal.close()


@contextlib.contextmanager
def answering(bridge: Bridge) -> Iterator[None]:
    """A trainer that does nothing but answer commands, in the training thread's place."""
    leaves: list[bool] = []

    def answer() -> None:
        while not leaves:
            bridge.box.wait(0.05)
            for command in bridge.box.take():
                bridge.settle(Outcome(command.command_id, CommandState.APPLIED, 1, 1, None))
        bridge.close("STOPPING")

    thread = threading.Thread(target=answer, name="answering")
    thread.start()
    try:
        yield
    finally:
        leaves.append(True)
        bridge.box.wake()
        thread.join()
