"""`esper tezzeret serve` against a real control plane: its kernels are of random bytes, and a script judges them."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

from esper.address import Target
from esper.client.aio import AsyncClient
from esper.leyline.v1 import kernel_pb2 as pb
from esper.tezzeret.agent import Agent, Happening, Machine
from esper.tezzeret.breaker import Breaker
from esper.tezzeret.queue import Queue
from esper.tezzeret.service import Service, ServiceSettings
from esper.tezzeret.worker import Limits, Worker

from esperd.leyline.vocabulary import HandlingClass
from tests.integration.control.kernel_stage import (
    VARIANT,
    ScriptedValidator,
    kernel_snapshot,
    open_kernel_stage,
)
from tests.integration.control.stage import Theatre

HERE = Machine(VARIANT.device_type, VARIANT.capability, VARIANT.machine, VARIANT.torch_version)


class Compiler:
    """What a service has told, in order."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.told: list[Happening] = []
        self._changed = asyncio.Event()

    def take(self, happening: Happening) -> None:
        self.told.append(happening)
        self._changed.set()

    def count(self, what: str) -> int:
        return [one.what for one in self.told].count(what)

    async def until(self, what: str, times: int = 1) -> None:
        while self.count(what) < times:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)


@asynccontextmanager
async def compiling(stage: Theatre, work_dir: Path) -> AsyncIterator[Compiler]:
    """A service at work for the stage until the block ends."""
    work_dir.mkdir(exist_ok=True)
    with closing(Queue(work_dir / "queue.sqlite3")) as queue:
        compiler = Compiler(queue)
        agent = Agent(queue, Breaker(time.monotonic), [HERE], max_attempts=3, tell=compiler.take, wall_clock=time.time)
        worker = Worker(work_dir, Limits(60.0, 0), child="tests.integration.kernels.scripted_child")
        service = Service(
            Target(stage.address, stage.credentials("compiler")), agent, worker, ServiceSettings(),
            greet=lambda _: None, monotonic=time.monotonic,
        )  # fmt: skip
        task = asyncio.create_task(service.run())
        try:
            yield compiler
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def kernels_of(stage: Theatre) -> list[pb.Kernel]:
    """As clients see them."""
    async with AsyncClient(stage.address, stage.credentials("operator")) as client:
        return list((await client.kernels()).kernels)


async def test_what_sites_offer_becomes_an_offered_kernel(tmp_path: Path) -> None:
    """From the wish to the offer without anybody's help: signed, uploaded, judged; one kernel serves both sites."""
    async with open_kernel_stage(tmp_path) as stage, compiling(stage, tmp_path / "work") as compiler:
        await compiler.until("offered")
        (kernel,) = await kernels_of(stage)
    assert kernel.state == pb.KERNEL_STATE_OFFERED
    assert kernel.principal == "compiler"
    assert [one.what for one in compiler.told] == ["compiling", "compiled", "uploaded", "offered"]


async def test_a_wish_shows_that_it_is_worked_on(tmp_path: Path) -> None:
    """COMPILING with its attempt, as soon as it was begun."""
    async with open_kernel_stage(tmp_path) as stage, AsyncClient(stage.address) as client:
        states = []

        async def watch() -> None:
            async for response in client.watch_kernels():
                states.extend(kernel.state for kernel in response.kernels)
                if pb.KERNEL_STATE_OFFERED in states:
                    return

        watching = asyncio.create_task(watch())
        async with compiling(stage, tmp_path / "work"):
            await asyncio.wait_for(watching, 60)
    assert states[:2] == [pb.KERNEL_STATE_WANTED, pb.KERNEL_STATE_COMPILING]


async def test_a_quarantined_kernel_is_made_once_more_with_care(tmp_path: Path) -> None:
    """Then the wish is given up, and whoever looks sees why."""
    validator = ScriptedValidator()
    validator.handling = HandlingClass.QUARANTINE
    async with open_kernel_stage(tmp_path, validator) as stage, compiling(stage, tmp_path / "work") as compiler:
        await compiler.until("gave up")
        kernels = await kernels_of(stage)
    assert [one.job.strategy for one in compiler.told if one.what == "compiling"] == ["standard", "conservative"]
    assert compiler.count("quarantined") == 2
    assert "parameter_gradients" in compiler.told[-1].detail
    assert pb.KERNEL_STATE_QUARANTINED in {kernel.state for kernel in kernels}


async def test_what_was_quarantined_before_a_restart_is_known_after_it(tmp_path: Path) -> None:
    """A compiler that was away learns what became of its kernel."""
    validator = ScriptedValidator()
    validator.is_stuck = True
    validator.handling = HandlingClass.QUARANTINE
    async with open_kernel_stage(tmp_path, validator) as stage:
        async with compiling(stage, tmp_path / "work") as compiler:
            await compiler.until("uploaded")
        validator.is_stuck = False
        while all(kernel.state != pb.KERNEL_STATE_QUARANTINED for kernel in await kernels_of(stage)):
            await asyncio.sleep(0.01)
        async with compiling(stage, tmp_path / "work") as compiler:
            await compiler.until("compiled")
    assert compiler.told[0].what == "quarantined"
    assert compiler.told[-1].job.strategy == "conservative"


async def test_two_compilers_share_the_work(tmp_path: Path) -> None:
    """What one of them has made the other does not make again."""
    async with open_kernel_stage(tmp_path) as stage, compiling(stage, tmp_path / "one") as one:
        await one.until("offered")
        async with compiling(stage, tmp_path / "two") as two:
            await asyncio.sleep(0)
            async with AsyncClient(stage.address) as client:
                await client.server_info()
            assert two.told == []
            assert two.queue.jobs() == []


async def test_new_wishes_are_taken_as_they_come(tmp_path: Path) -> None:
    """Another batch size beyond the range of what is there is another wish."""
    async with open_kernel_stage(tmp_path) as stage, compiling(stage, tmp_path / "work") as compiler:
        await compiler.until("offered")
        snapshot = kernel_snapshot()
        larger = tuple(replace(site, batch_size=128) for site in snapshot.sites)
        stage.trainer.at_safe_point(lambda: stage.trainer.publish(sites=larger))
        await compiler.until("compiling", 2)
    assert [one.job.hint_batch for one in compiler.told if one.what == "compiling"] == [8, 128]


async def test_the_queue_says_what_was_done(tmp_path: Path) -> None:
    """On disk, for whoever looks after a crash."""
    async with open_kernel_stage(tmp_path) as stage, compiling(stage, tmp_path / "work") as compiler:
        await compiler.until("uploaded")
        with closing(sqlite3.connect(tmp_path / "work" / "queue.sqlite3")) as rows:
            found = rows.execute("SELECT stage, strategy, num_attempts, blueprint_id FROM jobs").fetchall()
    assert found == [("uploaded", "standard", 1, "bottleneck")]
