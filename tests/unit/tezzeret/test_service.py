"""The compiler beside a daemon: real calls over a socket, real processes; only what compiles is small."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from esper.address import Target
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1 import kernel_pb2 as pb
from esper.tezzeret.agent import Agent, Happening, Machine
from esper.tezzeret.breaker import Breaker
from esper.tezzeret.queue import Queue, Stage
from esper.tezzeret.service import Service, ServiceSettings
from esper.tezzeret.worker import Limits, Worker

from esperd.leyline.errors import EsperdError
from tests.unit.ctl.small_daemon import SmallDaemon, serving
from tests.unit.ctl.small_library import wanted

HERE = Machine("cpu", "AVX2", "x86_64", "2.13.0+cpu")


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDaemon]:
    with serving(SmallDaemon(tmp_path_factory.mktemp("d"))) as served:
        yield served


class Compiler:
    """A service with its work directory, and what it has told."""

    def __init__(self, address: str, key: Path, work_dir: Path) -> None:
        work_dir.mkdir(exist_ok=True)
        self.queue = Queue(work_dir / "queue.sqlite3")
        self.told: list[Happening] = []
        self.changed = asyncio.Event()
        self.runs: list[str] = []
        loop = asyncio.get_running_loop()
        agent = Agent(self.queue, Breaker(loop.time), [HERE], max_attempts=3, tell=self.take, wall_clock=loop.time)
        self.service = Service(
            Target(address, Credentials.load(key)), agent,
            Worker(work_dir, Limits(60.0, 0), child="tests.unit.tezzeret.small_child"),
            ServiceSettings(2, connect_s=0.0, reconnect_s=30.0), greet=self.runs.append, monotonic=loop.time,
        )  # fmt: skip

    def take(self, happening: Happening) -> None:
        self.told.append(happening)
        self.changed.set()

    async def until(self, *what: str) -> None:
        """Wait until it has told all of these."""
        while not set(what) <= {one.what for one in self.told}:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def compiling(address: str, key: Path, work_dir: Path) -> AsyncIterator[Compiler]:
    """A service at work until the block ends."""
    compiler = Compiler(address, key, work_dir)
    with closing(compiler.queue):
        task = asyncio.create_task(compiler.service.run())
        try:
            yield compiler
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def seen(check: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    while not check():
        await asyncio.sleep(0.01)


async def test_a_wish_becomes_an_offered_kernel(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Watched, reported, compiled, uploaded; its directory is removed once the daemon has it."""
    daemon.library.put(wanted(blueprint_id="succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await compiler.until("offered")
        await seen(lambda: list((tmp_path / "work" / "jobs").iterdir()) == [])
        assert compiler.runs == ["run-1"]
    assert [one.what for one in compiler.told] == ["compiling", "compiled", "uploaded", "offered"]
    assert [(one.state, one.attempt) for one in daemon.library.reports] == [(pb.KERNEL_STATE_COMPILING, 1)]


async def test_what_cannot_be_compiled_is_told(daemon: SmallDaemon, tmp_path: Path) -> None:
    """With the compiler's words; other wishes are not held up by it."""
    daemon.library.put(wanted("a" * 64, "refuse"), wanted("b" * 64, "succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await compiler.until("gave up", "offered")
        await seen(lambda: any(one.state == pb.KERNEL_STATE_COMPILE_FAILED for one in daemon.library.reports))
    assert daemon.library.kernels["a" * 64].detail == "no such blueprint"


async def test_an_upload_survives_a_cut(daemon: SmallDaemon, tmp_path: Path) -> None:
    """It goes on where it stood, and nothing is compiled again."""
    daemon.library.max_parts = 3
    daemon.library.put(wanted(blueprint_id="succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await compiler.until("offered")
    assert [one.what for one in compiler.told].count("compiling") == 1


async def test_a_corrupt_kernel_is_compiled_again(daemon: SmallDaemon, tmp_path: Path) -> None:
    """What the daemon finds damaged is not sent a second time."""
    daemon.library.refusals = [EsperdError("KERNEL_CORRUPT", artifact_id="a", detail="digest")]
    daemon.library.put(wanted(blueprint_id="succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await compiler.until("offered")
    assert [one.what for one in compiler.told].count("compiling") == 2


async def test_a_misfit_is_given_up(daemon: SmallDaemon, tmp_path: Path) -> None:
    """Another attempt would make the same."""
    daemon.library.refusals = [EsperdError("KERNEL_MISFIT", artifact_id="a", detail="torch")]
    daemon.library.put(wanted(blueprint_id="succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await compiler.until("gave up")


@pytest.mark.parametrize(
    "refusal",
    [
        EsperdError("KERNEL_QUOTA", num_bytes=1, detail="full"),
        EsperdError("KERNEL_STORE_UNAVAILABLE", path="/k", detail=""),
    ],
    ids=lambda refusal: refusal.reason,
)
async def test_a_kernel_that_finds_no_room_is_kept(daemon: SmallDaemon, tmp_path: Path, refusal: EsperdError) -> None:
    """It is delivered when there is some, also by another start."""
    daemon.library.refusals = [refusal]
    daemon.library.put(wanted(blueprint_id="succeed"))
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await seen(lambda: daemon.library.refusals == [])
        await compiler.until("compiled")
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        assert [job.stage for job in compiler.queue.jobs()] == [Stage.COMPILED]
        await compiler.until("offered")
        assert "compiling" not in [one.what for one in compiler.told]


async def test_a_wish_that_is_gone_is_dropped(daemon: SmallDaemon, tmp_path: Path) -> None:
    """KERNEL_NOT_WANTED ends the matter, also in the midst of it."""
    daemon.library.put(wanted(blueprint_id="succeed"))
    daemon.library.kernels.clear()
    daemon.library.refusals = [EsperdError("KERNEL_NOT_WANTED", variant_key="k")]
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await seen(lambda: bool(compiler.runs))
        daemon.library.put(wanted(blueprint_id="succeed"))
        await compiler.until("dropped")
        assert compiler.queue.jobs() == []


async def test_a_daemon_that_drains_is_come_back_to(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A service outlives its daemon's restart."""
    async with compiling(daemon.address, daemon.key, tmp_path / "work") as compiler:
        await seen(lambda: bool(compiler.runs))
        daemon.library.put(wanted("a" * 64, "refuse"))
        await compiler.until("gave up")
        daemon.library.drain()
        await seen(lambda: len(compiler.runs) == 2)


async def test_work_goes_on_while_the_daemon_is_away(daemon: SmallDaemon, tmp_path: Path) -> None:
    """What was compiled meanwhile is delivered when it is back."""
    other = SmallDaemon(daemon.socket.parent)
    other.library.put(wanted(blueprint_id="succeed"))
    daemon.library.put(wanted(blueprint_id="succeed"))
    with contextlib.ExitStack() as first:
        address = f"unix:{tmp_path / 'leyline.sock'}"
        daemon.address = other.address = address
        first.enter_context(serving(daemon))
        async with compiling(address, daemon.key, tmp_path / "work") as compiler:
            await compiler.until("compiling")
            await asyncio.to_thread(first.close)
            await compiler.until("compiled")
            with serving(other):
                await compiler.until("uploaded")
                await asyncio.to_thread(other.library.close)


async def test_nobody_there_is_told_at_once(tmp_path: Path, daemon: SmallDaemon) -> None:
    """A wrong address is an error, not a wait."""
    compiler = Compiler(f"unix:{tmp_path / 'none.sock'}", daemon.key, tmp_path / "work")
    with closing(compiler.queue), pytest.raises(Unreachable):
        await compiler.service.run()


async def test_a_refusal_for_good_ends_it(tmp_path: Path, daemon: SmallDaemon) -> None:
    """Kernels that are switched off stay so."""
    daemon.refusal = EsperdError("KERNELS_DISABLED")
    compiler = Compiler(daemon.address, daemon.key, tmp_path / "work")
    with closing(compiler.queue), pytest.raises(LeylineError) as refused:
        await compiler.service.run()
    assert refused.value.reason == "KERNELS_DISABLED"
