"""A thread with its own read-only connection to the journal.

Used on the event loop, which never waits for the disk: questions are answered one after another on the thread. The
journal has one for quick look-ups and one for lists, so that no long list stands in the way of a command.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from esperd.oona.failures import JournalUnavailable
from esperd.oona.schema import open_reader

AnswerT = TypeVar("AnswerT")


class ReadingThread:
    """Answers questions to the journal from `open` to `close`."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._db: sqlite3.Connection | None = None

    async def open(self, path: Path) -> None:
        """Connect; the file must have been opened for writing before."""
        self._db = await asyncio.get_running_loop().run_in_executor(self._executor, open_reader, path)

    async def ask(self, question: Callable[[sqlite3.Connection], AnswerT]) -> AnswerT:
        """Put a question to the connection.

        Raises:
            JournalUnavailable: the thread is closed, or the file cannot be read.
        """
        db = self._db
        if db is None:
            raise JournalUnavailable("it is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, question, db)
        except sqlite3.Error as error:
            raise JournalUnavailable(str(error)) from error

    async def close(self) -> None:
        """Answer what has been asked, then disconnect and end the thread."""
        db, self._db = self._db, None
        if db is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, db.close)
        self._executor.shutdown()
