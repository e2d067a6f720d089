"""The supervisor: builds the parts in order, waits for a reason to end, and takes them down in the opposite order.

Main thread, on the event loop; never touches torch. In call order: startup, main loop, shutdown.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

from structlog.stdlib import BoundLogger

from esperd.bridge.bridge import Bridge
from esperd.config.origin import SET_LOG_LEVEL, Configuration
from esperd.config.settings import Settings
from esperd.control.identity import ServerIdentity
from esperd.control.parts import Surroundings
from esperd.control.recorded_commands import to_command
from esperd.control.run_history import run_started
from esperd.control.server import ControlServer
from esperd.control.supervisor import DiagnosticSection, Reloaded
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.verify import Verifier
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.journal import Journal
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.past import ReadPast, no_past, read_past
from esperd.oona.records import CommandRecord, Record
from esperd.oona.sqlite_journal import SqliteJournal
from esperd.weatherlight.diagnostics import diagnose
from esperd.weatherlight.identity import Identity, make_identity
from esperd.weatherlight.kernel_keeping import make_kernel_keeping
from esperd.weatherlight.key_keeper import KeyKeeper
from esperd.weatherlight.log import configure_log
from esperd.weatherlight.picking import Picked, newest_in_journal, newest_in_store, pick
from esperd.weatherlight.reload import Prepare, Reload, words_of
from esperd.weatherlight.run_directory import RunDirectory
from esperd.weatherlight.signals import SignalRecord
from esperd.weatherlight.training_thread import Keeping, finished_snapshot, start_training_thread, starting_snapshot
from esperd.weatherlight.watch import until_ended, watch

JOIN_S = 120.0
"""A trainer reaches its safe point within one step and writes its last checkpoint; this bounds a step, or a disk, that
hangs."""
HURRIED_JOIN_S = 10.0
"""The same once a second signal has come: still time for a healthy step, so that hurry alone is no failure."""

EXIT_OK = 0
EXIT_FAILED = 1


class Daemon:
    """One daemon with one run; `run` lives as long as the daemon does, `following` is the one after it."""

    def __init__(
        self,
        configuration: Configuration,
        directory: RunDirectory,
        log: BoundLogger,
        *,
        new_run: bool,
        export_command: Sequence[str] = (),
        run_id: str = "",
        revoked: set[str] | None = None,
    ) -> None:
        """`new_run` begins one, whatever the directory holds, with this `run_id` unless it is empty.

        `revoked` are the keys that an earlier run of this process has revoked.
        """
        self._reload = Reload(configuration)
        self._directory = directory
        self._log = log
        self._new_run = new_run
        self._export_command = export_command
        self._revoked = set() if revoked is None else revoked
        self._started_unix_s = time.time()
        self._identity: Identity = make_identity(configuration.settings, self._started_unix_s)
        if run_id:
            self._identity = replace(self._identity, run_id=run_id)
        self._store: CheckpointStore
        self._journal: Journal
        self._picked: Picked
        self._bridge: Bridge
        self._keys: KeyKeeper
        self._server: ControlServer
        self._trainer: threading.Thread | None = None
        self._has_trainer_left = True
        self._asked_to_end = asyncio.Event()
        self._next_run_id = ""
        self._addresses: list[str] = []

    async def run(self, signals: SignalRecord) -> int:
        """Serve until told to end; returns the exit status."""
        async with AsyncExitStack() as parts:
            await self._open(parts)
            await self._start(parts)
            reason = await self._wait(signals)
            await self._stop(reason, signals)
        return self._exit_status

    def following(self) -> "Daemon | None":
        """After the end: the daemon of the run that was asked for, at the same addresses; None when none was."""
        if not self._next_run_id:
            return None
        configuration = self.configuration
        if any(address.endswith(":0") for address in self._settings.control.listen):
            # The system chose ports; clients know them by now.
            origin = configuration.origins["control.listen"]
            configuration = configuration.with_values({"control.listen": tuple(self._addresses)}, origin)
        return Daemon(
            configuration,
            self._directory,
            self._log,
            new_run=True,
            export_command=self._export_command,
            run_id=self._next_run_id,
            revoked=self._revoked,
        )

    # Startup

    async def _open(self, parts: AsyncExitStack) -> None:
        """The run's files, then which run this start is about, then the bridge."""
        self._store = CheckpointStore(self._directory.checkpoints_path(self._settings.checkpoints.directory))
        parts.callback(self._store.release)
        if self._settings.journal.enabled:
            self._journal = await SqliteJournal.open(self._directory.journal_path)
        else:
            self._journal = MemoryJournal()
        parts.push_async_callback(self._journal.close)
        self._picked = await self._pick_run()
        self._identity = replace(self._identity, run_id=self._picked.run_id)
        self._bridge = self._make_bridge()
        parts.callback(self._bridge.detach)

    async def _pick_run(self) -> Picked:
        if self._settings.journal.enabled:
            earlier, last_revision = await newest_in_journal(self._journal), await self._journal.last_state_revision()
        else:
            earlier, last_revision = newest_in_store(self._store.list())
        picked = pick(
            None if self._new_run else earlier,
            self._settings,
            new_run_id=self._identity.run_id,
            unix_s=self._started_unix_s,
            last_revision=last_revision,
        )
        if earlier is not None and not self._new_run and picked.run_id != earlier.run_id:
            self._log.warning("the earlier run cannot go on, another begins", earlier=earlier.run_id)
        for change in picked.changes:
            self._log.warning("a setting has changed since the run began", name=change.name, was=change.then)
        return picked

    def _make_bridge(self) -> Bridge:
        settings, picked = self._settings, self._picked
        if picked.finished is None:
            snapshot = starting_snapshot(settings, picked.run_id, picked.started_unix_s, picked.first_revision)
        else:
            snapshot = finished_snapshot(settings, picked.finished, picked.started_unix_s, picked.first_revision)
        bridge = Bridge(
            first_snapshot=snapshot,
            box_capacity=settings.control.command_box_capacity,
            ring_capacity=settings.control.telemetry_ring_capacity,
        )
        if settings.journal.enabled:
            bridge.known_checkpoints = set()
        if picked.finished is not None:
            bridge.close(TrainerPhase.FINISHED.name)
        return bridge

    async def _start(self, parts: AsyncExitStack) -> None:
        settings, identity = self._settings, self._identity
        unsettled = await self._settle_earlier()
        await self._journal.append(*self._first_rows())
        verifier, self._keys = self._make_keys()
        kernels = make_kernel_keeping(settings.kernels, self._directory, verifier, self._log)
        if kernels is not None:
            parts.callback(kernels.library.close)
        around = Surroundings(
            port=self._bridge,
            journal=self._journal,
            verifier=verifier,
            keys=self._keys,
            identity=ServerIdentity(
                server_id=identity.daemon_id, epoch=identity.epoch, version=version("esperd"), run_id=identity.run_id
            ),
            supervisor=self,
            clock=time.time,
            monotonic=time.monotonic,
            log=self._log,
            store=self._store,
            unsettled=unsettled,
            export_command=self._export_command,
            kernels=kernels,
        )
        self._server = ControlServer(around, settings)
        self._addresses = await self._server.start()
        for prepare in self._reloaded_parts():
            self._reload.add(prepare)
        self._log.info("serving", addresses=self._addresses, daemon_id=identity.daemon_id, run_id=identity.run_id)
        if self._picked.finished is not None:
            self._log.info("the run has finished", begin_another="esperctl start")
            return
        trust = None if kernels is None else kernels.trust
        keeping = Keeping(self._store, self._past_reader(), self._settings.journal.enabled, trust)
        self._trainer = start_training_thread(
            settings, self._bridge, identity.run_id, self.configuration.path.parent, self._log, keeping
        )

    async def _settle_earlier(self) -> tuple[CommandRecord, ...] | None:
        """Commands of earlier starts that the trainer will carry out; None when this start begins a run, or shows one.

        Nobody can carry out those of a run that is over, so they fail.
        """
        if self._picked.resumes:
            return await self._journal.unsettled()
        lost = await self._journal.recover(self._started_unix_s)
        if lost:
            self._log.warning("commands of an earlier run were lost", num_commands=len(lost))
        return None

    def _first_rows(self) -> list[Record]:
        """What must be durable before anybody is answered, so that revisions grow from start to start."""
        picked, run = self._picked, self._bridge.snapshot().run
        if not (picked.resumes or picked.finished):
            return [run_started(run, self._settings, picked.first_revision)]
        rows: list[Record] = [self._notice("daemon.started", "the daemon was started again", "info")]
        if picked.changes:
            text = "; ".join(map(str, picked.changes))
            rows.append(self._notice("config.changed", f"since the run began: {text}", "warning"))
        return rows

    def _notice(self, kind: str, text: str, level: str) -> NoticeEvent:
        facts = {change.name: f"{change.then} -> {change.now}" for change in self._picked.changes}
        return NoticeEvent(kind, text, level, 0, self._picked.first_revision, self._started_unix_s, facts)

    def _past_reader(self) -> ReadPast | None:
        picked = self._picked
        if not picked.resumes:
            return None
        if not self._settings.journal.enabled:
            return partial(no_past, first_revision=picked.first_revision)
        return partial(
            read_past,
            self._directory.journal_path,
            picked.run_id,
            first_revision=picked.first_revision,
            to_command=to_command,
        )

    def _make_keys(self) -> tuple[Verifier, KeyKeeper]:
        """The verifier, and the keeper of its keys. Raises EsperdError KEYRING_INVALID."""
        verifier = Verifier(
            keyring=None,
            audience=self._identity.daemon_id,
            epoch=self._identity.epoch,
            wall_clock=time.time,
            monotonic=time.monotonic,
        )
        keeper = KeyKeeper(
            find_ring=partial(self._directory.keyring_path, self._settings.control.keyring),
            revocations=self._directory.revocations_path,
            verifier=verifier,
            end_streams=lambda: self._server.parts.note_keys(),
            clock=time.time,
            log=self._log,
            revoked=self._revoked,
        )
        keeper.open()
        return verifier, keeper

    def _reloaded_parts(self) -> Iterator[Prepare]:
        """Who takes part in a reload, besides the configuration itself."""
        yield lambda _: partial(self._keys.swap, self._keys.prepare())
        yield self._server.prepare
        yield lambda settings: partial(configure_log, settings.log)

    # Main loop

    async def _wait(self, signals: SignalRecord) -> str:
        """Wait for a signal, or for the run's end if that ends the daemon; returns the reason."""
        reasons: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "signal": signals.first,
            "asked": self._has_been_asked,
        }
        if self._settings.run.exit_when_finished:
            reasons["run ended"] = lambda: until_ended(self._bridge)
        chores = [
            asyncio.create_task(watch(self._bridge, self._log)),
            asyncio.create_task(self._reload_at_hangup(signals)),
        ]
        waits = {asyncio.create_task(wait()): reason for reason, wait in reasons.items()}
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in (*pending, *chores):
            task.cancel()
        return waits[done.pop()]

    async def _has_been_asked(self) -> None:
        await self._asked_to_end.wait()

    async def _reload_at_hangup(self, signals: SignalRecord) -> None:
        while True:
            await signals.hangup()
            try:
                self.reload()
            except Exception:  # noqa: BLE001 - logged whole; the next signal is answered again
                self._log.exception("a reload failed")

    # What the control plane asks for

    @property
    def configuration(self) -> Configuration:
        """What is in force, and where each value comes from."""
        return self._reload.configuration

    @property
    def _settings(self) -> Settings:
        return self._reload.configuration.settings

    def reload(self) -> Reloaded:
        """Read configuration, keys and certificates again and apply all of it, or nothing."""
        reloaded = self._reload.run()
        kind, level = ("config.rejected", "error") if reloaded.rejected else ("config.reloaded", "info")
        self._server.tell(kind, words_of(reloaded), level, {})
        return reloaded

    def set_log_level(self, level: str) -> str:
        """Change the level of the log until the next start or reload; returns the level that was."""
        previous = self._settings.log.level
        self._reload.configuration = self.configuration.with_values({"log.level": level}, SET_LOG_LEVEL)
        configure_log(self._settings.log)
        self._log.info("the log has another level", now=level, before=previous)
        return previous

    async def diagnose(self) -> tuple[DiagnosticSection, ...]:
        """What a maintainer needs to see, without secrets."""
        silent_s = time.monotonic() - self._bridge.heartbeat_monotonic_s
        facts = {
            "version": version("esperd"),
            "id": self._identity.daemon_id,
            "up": f"{time.time() - self._started_unix_s:.0f} s",
            "addresses": ", ".join(self._addresses),
            "trainer": f"{'runs' if self._is_training else 'has left'}, showed life {silent_s:.1f} s ago",
        }
        return await diagnose(
            configuration=self.configuration,
            run=self._bridge.snapshot().run,
            depths={**self._bridge.depths(), **self._server.depths()},
            journal=self._journal,
            facts=facts,
        )

    def drain(self) -> None:
        """End as on SIGTERM, also when a new run was asked for before."""
        self._next_run_id = ""
        self._asked_to_end.set()

    def start_run(self) -> str:
        """End, so that the process begins a new run; returns its id, the same if it was asked before.

        Raises:
            EsperdError: DRAINING, when the process leaves already.
        """
        if self._asked_to_end.is_set() and not self._next_run_id:
            raise EsperdError("DRAINING")
        self._next_run_id = self._next_run_id or make_identity(self._settings, time.time()).run_id
        self._asked_to_end.set()
        return self._next_run_id

    # Shutdown

    async def _stop(self, reason: str, signals: SignalRecord) -> None:
        """Not serving, trainer to its safe point, streams and calls ended; a second signal shortens the waits.

        The server goes after the trainer, so that the last outcomes reach the journal and those who wait for them.
        """
        self._log.info("shutting down", reason=reason)
        failpoint("drain.begun")
        self._asked_to_end.set()  # whatever the reason: no new run can be asked for any more
        self._server.parts.conditions.drain()
        self._bridge.request_stop()
        hurry = asyncio.create_task(signals.second())
        began_s = time.monotonic()
        joined = asyncio.create_task(self._join_trainer())
        await _first_of(hurry, joined)
        if hurry.done():
            await asyncio.wait([joined], timeout=HURRIED_JOIN_S)
        joined.cancel()
        await self._server.drain_and_stop(0.0 if hurry.done() else self._settings.control.drain_s, hurry)
        hurry.cancel()
        self._has_trainer_left = not self._is_training
        if not self._has_trainer_left:
            self._log.error("the trainer did not reach a safe point", waited_s=round(time.monotonic() - began_s, 1))
        self._log.info("stopped", step=self._bridge.snapshot().run.global_step)

    async def _join_trainer(self) -> None:
        deadline_s = time.monotonic() + JOIN_S
        while self._is_training and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)

    @property
    def _is_training(self) -> bool:
        return self._trainer is not None and self._trainer.is_alive()

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
