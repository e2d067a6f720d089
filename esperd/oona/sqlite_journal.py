"""The journal on disk: one SQLite file, one thread that writes, two that read.

Called on the event loop, which never waits for the disk. Group commit: what is written while a commit runs goes into
the next one, so that the flush, which is what costs, is shared. Knows neither gRPC nor the trainer.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from esperd.leyline.commands import Outcome
from esperd.oona import reading
from esperd.oona.audit_chain import GENESIS_HASH, verify
from esperd.oona.failures import JournalUnavailable
from esperd.oona.group_commit import GroupCommit
from esperd.oona.journal import AUDIT_PAGE_ROWS, Page, Pause, check_final, no_pause
from esperd.oona.ledger import Ledger, Write, open_ledger
from esperd.oona.owner_lock import OwnerLock
from esperd.oona.pages import check_page_size
from esperd.oona.reading_thread import ReadingThread
from esperd.oona.records import (
    Acceptance,
    AuditQuery,
    AuditRow,
    AuditVerdict,
    CommandQuery,
    CommandRecord,
    HistoryQuery,
    HistoryRow,
    Record,
    Settlement,
)

AnswerT = TypeVar("AnswerT")

MAX_KNOWN_REQUESTS = 65_536
"""Request ids kept in memory. While they are all there, a new one is known to be new without asking the disk."""


class SqliteJournal:
    """A `Journal` in a file; see there for what each method promises."""

    def __init__(self, path: Path, max_known_requests: int = MAX_KNOWN_REQUESTS) -> None:
        """Take the file's lock; `open` does the rest.

        Raises:
            JournalLocked: another daemon owns this journal.
        """
        self._path = path
        self._max_known_requests = max_known_requests
        self._lock = OwnerLock(path)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-writer")
        self._lookups = ReadingThread("journal-lookups")
        self._lists = ReadingThread("journal-lists")
        self._ledger: Ledger | None = None
        self._group: GroupCommit[Ledger] = GroupCommit(self._writer, self._commit)
        self._known_requests: set[str] | None = set()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, max_known_requests: int = MAX_KNOWN_REQUESTS) -> "SqliteJournal":
        """Open a journal, making the file if there is none; call `recover` next.

        Raises:
            JournalLocked: another daemon owns this journal.
            JournalUnreadable: the file is not a journal that this daemon can carry on.
        """
        journal = cls(path, max_known_requests)
        try:
            await journal._open()
        except BaseException:
            await journal._release()
            raise
        return journal

    @property
    def revision(self) -> int:
        """Journal revision of the newest durable row."""
        return 0 if self._ledger is None else self._ledger.durable_revision

    @property
    def num_pending(self) -> int:
        """Writes that wait for the commit that is running now."""
        return self._group.num_pending

    async def recover(self, unix_s: float) -> tuple[CommandRecord, ...]:
        """Fail every command of an earlier life that has no outcome."""
        return await self._write(lambda ledger: ledger.recover(unix_s))

    async def unsettled(self) -> tuple[CommandRecord, ...]:
        """Every command that has no outcome."""
        return tuple(await self._lists.ask(lambda db: reading.open_commands(db, self.revision)))

    async def last_state_revision(self) -> int:
        """The largest revision of the training state in any row."""
        return await self._lists.ask(reading.last_state_revision)

    async def accept(self, records: Sequence[CommandRecord]) -> tuple[Acceptance, ...]:
        """Write commands as ACCEPTED, all or none."""
        # Before the write: a known id means no more than that the disk is asked.
        self._know(record.request_id for record in records if record.request_id)
        return await self._write(lambda ledger: ledger.accept(records))

    async def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        """Write final outcomes, one for each command."""
        check_final(outcomes)
        return await self._write(lambda ledger: ledger.settle(outcomes, unix_s))

    async def append(self, *records: Record) -> int:
        """Write history records and audit entries, all or none."""
        return await self._write(lambda ledger: ledger.append(records))

    async def find_requests(self, request_ids: Sequence[str]) -> dict[str, CommandRecord]:
        """The commands that these request ids brought."""
        known = self._known_requests
        asked = [name for name in request_ids if name and (known is None or name in known)]
        if not asked:
            return {}
        return await self._lookups.ask(lambda db: reading.find_requests(db, asked))

    async def get_command(self, command_id: str) -> CommandRecord | None:
        """One command as it stands now."""
        return await self._lookups.ask(lambda db: reading.get_command(db, command_id))

    async def list_commands(
        self, query: CommandQuery, page_size: int = 100, page_token: str = ""
    ) -> Page[CommandRecord]:
        """One page of commands, newest first."""
        check_page_size(page_size)
        return await self._lists.ask(lambda db: reading.list_commands(db, query, page_size, page_token))

    async def list_history(self, query: HistoryQuery, page_size: int = 100, page_token: str = "") -> Page[HistoryRow]:
        """One page of history rows, oldest first."""
        check_page_size(page_size)
        return await self._lists.ask(lambda db: reading.list_history(db, query, page_size, page_token))

    async def list_audit(self, query: AuditQuery, page_size: int = 100, page_token: str = "") -> Page[AuditRow]:
        """One page of audit rows, newest first."""
        check_page_size(page_size)
        return await self._lists.ask(lambda db: reading.list_audit(db, query, page_size, page_token))

    async def verify_audit(self, pause: Pause = no_pause) -> AuditVerdict:
        """Compute the audit chain again and compare."""
        verdict, last = AuditVerdict(True, 0, GENESIS_HASH), 0
        while True:
            # In pages, so that other lists have their turn.
            page, last, is_end = await self._lists.ask(partial(_verify_page, verdict, last))
            verdict = replace(page, num_rows=verdict.num_rows + page.num_rows)
            if not verdict.intact or is_end:
                return verdict
            await pause()

    async def close(self) -> None:
        """Write what is pending, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        # Groups are committed in order, so an empty write that has been answered had all others before it. That it
        # could not be made durable says nothing new: each write of its group has been told.
        try:
            with contextlib.suppress(JournalUnavailable):
                await self._group.run(lambda ledger: ledger.append(()))
        finally:
            await self._release()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._ledger = await loop.run_in_executor(self._writer, open_ledger, self._path)
        await self._lookups.open(self._path)
        await self._lists.open(self._path)
        self._know(await self._lists.ask(lambda db: reading.request_ids(db, self._max_known_requests + 1)))

    async def _release(self) -> None:
        # The readers first: SQLite folds its log into the file when the last connection closes, which must be able to.
        await self._lookups.close()
        await self._lists.close()
        if self._ledger is not None:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._ledger.close)
        self._writer.shutdown()
        self._lock.release()

    async def _write(self, write: Callable[[Ledger], AnswerT]) -> AnswerT:
        if self._closed:
            raise JournalUnavailable("it is closed")
        return await self._group.run(write)

    def _commit(self, writes: Sequence[Write]) -> list[object]:
        assert self._ledger is not None  # opened before any write
        return self._ledger.commit(writes)

    def _know(self, request_ids: Iterable[str]) -> None:
        if self._known_requests is None:
            return
        self._known_requests.update(request_ids)
        if len(self._known_requests) > self._max_known_requests:
            self._known_requests = None


def _verify_page(before: AuditVerdict, revision: int, db: sqlite3.Connection) -> tuple[AuditVerdict, int, bool]:
    """Go on after what was found before; returns the last journal revision too, and whether it is the end."""
    rows = reading.audit_after(db, revision, AUDIT_PAGE_ROWS)
    found = verify(rows, before.num_rows + 1, before.head_hash)
    return found, rows[-1].journal_revision if rows else revision, len(rows) < AUDIT_PAGE_ROWS
