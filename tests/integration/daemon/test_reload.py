"""A running daemon takes up other settings, keys and certificates: all of it, or nothing, and nobody notices."""

import asyncio
import contextlib
import hashlib
import itertools
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.leyline.v1 import command_pb2
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FINISHED, TRAINER_PHASE_TRAINING, TRAINER_PHASE_VALIDATING

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.daemon.tls import Tls, replace_file

NUM_RELOADS = 50
RUNNING = (TRAINER_PHASE_TRAINING, TRAINER_PHASE_VALIDATING)
DONE, REJECTED = "the configuration was reloaded", "the configuration was not reloaded"


@dataclass
class Files:
    """The files that a daemon reads again, always replaced whole, as a careful operator does."""

    daemon: DaemonProcess
    base: str = field(init=False)
    ring: str = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.configuration.read_text()
        self.ring = self.keys.read_text()

    @property
    def configuration(self) -> Path:
        return self.daemon.folder / "esperd.toml"

    @property
    def keys(self) -> Path:
        return self.daemon.folder / "run" / "keys.toml"

    def write(self, settings: str, ring: str = "") -> None:
        """Add settings to the daemon's own configuration, and keys to its ring."""
        replace_file(self.configuration, self.base + settings)
        replace_file(self.keys, self.ring + ring)


async def in_force(client: AsyncClient) -> Mapping[str, str]:
    """Every setting, as the daemon tells it."""
    return {one.name: one.value for one in (await client.config()).settings}


def newcomer(number: int) -> str:
    """A good key for the ring."""
    secret = hashlib.sha256(f"newcomer {number}".encode()).hexdigest()
    facts = f'principal = "n"\npermissions = ["observe"]\nsecret = "{secret}"\nstate = "active"\n'
    return f'\n[[keys]]\nid = "newcomer-{number}"\n{facts}'


async def test_a_hangup_applies_what_can_be_applied(start_daemon: StartDaemon) -> None:
    """The process goes on; what takes a restart is named in the log, and told again by the next reload."""
    daemon = start_daemon()
    async with daemon.client() as client:
        files = Files(daemon)
        files.write("[control]\nmax_streams = 77\n[checkpoints]\nevery_steps = 123\n", newcomer(1))
        daemon.signal(signal.SIGHUP)
        await daemon.until_logged(DONE)
        found = {one.name: one for one in (await client.config()).settings}
        assert (found["control.max_streams"].value, found["control.max_streams"].origin) == ("77", "reload")
        assert (found["checkpoints.every_steps"].value, found["checkpoints.every_steps"].origin) == ("500", "default")
        assert (await client.server_info()).limits["max_streams"] == 77
        assert "newcomer-1" in [key.key_id for key in (await client.keys()).keys]
        again = await client.reload_config("once more")
        assert (len(again.applied), len(again.rejected)) == (0, 0)
        assert [(one.name, one.old_value, one.new_value) for one in again.restart_required] == [
            ("checkpoints.every_steps", "500", "123")
        ]
        files.write('[control]\nmax_streams = 77\n[log]\nformat = "console"\n')
        assert [one.name for one in (await client.reload_config("for eyes")).applied] == ["log.format"]
    assert "checkpoints.every_steps: 500 -> 123" in daemon.log
    assert daemon.log.splitlines()[0].startswith("{")
    assert not daemon.log.splitlines()[-1].startswith("{")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


async def test_the_command_line_stays_on_top(start_daemon: StartDaemon) -> None:
    """A setting that --set has replaced is not changed by the file, and says so."""
    daemon = start_daemon("control.max_streams=5")
    async with daemon.client() as client:
        Files(daemon).write("[control]\nmax_streams = 77\n")
        assert len((await client.reload_config()).applied) == 0
        found = {one.name: one for one in (await client.config()).settings}
        assert (found["control.max_streams"].value, found["control.max_streams"].origin) == ("5", "command line")


