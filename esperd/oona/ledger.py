"""The writing half of the SQLite journal: groups of writes, each write whole or not at all.

Runs on the journal's writer thread only. Knows SQL, but neither asyncio nor who asked.
"""

import functools
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esperd.leyline.commands import Outcome
from esperd.leyline.failpoints import failpoint
from esperd.oona.audit_chain import GENESIS_HASH, row_hash
from esperd.oona.codec import to_json
from esperd.oona.failures import DuplicateRecord, JournalUnavailable, JournalUnreadable, RequestIdReused
from esperd.oona.journal import lost_in_restart
from esperd.oona.reading import command_of_request, open_commands
from esperd.oona.records import (
    ROW_KINDS,
    Acceptance,
    AcceptStatus,
    AuditEntry,
    CommandRecord,
    HistoryRecord,
    Record,
    Settlement,
    SettleStatus,
    as_accepted,
    as_settled,
    seed_of,
    unique_name,
)
from esperd.oona.schema import open_writer

_NUM_COLUMNS = {"command": 14, "outcome": 12, "history": 5, "audit": 12}
"""The tables in the order in which a group fills them: an outcome after its command."""
_ROWS_PER_STATEMENT = (256, 64, 16, 4, 1)
"""Each statement costs the interpreter lock once, so a group goes in as few of them as these sizes allow."""
_LAST_REVISION = """SELECT max(coalesce((SELECT max(revision) FROM command), 0),
    coalesce((SELECT max(revision) FROM outcome), 0), coalesce((SELECT max(revision) FROM history), 0),
    coalesce((SELECT max(revision) FROM audit), 0))"""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the journal ends."""

    revision: int
    audit_number: int
    audit_hash: bytes


class Ledger:
    """Writes to one connection, which it owns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        # Rows collected for the running group, by table; None while writes are made apart.
        self._rows: dict[str, list[tuple[object, ...]]] | None = None
        self.head = self._read_head()
        self._opened_revision = self.head.revision
        self.durable_revision = self.head.revision
        """Revision at the last commit; the event loop may read it at any time."""

    def commit(self, writes: "Sequence[Write]") -> list[object]:
        """Make a group of writes durable with one flush.

        A write that is refused, or that holds a value the journal cannot keep, is undone alone.

        Returns:
            For each write its answer, or the exception that refused it.

        Raises:
            JournalUnavailable: nothing of the group is in the journal.
        """
        before = self.head
        try:
            answers = self._commit_together(writes)
            if answers is None:
                answers = self._commit_apart(writes)
        except sqlite3.Error as error:
            self._roll_back()
            self.head = before
            raise JournalUnavailable(str(error)) from error
        self.durable_revision = self.head.revision
        return answers

    def recover(self, unix_s: float) -> tuple[CommandRecord, ...]:
        """Fail every command that was accepted before this opening and has no outcome."""
        lost = open_commands(self._db, self._opened_revision)
        settled = self.settle([lost_in_restart(record.command_id) for record in lost], unix_s)
        return tuple(
            as_settled(record, settlement.outcome, unix_s, settlement.journal_revision)
            for record, settlement in zip(lost, settled, strict=True)
        )

    def accept(self, records: Sequence[CommandRecord]) -> tuple[Acceptance, ...]:
        """Write commands; a known request id with the same payload is a duplicate, with another one refused."""
        return tuple(self._accept(record) for record in records)

    def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        """Write outcomes; the schema refuses those of settled and of unknown commands."""
        return tuple(self._settle(outcome, unix_s) for outcome in outcomes)

    def append(self, records: Sequence[Record]) -> int:
        """Write history records and audit entries."""
        for record in records:
            if isinstance(record, AuditEntry):
                self._append_audit(record)
            else:
                self._append_history(record)
        return self.head.revision

    def close(self) -> None:
        """Close the connection; SQLite then folds its write-ahead log into the file."""
        self._db.close()

    def _commit_together(self, writes: "Sequence[Write]") -> list[object] | None:
        """Write the rows of the whole group table by table; None, and nothing written, if one of them is refused."""
        self._db.execute("BEGIN IMMEDIATE")
        before, self._rows = self.head, {table: [] for table in _NUM_COLUMNS}
        try:
            answers = [write(self) for write in writes]
            self._insert_collected(self._rows)
        except Exception as error:
            if _is_the_disks(error):
                raise
            # Whose fault it is comes out when each write is made apart.
            self._db.execute("ROLLBACK")
            self.head = before
            return None
        finally:
            self._rows = None
        self._flush()
        return answers

    def _commit_apart(self, writes: "Sequence[Write]") -> list[object]:
        """Write row by row, so that a refused write is undone alone."""
        self._db.execute("BEGIN IMMEDIATE")
        answers = [self._attempt(write) for write in writes]
        self._flush()
        return answers

    def _flush(self) -> None:
        failpoint("journal.before_fsync")
        self._db.execute("COMMIT")
        failpoint("journal.after_fsync")

    def _attempt(self, write: "Write") -> object:
        before = self.head
        self._db.execute("SAVEPOINT attempt")
        try:
            answer = write(self)
        except Exception as error:
            if _is_the_disks(error):
                raise
            # Handed to the one who made the write; the others of the group keep their rows.
            self._db.execute("ROLLBACK TO attempt")
            self.head = before
            answer = error
        self._db.execute("RELEASE attempt")
        return answer

    def _insert(self, table: str, row: tuple[object, ...]) -> None:
        if self._rows is not None:
            self._rows[table].append(row)
        else:
            self._db.execute(_insert_statement(table, 1), row)

    def _insert_collected(self, collected: dict[str, list[tuple[object, ...]]]) -> None:
        for table, rows in collected.items():
            start = 0
            for num_rows in _ROWS_PER_STATEMENT:
                while len(rows) - start >= num_rows:
                    values = [value for row in rows[start : start + num_rows] for value in row]
                    self._db.execute(_insert_statement(table, num_rows), values)
                    start += num_rows

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors. If this fails too, the next BEGIN says so.
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def _next_revision(self) -> int:
        self.head = replace(self.head, revision=self.head.revision + 1)
        return self.head.revision

    def _accept(self, record: CommandRecord) -> Acceptance:
        row = (
            record.command_id,
            record.request_id or None,
            record.principal,
            record.key_id,
            record.method,
            record.kind,
        )
        rest = (record.payload, record.payload_sha256, record.accepted_unix_s, record.reason, record.seed_id)
        before = self.head
        try:
            self._insert("command", (self._next_revision(), *row, *rest, record.accepted_step, record.decision_id))
        except sqlite3.IntegrityError as error:
            self.head = before
            return Acceptance(AcceptStatus.DUPLICATE, self._first_of(record, error))
        return Acceptance(AcceptStatus.ACCEPTED, as_accepted(record, self.head.revision))

    def _first_of(self, record: CommandRecord, error: sqlite3.IntegrityError) -> CommandRecord:
        if error.sqlite_errorname != "SQLITE_CONSTRAINT_UNIQUE":
            raise error
        first = command_of_request(self._db, record.request_id) if record.request_id else None
        if first is None:
            raise DuplicateRecord("command", record.command_id) from error
        if first.payload_sha256 != record.payload_sha256:
            raise RequestIdReused(record.request_id, first.command_id) from error
        return first

    def _settle(self, outcome: Outcome, unix_s: float) -> Settlement:
        refusal = outcome.refusal
        words = ("", "") if refusal is None else (refusal.reason, refusal.message)
        facts = "{}" if refusal is None else json.dumps(dict(refusal.metadata))
        place = (outcome.timeline, outcome.sequence, facts)
        numbers = (int(outcome.state), outcome.global_step, outcome.revision, outcome.seed_id)
        before = self.head
        try:
            self._insert("outcome", (self._next_revision(), outcome.command_id, *numbers, *words, unix_s, *place))
        except sqlite3.IntegrityError as error:
            self.head = before
            return Settlement(_settle_refusal(error), outcome)
        return Settlement(SettleStatus.RECORDED, outcome, self.head.revision)

    def _append_history(self, record: HistoryRecord) -> None:
        kind, name = ROW_KINDS[type(record)], unique_name(record)
        row = (self._next_revision(), kind.value, name, seed_of(record), to_json(record))
        try:
            self._insert("history", row)
        except sqlite3.IntegrityError as error:
            raise DuplicateRecord(kind.value, name or "") from error

    def _append_audit(self, entry: AuditEntry) -> None:
        revision, number, previous = self._next_revision(), self.head.audit_number + 1, self.head.audit_hash
        digest = row_hash(previous, number, entry)
        words = (entry.principal, entry.key_id, entry.peer, entry.method, entry.payload_sha256)
        rest = (entry.decision, entry.detail, entry.unix_s, previous, digest)
        self._insert("audit", (revision, number, *words, *rest))
        self.head = Head(revision, number, digest)

    def _read_head(self) -> Head:
        revision = self._db.execute(_LAST_REVISION).fetchone()[0]
        last = self._db.execute("SELECT number, row_hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        return Head(revision, *(last or (0, GENESIS_HASH)))


Write = Callable[[Ledger], object]


def open_ledger(path: Path) -> Ledger:
    """Open the file for writing, making it if need be.

    Raises:
        JournalUnreadable: the file is not a journal that this daemon can carry on.
    """
    connection = open_writer(path)
    try:
        return Ledger(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalUnreadable(str(path), str(error)) from error


@functools.cache
def _insert_statement(table: str, num_rows: int) -> str:
    row = f"({', '.join('?' * _NUM_COLUMNS[table])})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * num_rows)}"


def _is_the_disks(error: Exception) -> bool:
    """Whether an error is about the disk, which fails the whole group, and not about the row that was written."""
    about_a_row = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.Error) and not isinstance(error, about_a_row)


def _settle_refusal(error: sqlite3.IntegrityError) -> SettleStatus:
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE":
        return SettleStatus.ALREADY_SETTLED
    if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return SettleStatus.UNKNOWN_COMMAND
    raise error
