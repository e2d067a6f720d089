"""Keeps the compiler at work: watches what is wanted, compiles it, uploads it, and comes back when the daemon was away.

The process of `esper tezzeret serve`; owns the event loop and the signals. Losing the daemon stops no compilation: what
is made meanwhile is delivered when it is back.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from esper.address import Target
from esper.at_work import Patience, until_asked_to_leave
from esper.client.aio import AsyncClient
from esper.client.attempts import backoff_s
from esper.client.errors import LeylineError
from esper.client.kernel_files import KernelFiles
from esper.tezzeret.agent import Agent, Report
from esper.tezzeret.queue import Job
from esper.tezzeret.worker import MAX_DETAIL_CHARS, Failure, Worker

PASSING = frozenset({"DRAINING", "JOURNAL_UNAVAILABLE", "SLOW_CONSUMER", "TRAINER_NOT_RUNNING"})
"""Refusals that another try may not meet again."""
UNUSABLE = frozenset({"KERNEL_FOLDER_INVALID", "KERNEL_CORRUPT", "KERNEL_MANIFEST_INVALID"})
"""Refusals of an upload after which the kernel is made again."""
UNFIT = frozenset({"KERNEL_MISFIT"})
"""Refusals of an upload after which it is not."""
LONGEST_REST_S = 3600.0
"""No timer is set for longer."""
FULL = frozenset({"KERNEL_QUOTA", "KERNEL_STORE_UNAVAILABLE"})
"""Refusals of an upload after which it waits."""
FULL_S = 300.0
"""Until an upload that the library has no room for is tried again, at the latest."""
REFUSED_S = 1.0
"""Least time between a refusal and the next session: it may come as soon as one is open."""

_log = structlog.get_logger("esper.tezzeret")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How the compiler works and holds on to its daemon."""

    num_jobs: int = 1
    """Compilations at once."""
    connect_s: float = 10.0
    """How long the first session may take to open."""
    reconnect_s: float = 300.0
    """How long a lost session may take to open again."""


class Service:
    """The compiler of one daemon."""

    def __init__(
        self,
        target: Target,
        agent: Agent,
        worker: Worker,
        settings: ServiceSettings,
        *,
        greet: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`greet` is called with the id of the daemon's run when a session opens."""
        self._target = target
        self._agent = agent
        self._worker = worker
        self._settings = settings
        self._greet = greet
        self._news = asyncio.Event()
        """Set when something may be begun."""
        self._knows = asyncio.Event()
        """Set once a daemon has told what it wants: what an earlier one wanted is not compiled."""
        self._ready = asyncio.Event()
        """Set when something is to be delivered."""
        self._patience = Patience(
            settings.connect_s, settings.reconnect_s, PASSING, least_after_refusal_s=REFUSED_S, monotonic=monotonic,
            log=_log,
        )  # fmt: skip

    async def run(self) -> None:
        """Work until a signal asks to leave.

        Raises:
            LeylineError: the daemon refused for good, or did not come back in time.
            OSError, sqlite3.Error: the work directory cannot be used.
        """
        await until_asked_to_leave(self._work(), _log)

    async def _work(self) -> None:
        compiling = [self._compile_for_ever() for _ in range(self._settings.num_jobs)]
        await _until_one_ends(self._attend_for_ever(), *compiling)

    async def _compile_for_ever(self) -> None:
        await self._knows.wait()
        while True:
            job = self._agent.next_job()
            if job is None:
                await self._rest()
            else:
                await self._compile(job)

    async def _rest(self) -> None:
        """Wait for news, or for the time of the next attempt."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._agent.wait_s() + 0.01, LONGEST_REST_S)):
                await self._news.wait()

    async def _compile(self, job: Job) -> None:
        self._ready.set()
        try:
            outcome = await self._worker.compile(job)
        except OSError as error:
            outcome = Failure(f"the work directory cannot be used: {error}")
        except asyncio.CancelledError:
            self._agent.interrupted(job.variant_key)
            raise
        self._agent.ended(job.variant_key, outcome)
        self._ready.set()
        self._news.set()

    async def _attend_for_ever(self) -> None:
        while True:
            try:
                target = self._target
                async with AsyncClient(target.address, target.credentials, tls=target.tls) as client:
                    self._greet((await client.server_info()).run_id)
                    await _until_one_ends(self._watch(client), self._deliver_for_ever(client))
                _log.info("the daemon drains, coming back")
                await asyncio.sleep(backoff_s(1))
            except LeylineError as error:
                await self._patience.wait(error)

    async def _watch(self, client: AsyncClient) -> None:
        """Take in what is wanted until the daemon ends the stream."""
        self._agent.begin_watch()
        async for response in client.watch_kernels(reconnect_s=0.0):
            self._patience.opened()
            self._agent.take(response.kernels)
            if response.is_complete:
                self._agent.watch_is_complete()
                self._knows.set()
            self._news.set()
            self._ready.set()
            if response.draining:
                return

    async def _deliver_for_ever(self, client: AsyncClient) -> None:
        while True:
            self._ready.clear()
            for report in list(self._agent.reports.values()):
                await self._report(client, report)
            is_full = [await self._upload(client, job) for job in self._agent.undelivered()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FULL_S if any(is_full) else None):
                    await self._ready.wait()

    async def _report(self, client: AsyncClient, report: Report) -> None:
        detail = report.detail[:MAX_DETAIL_CHARS]
        try:
            await client.report_compilation(report.variant_key, report.state, attempt=report.attempt, detail=detail)
        except LeylineError as error:
            if error.reason != "KERNEL_NOT_WANTED":
                raise
            self._agent.not_wanted(report.variant_key)
        if self._agent.reports.get(report.variant_key) == report:
            del self._agent.reports[report.variant_key]

    async def _upload(self, client: AsyncClient, job: Job) -> bool:
        """Deliver one kernel. Returns whether the library had no room for it."""
        key = job.variant_key
        try:
            await client.upload_kernel(KernelFiles.read(self._worker.kernel_folder(key)))
        except LeylineError as error:
            if error.reason in FULL:
                _log.warning("the kernel waits", blueprint_id=job.blueprint_id, message=error.message)
                return True
            if error.reason == "KERNEL_NOT_WANTED":
                self._agent.not_wanted(key)
            elif error.reason in UNUSABLE:
                self._agent.unusable(key, error.message)
            elif error.reason in UNFIT:
                self._agent.refused(key, error.message)
            else:
                raise
        else:
            self._agent.uploaded(key)
        if not self._agent.needs_files(key):
            self._worker.clear(key)
        self._news.set()
        return False


async def _until_one_ends(*works: Coroutine[None, None, None]) -> None:
    """Work on all of them until one ends; its error is raised, and the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