async def test_the_log_level_goes_and_comes(start_daemon: StartDaemon) -> None:
    """SetLogLevel holds until a reload, which brings the file's level back."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await client.set_log_level("error", "too much of it")
        assert (await in_force(client))["log.level"] == '"error"'
        before = daemon.log
        applied = (await client.reload_config()).applied
        assert [(one.name, one.new_value) for one in applied] == [("log.level", '"info"')]
        # At level `error` neither the call nor the new ring left a line.
        assert daemon.log.removeprefix(before).count("\n") <= 1


async def test_what_was_reloaded_stays_for_the_next_run(start_daemon: StartDaemon) -> None:
    """A run that begins in the same process has the settings in force, with their origins, and takes reloads too."""
    daemon = start_daemon("run.num_steps=30")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_FINISHED)
        files = Files(daemon)
        files.write("[control]\nmax_streams = 77\n")
        await client.reload_config()
        await client.start_run("again", wait=True)
        found = {one.name: one for one in (await client.config()).settings}["control.max_streams"]
        assert (found.value, found.origin) == ("77", "reload")
        files.write("[control]\nmax_streams = 78\n")
        daemon.signal(signal.SIGHUP)
        await daemon.until_logged("control.max_streams: 77 -> 78")
        assert (await in_force(client))["control.max_streams"] == "78"


async def test_an_administrator_can_drain(start_daemon: StartDaemon) -> None:
    """The answer comes, then the daemon leaves as on SIGTERM: with its last checkpoint and status 0."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, *RUNNING)
        assert (await client.drain("maintenance")).drain_s == 10.0
    assert await asyncio.to_thread(daemon.wait) == 0
    assert '"reason": "asked"' in daemon.log
    assert list((daemon.folder / "run" / "checkpoints").iterdir())


