"""The demo's worker process and its schedule."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from esperd.cli.demo.schedule import Schedule
from esperd.cli.demo.worker import train
from esperd.cli.demo.worker_process import WorkerProcess
from esperd.leyline.errors import EsperdError

JOB = {
    "spec": "esperd.examples.digits:build",
    "options": {},
    "random_seed": 0,
    "insertions": [["block1", "residual_conv", {}]],
    "num_steps": 10,
}


def test_an_arm_counts_what_it_inserts() -> None:
    """Parameters and FLOPs of the insertion are in the result; a FLOP budget buys whole steps of that shape."""
    grown = train(JOB)
    assert grown.params > 426
    assert grown.steps == 10
    bought = train({**{k: v for k, v in JOB.items() if k != "num_steps"}, "flops": grown.train_flops})
    assert bought == grown


async def test_a_worker_process_answers_jobs_in_order(tmp_path: Path) -> None:
    """The same process takes the next job; stopping it leaves nothing."""
    worker = WorkerProcess("worker", tmp_path / "log")
    try:
        assert (await worker.train(JOB)).steps == 10
        assert (await worker.train({**JOB, "num_steps": 5})).steps == 5
    finally:
        await worker.stop()


async def test_a_broken_worker_is_told_with_its_last_lines(tmp_path: Path) -> None:
    """RUN_FAILED, and the traceback's end is in the metadata."""
    worker = WorkerProcess("worker", tmp_path / "log")
    try:
        with pytest.raises(EsperdError) as caught:
            await worker.train({**JOB, "spec": "no_such_module:build"})
        assert caught.value.reason == "RUN_FAILED"
        assert "E-TASK-001" in caught.value.metadata["traceback"]
    finally:
        await worker.stop()


async def test_jobs_go_by_priority_and_may_ask_for_more(tmp_path: Path) -> None:
    """One runner: the lowest number first, then what was asked for meanwhile."""
    seen: list[str] = []
    progress: list[int] = []
    schedule = Schedule(1, tmp_path, progress.append)

    def note(name: str, then: Callable[[], None] = lambda: None) -> Callable[[WorkerProcess], Awaitable[None]]:
        async def work(_: WorkerProcess) -> None:
            seen.append(name)
            then()

        return work

    schedule.ask(2, note("last"))
    schedule.ask(0, note("first", lambda: schedule.ask(1, note("between"))))
    await schedule.run()
    assert seen == ["first", "between", "last"]
    assert progress == [1, 2, 3]


async def test_the_first_failure_ends_every_job(tmp_path: Path) -> None:
    """Jobs that run are cancelled and have cleaned up when `run` raises."""
    cleaned = []
    schedule = Schedule(2, tmp_path, lambda done: None)
    both = asyncio.Barrier(2)

    async def endless(_: WorkerProcess) -> None:
        await both.wait()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    async def broken(_: WorkerProcess) -> None:
        await both.wait()
        raise EsperdError("RUN_FAILED", detail="broken")

    schedule.ask(0, endless)
    schedule.ask(0, broken)
    with pytest.raises(EsperdError):
        await schedule.run()
    assert cleaned == [True]
