"""Group commit: what is asked for while one commit runs goes into the next one, so that they share one flush.

Used on the event loop; the commits run one after another on a thread of their own (SQLite's flush of 64 rows costs
hardly more than that of one). Knows neither SQL nor what is written.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar, cast

from esperd.oona.failures import JournalUnavailable

WriterT = TypeVar("WriterT")
AnswerT = TypeVar("AnswerT")


class GroupCommit(Generic[WriterT]):
    """Collects writes and hands them to `commit` in groups, in the order in which they were asked for."""

    def __init__(
        self, executor: Executor, commit: "Callable[[Sequence[Callable[[WriterT], object]]], list[object]]"
    ) -> None:
        """Make a group commit.

        Args:
            executor: runs one commit at a time.
            commit: makes a group durable and gives each write's answer, or the exception that refused it; raises
                `JournalUnavailable` when nothing of the group could be kept.
        """
        self._executor = executor
        self._commit = commit
        self._pending: list[tuple[Callable[[WriterT], object], asyncio.Future[object]]] = []
        self._committing = False

    @property
    def num_pending(self) -> int:
        """Writes that wait for the running commit to end."""
        return len(self._pending)

    async def run(self, write: Callable[[WriterT], AnswerT]) -> AnswerT:
        """Return the write's answer once it is durable; cancelling the caller does not take the write back."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._pending.append((write, answer))
        if not self._committing:
            self._committing = True
            # Not at once: what else is asked for in this turn of the loop shares the commit.
            loop.call_soon(self._start)
        return cast(AnswerT, await answer)

    def _start(self) -> None:
        group, self._pending = self._pending, []
        writes, waiting = [write for write, _ in group], [answer for _, answer in group]
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._commit, writes)
        running.add_done_callback(functools.partial(self._finish, waiting))

    def _finish(self, waiting: "list[asyncio.Future[object]]", done: "asyncio.Future[list[object]]") -> None:
        self._committing = bool(self._pending)
        if self._committing:
            self._start()
        error = done.exception()
        answers = done.result() if error is None else [_own_copy(error) for _ in waiting]
        for future, answer in zip(waiting, answers, strict=True):
            if future.done():
                continue  # its caller was cancelled; the row stands
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _own_copy(error: BaseException) -> BaseException:
    """An exception for each caller, so that their tracebacks do not pile up in one."""
    return JournalUnavailable(error.metadata["detail"]) if isinstance(error, JournalUnavailable) else error