async def test_a_dump_of_a_real_daemon(start_daemon: StartDaemon) -> None:
    """The trainer's stack is in it, the journal's rows are in it, and the key's secret is not."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, *RUNNING)
        await client.submit(learning_rate(1e-3), wait=True)
        sections = {one.title: one.text for one in (await client.diagnostics()).sections}
    assert "esperd-trainer" in sections["threads"]
    assert "trainer.py" in sections["threads"]
    assert "APPLIED  operator" in sections["journal"]
    assert "RUN_STARTED" in sections["journal"]
    assert "step" in sections["run"]
    secret = next(line for line in daemon.key_file.read_text().splitlines() if line.startswith("secret"))
    assert secret.split('"')[1] not in "".join(sections.values())


# Under load


def learning_rate(value: float) -> command_pb2.AdaptationCommand:
    """A command that is always allowed."""
    adjustment = command_pb2.CommandOptimizerAdjustment(optimizer_id="host", hyperparameters={"lr": value})
    return command_pb2.AdaptationCommand(reason="load", optimizer_adjustment=adjustment)


@dataclass
class Load:
    """Clients that never stop calling; the first failure of any of them ends the test."""

    daemon: DaemonProcess
    tls: Tls
    num_calls: dict[str, int] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        kinds: tuple[Callable[[AsyncClient], Awaitable[None]], ...] = (
            self._reads, self._commands, self._batches, self._watch, self._dials,
        )  # fmt: skip
        tasks = [asyncio.create_task(self._serve(kind), name=kind.__name__) for kind in kinds]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, kind: Callable[[AsyncClient], Awaitable[None]]) -> None:
        async with self.daemon.client() as client:
            await kind(client)

    def _count(self, kind: str) -> None:
        self.num_calls[kind] = self.num_calls.get(kind, 0) + 1

    async def _reads(self, client: AsyncClient) -> None:
        while True:
            await client.run()
            self._count("reads")

    async def _commands(self, client: AsyncClient) -> None:
        for number in itertools.count(1):
            await client.submit(learning_rate(1e-3 + number * 1e-9), wait=True)
            self._count("commands")

    async def _batches(self, client: AsyncClient) -> None:
        async with client.command_stream() as stream:
            for number in itertools.count(1):
                receipts = await stream.send([learning_rate(1e-3 + number * 1e-9)])
                assert not receipts[0].HasField("error"), receipts
                self._count("batches")

    async def _dials(self, _: AsyncClient) -> None:
        while True:
            async with self.tls.client(self.daemon) as client:
                await client.run()
            self._count("dialled")

    async def _watch(self, client: AsyncClient) -> None:
        async for _ in client.watch_state(reconnect_s=0.0):
            self._count("watched")
        raise AssertionError("the watch has ended")


TORN = "a certificate without its key"
BROKEN = (
    ("[control]\nmax_streams = 999\ndrain_s = -1\n", ""),
    ("[control]\nmax_streams = 999\n", TORN),
    ("[control]\nmax_streams = 999\nmax_stream = 3\n[log]\nlevel = 'loud'\n", ""),
    ("[control]\nmax_streams = 999\n[log\n", ""),
    ("[log]\nlevel = 'debug'\n[control]\nmax_streams = 999\n", "\n[[keys]]\nid = 'torn\n"),
    ("[log]\nlevel = 'debug'\n[control]\nmax_streams = 999\n", newcomer(2).replace("observe", "everything")),
    ("[control]\nmax_streams = 999\nnonsense = 1\n", newcomer(3)),
)
"""Settings and keys, each with something right in it that must not be applied."""


@pytest.mark.timeout(300)  # fifty times what a busy machine makes of half a second
async def test_fifty_reloads_half_of_them_broken_under_load(folder: Path, start_daemon: StartDaemon) -> None:
    """No call fails, no stream ends; a broken file, be it settings, keys or certificates, leaves all as it was."""
    tls = Tls(folder)
    daemon = start_daemon(*tls.overrides)
    async with daemon.client() as client:
        await until_phase(client, *RUNNING)
        files = Files(daemon)
        load = Load(daemon, tls)
        async with load.running():
            for number in range(NUM_RELOADS):
                await one_reload(client, daemon, files, tls, number)
    print(load.num_calls)
    kinds = ("reads", "commands", "batches", "watched", "dialled")
    assert min(load.num_calls[kind] for kind in kinds) >= NUM_RELOADS // 5
    assert refusals(daemon) == []
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait) == 0
    assert refusals(daemon) == []


async def one_reload(client: AsyncClient, daemon: DaemonProcess, files: Files, tls: Tls, number: int) -> None:
    """A good one or a broken one, by signal or by call in turns, and what is in force after it."""
    is_broken, by_signal = number % 2 == 1, number % 4 < 2
    before, keys_before = await in_force(client), await key_ids(client)
    shown_before = await asyncio.to_thread(tls.shown, daemon)
    name, other = ("one", "two") if number // 2 % 2 else ("two", "one")
    if is_broken:
        settings, ring = BROKEN[number // 2 % len(BROKEN)]
        if ring is TORN:
            tls.tear(other)
            ring = newcomer(number)
        files.write(settings, ring)
    else:
        tls.install(name)
        files.write(f"[control]\nmax_streams = {100 + number}\ndrain_s = {20 + number}\n", newcomer(100 + number))
    await ask_for_reload(client, daemon, by_signal=by_signal, is_broken=is_broken)
    after, keys_after = await in_force(client), await key_ids(client)
    if is_broken:
        assert after == before
        assert keys_after == keys_before
        assert await asyncio.to_thread(tls.shown, daemon) == shown_before
    else:
        assert {name for name in after if after[name] != before[name]} == {"control.max_streams", "control.drain_s"}
        assert after["control.max_streams"] == str(100 + number)
        assert f"newcomer-{100 + number}" in keys_after
        assert await asyncio.to_thread(tls.shown, daemon) == tls.expected(name)
    assert (await client.server_info()).limits["max_streams"] == int(after["control.max_streams"])


async def ask_for_reload(client: AsyncClient, daemon: DaemonProcess, *, by_signal: bool, is_broken: bool) -> None:
    if not by_signal:
        assert bool((await client.reload_config("a test")).rejected) is is_broken
        return
    words = REJECTED if is_broken else DONE
    num_before = daemon.log.count(words)
    daemon.signal(signal.SIGHUP)
    async with asyncio.timeout(30):
        while daemon.log.count(words) == num_before:
            await asyncio.sleep(0.01)


async def key_ids(client: AsyncClient) -> list[str]:
    return [key.key_id for key in (await client.keys()).keys]


def refusals(daemon: DaemonProcess) -> list[tuple[str, str]]:
    """What the daemon has refused anybody, by its own audit trail: a client that tried again would hide it."""
    journal = sqlite3.connect(f"file:{daemon.folder / 'run' / 'journal.sqlite'}?mode=ro", uri=True)
    with contextlib.closing(journal):
        return list(journal.execute("SELECT method, decision FROM audit WHERE decision != 'OK'"))
