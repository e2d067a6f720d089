"""Jobs over processors: as many at once as there are processors, the important ones first.

Event loop of the demo. A job may ask for others when it is done: the arms at equal FLOPs wait for the run whose FLOPs
they may spend.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from esperd.cli.demo.worker_process import WorkerProcess


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """One piece of work; the lowest priority number goes first, then the order of asking."""

    priority: int
    order: int
    work: Callable[[WorkerProcess], Awaitable[None]] = field(compare=False)


class Schedule:
    """A queue of jobs with one runner, and one worker process, per processor."""

    def __init__(self, num_runners: int, directory: Path, on_progress: Callable[[int], None]) -> None:
        self._queue: asyncio.PriorityQueue[Job] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._on_progress = on_progress
        self._num_done = 0
        self._workers = [
            WorkerProcess(f"worker {index}", directory / f"worker-{index}.log") for index in range(num_runners)
        ]

    def ask(self, priority: int, work: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """Add a job; it may use the runner's worker process."""
        self._queue.put_nowait(Job(priority, next(self._order), work))

    async def run(self) -> None:
        """Run until every job is done; the first failure ends them all and is raised."""
        all_done = asyncio.create_task(self._queue.join())
        runners = [asyncio.create_task(self._run_jobs(worker)) for worker in self._workers]
        try:
            finished, _ = await asyncio.wait([all_done, *runners], return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            await _cancel([all_done, *runners])
            await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def _run_jobs(self, worker: WorkerProcess) -> None:
        while True:
            job = await self._queue.get()
            await job.work(worker)
            self._num_done += 1
            self._on_progress(self._num_done)
            self._queue.task_done()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait: a cancelled job ends its processes on the way out."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
