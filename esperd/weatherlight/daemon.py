"""The supervisor: builds the parts in order, waits for a reason to end, and takes them down in the opposite order.

Main thread, on the event loop; never touches torch. In call order: startup, main loop, shutdown.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

from structlog.stdlib import BoundLogger

from esperd.bridge.bridge import Bridge
from esperd.config.settings import Settings
from esperd.control.identity import ServerIdentity
from esperd.control.server import ControlServer
from esperd.leyline.keyring import KeyRing
from esperd.leyline.verify import Verifier
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.journal import Journal
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.sqlite_journal import SqliteJournal
from esperd.weatherlight.identity import Identity, make_identity
from esperd.weatherlight.run_directory import RunDirectory
from esperd.weatherlight.signals import SignalRecord
from esperd.weatherlight.training_thread import start_training_thread, starting_snapshot
from esperd.weatherlight.watch import until_ended, watch

JOIN_S = 60.0
"""A trainer reaches its safe point within one step; this bounds a step that hangs."""
HURRIED_JOIN_S = 10.0
"""The same once a second signal has come: still time for a healthy step, so that hurry alone is no failure."""

EXIT_OK = 0
EXIT_FAILED = 1


class Daemon:
    """One daemon with one run; `run` lives as long as the daemon does."""

    def __init__(self, settings: Settings, search_path: Path, directory: RunDirectory, log: BoundLogger) -> None:
        self._settings = settings
        self._search_path = search_path
        self._directory = directory
        self._log = log
        started_unix_s = time.time()
        self._identity: Identity = make_identity(settings, started_unix_s)
        self._bridge = Bridge(
            first_snapshot=starting_snapshot(settings, self._identity.run_id, started_unix_s),
            box_capacity=settings.control.command_box_capacity,
            ring_capacity=settings.control.telemetry_ring_capacity,
        )
        self._journal: Journal
        self._server: ControlServer
        self._trainer: threading.Thread
        self._has_trainer_left = True

    async def run(self) -> tuple[int, bool]:
        """Serve until told to end; returns (exit status, whether SIGINT ended it)."""
        with SignalRecord(asyncio.get_running_loop()) as signals:
            await self._open_journal()
            try:
                await self._start()
                reason = await self._wait(signals)
                await self._stop(reason, signals)
            finally:
                await self._journal.close()
                self._bridge.detach()
            return self._exit_status, signals.ends_by_sigint

    # Startup

    async def _open_journal(self) -> None:
        if self._settings.journal.enabled:
            self._journal = await SqliteJournal.open(self._directory.journal_path)
        else:
            self._journal = MemoryJournal()
        lost = await self._journal.recover(time.time())
        if lost:
            self._log.warning("commands of an earlier start were lost", num_commands=len(lost))

    async def _start(self) -> None:
        settings, identity = self._settings, self._identity
        self._server = ControlServer(
            port=self._bridge,
            journal=self._journal,
            verifier=self._make_verifier(),
            settings=settings,
            identity=ServerIdentity(
                server_id=identity.daemon_id, epoch=identity.epoch, version=version("esperd"), run_id=identity.run_id
            ),
            clock=time.time,
            monotonic=time.monotonic,
            log=self._log,
        )
        addresses = await self._server.start()
        self._log.info("serving", addresses=addresses, daemon_id=identity.daemon_id, run_id=identity.run_id)
        self._trainer = start_training_thread(settings, self._bridge, identity.run_id, self._search_path, self._log)

    def _make_verifier(self) -> Verifier:
        path = self._directory.keyring_path(self._settings.control.keyring)
        keyring = None if path is None else KeyRing.load(path)
        if keyring is None:
            self._log.warning("no key ring: every signed request is refused", make_one="esperd keys new")
        return Verifier(
            keyring=keyring,
            audience=self._identity.daemon_id,
            epoch=self._identity.epoch,
            wall_clock=time.time,
            monotonic=time.monotonic,
        )

    # Main loop

    async def _wait(self, signals: SignalRecord) -> str:
        """Wait for a signal, or for the run's end if that ends the daemon; returns the reason."""
        reasons: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"signal": signals.first}
        if self._settings.run.exit_when_finished:
            reasons["run ended"] = lambda: until_ended(self._bridge)
        watchdog = asyncio.create_task(watch(self._bridge, self._log))
        waits = {asyncio.create_task(wait()): reason for reason, wait in reasons.items()}
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in (*pending, watchdog):
            task.cancel()
        return waits[done.pop()]

    # Shutdown

    async def _stop(self, reason: str, signals: SignalRecord) -> None:
        """Not serving, trainer to its safe point, streams and calls ended; a second signal shortens the waits.

        The server goes after the trainer, so that the last outcomes reach the journal and those who wait for them.
        """
        self._log.info("shutting down", reason=reason)
        self._server.conditions.drain()
        self._bridge.request_stop()
        hurry = asyncio.create_task(signals.second())
        began_s = time.monotonic()
        joined = asyncio.create_task(self._join_trainer())
        await _first_of(hurry, joined)
        if hurry.done():
            await asyncio.wait([joined], timeout=HURRIED_JOIN_S)
        joined.cancel()
        await self._server.drain_and_stop(0.0 if hurry.done() else self._settings.control.drain_s)
        hurry.cancel()
        self._has_trainer_left = not self._trainer.is_alive()
        if not self._has_trainer_left:
            self._log.error("the trainer did not reach a safe point", waited_s=round(time.monotonic() - began_s, 1))
        self._log.info("stopped", step=self._bridge.snapshot().run.global_step)

    async def _join_trainer(self) -> None:
        deadline_s = time.monotonic() + JOIN_S
        while self._trainer.is_alive() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)

    @property
    def has_trainer_left(self) -> bool:
        """False when the training thread hangs, so that the process must end without it."""
        return self._has_trainer_left

    @property
    def _exit_status(self) -> int:
        failed = self._bridge.snapshot().run.phase is TrainerPhase.FAILED
        return EXIT_FAILED if failed or not self._has_trainer_left else EXIT_OK


async def _first_of(*tasks: asyncio.Task[None]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
