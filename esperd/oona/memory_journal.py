"""The journal that lives as long as the process: for runs that are told to keep nothing on disk.

Used on the event loop. Keeps the same promises as the journal on disk, except that nothing outlives the process and
that the oldest settled commands and the oldest rows are forgotten when there are more than `max_rows`.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from esperd.leyline.commands import Outcome
from esperd.leyline.vocabulary import CommandState
from esperd.oona.audit_chain import GENESIS_HASH, row_hash, verify
from esperd.oona.failures import DuplicateRecord, JournalUnavailable, RequestIdReused
from esperd.oona.journal import AUDIT_PAGE_ROWS, Page, Pause, check_final, no_pause
from esperd.oona.pages import check_page_size, cut_page, decode_token
from esperd.oona.records import (
    ROW_KINDS,
    Acceptance,
    AcceptStatus,
    AuditEntry,
    AuditQuery,
    AuditRow,
    AuditVerdict,
    CommandQuery,
    CommandRecord,
    HistoryQuery,
    HistoryRecord,
    HistoryRow,
    Record,
    RowKind,
    Settlement,
    SettleStatus,
    as_accepted,
    as_settled,
    seed_of,
    unique_name,
)

RowT = TypeVar("RowT")


class MemoryJournal:
    """A `Journal` in memory; see there for what each method promises."""

    def __init__(self, max_rows: int = 65_536) -> None:
        """Make an empty journal that keeps up to `max_rows` commands, history rows and audit rows each."""
        self._max_rows = max_rows
        self._revision = 0
        self._commands: dict[str, tuple[int, CommandRecord]] = {}
        self._requests: dict[str, str] = {}
        self._settled: deque[str] = deque()
        self._history: deque[HistoryRow] = deque()
        self._names: set[tuple[RowKind, str]] = set()
        self._audit: deque[AuditRow] = deque(maxlen=max_rows)
        self._closed = False

    @property
    def revision(self) -> int:
        """Journal revision of the newest row."""
        return self._revision

    @property
    def num_pending(self) -> int:
        """Always 0: nothing waits for a disk."""
        return 0

    async def recover(self, unix_s: float) -> tuple[CommandRecord, ...]:  # noqa: ARG002 - the protocol names it
        """Nothing: there is no earlier life."""
        self._check_open()
        return ()

    async def unsettled(self) -> tuple[CommandRecord, ...]:
        """Every command that has no outcome."""
        self._check_open()
        return tuple(record for _, record in self._commands.values() if not record.state.is_final)

    async def last_state_revision(self) -> int:
        """The largest revision of the training state in any row."""
        self._check_open()
        settled = (record.revision for _, record in self._commands.values())
        told = (getattr(row.record, "revision", 0) for row in self._history)
        return max((*settled, *told), default=0)

    async def accept(self, records: Sequence[CommandRecord]) -> tuple[Acceptance, ...]:
        """Keep commands as ACCEPTED, all or none."""
        self._check_open()
        before, answers = self._revision, list[Acceptance]()
        try:
            for record in records:
                answers.append(self._accept(record))
        except (RequestIdReused, DuplicateRecord):
            self._take_back(answers)
            self._revision = before
            raise
        self._forget_commands()
        return tuple(answers)

    async def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        """Keep final outcomes, one for each command."""
        self._check_open()
        check_final(outcomes)
        return tuple(self._settle(outcome, unix_s) for outcome in outcomes)

    async def append(self, *records: Record) -> int:
        """Keep history records and audit entries, all or none."""
        self._check_open()
        self._check_names(records)
        for record in records:
            if isinstance(record, AuditEntry):
                self._append_audit(record)
            else:
                self._append_history(record)
        return self._revision

    async def find_requests(self, request_ids: Sequence[str]) -> dict[str, CommandRecord]:
        """The commands that these request ids brought."""
        self._check_open()
        known = {name: self._requests[name] for name in request_ids if name in self._requests}
        return {name: self._commands[command_id][1] for name, command_id in known.items()}

    async def get_command(self, command_id: str) -> CommandRecord | None:
        """One command as it stands now."""
        self._check_open()
        return self._commands[command_id][1] if command_id in self._commands else None

    async def list_commands(
        self, query: CommandQuery, page_size: int = 100, page_token: str = ""
    ) -> Page[CommandRecord]:
        """One page of commands, newest first."""
        self._check_open()
        before = decode_token("commands", page_token)
        found = (
            (revision, record)
            for revision, record in reversed(self._commands.values())
            if (before is None or revision < before) and _answers(query, record)
        )
        return _page("commands", found, page_size)

    async def list_history(self, query: HistoryQuery, page_size: int = 100, page_token: str = "") -> Page[HistoryRow]:
        """One page of history rows, oldest first."""
        self._check_open()
        token = decode_token("history", page_token)
        after = query.after_revision if token is None else token
        found = (
            (row.journal_revision, row)
            for row in self._history
            if row.journal_revision > after
            and (not query.kinds or row.kind in query.kinds)
            and (not query.seed_id or seed_of(row.record) == query.seed_id)
        )
        return _page("history", found, page_size)

    async def list_audit(self, query: AuditQuery, page_size: int = 100, page_token: str = "") -> Page[AuditRow]:
        """One page of audit rows, newest first."""
        self._check_open()
        before = decode_token("audit", page_token)
        found = (
            (row.journal_revision, row)
            for row in reversed(self._audit)
            if (before is None or row.journal_revision < before) and query.answers(row.entry)
        )
        return _page("audit", found, page_size)

    async def verify_audit(self, pause: Pause = no_pause) -> AuditVerdict:
        """Compute the audit chain again, from the oldest row kept, and compare."""
        self._check_open()
        rows = tuple(self._audit)
        first = rows[0].number if rows else 1
        previous_hash = GENESIS_HASH if first == 1 else None
        for start in range(0, len(rows), AUDIT_PAGE_ROWS):
            found = verify(rows[start : start + AUDIT_PAGE_ROWS], first + start, previous_hash)
            if not found.intact:
                return replace(found, num_rows=start + found.num_rows)
            previous_hash = found.head_hash
            await pause()
        return AuditVerdict(True, len(rows), previous_hash or GENESIS_HASH)

    async def close(self) -> None:
        """Refuse every later call."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable("it is closed")

    def _next_revision(self) -> int:
        self._revision += 1
        return self._revision

    def _accept(self, record: CommandRecord) -> Acceptance:
        first_id = self._requests.get(record.request_id)
        if first_id is not None:
            first = self._commands[first_id][1]
            if first.payload_sha256 != record.payload_sha256:
                raise RequestIdReused(record.request_id, first.command_id)
            return Acceptance(AcceptStatus.DUPLICATE, first)
        if record.command_id in self._commands:
            raise DuplicateRecord("command", record.command_id)
        revision = self._next_revision()
        accepted = as_accepted(record, revision)
        self._commands[record.command_id] = (revision, accepted)
        if record.request_id:
            self._requests[record.request_id] = record.command_id
        return Acceptance(AcceptStatus.ACCEPTED, accepted)

    def _take_back(self, answers: Iterable[Acceptance]) -> None:
        for answer in answers:
            if answer.status is AcceptStatus.ACCEPTED:
                self._drop_command(answer.record)

    def _forget_commands(self) -> None:
        while len(self._commands) > self._max_rows and self._settled:
            self._drop_command(self._commands[self._settled.popleft()][1])

    def _drop_command(self, record: CommandRecord) -> None:
        del self._commands[record.command_id]
        self._requests.pop(record.request_id, None)

    def _settle(self, outcome: Outcome, unix_s: float) -> Settlement:
        if outcome.command_id not in self._commands:
            return Settlement(SettleStatus.UNKNOWN_COMMAND, outcome)
        accept_revision, record = self._commands[outcome.command_id]
        if record.state.is_final:
            return Settlement(SettleStatus.ALREADY_SETTLED, outcome)
        revision = self._next_revision()
        self._commands[outcome.command_id] = (accept_revision, as_settled(record, outcome, unix_s, revision))
        self._settled.append(outcome.command_id)
        return Settlement(SettleStatus.RECORDED, outcome, revision)

    def _append_audit(self, entry: AuditEntry) -> None:
        number, previous = (self._audit[-1].number, self._audit[-1].row_hash) if self._audit else (0, GENESIS_HASH)
        digest = row_hash(previous, number + 1, entry)
        self._audit.append(AuditRow(number + 1, self._next_revision(), entry, previous, digest))

    def _append_history(self, record: HistoryRecord) -> None:
        kind, name = ROW_KINDS[type(record)], unique_name(record)
        if name is not None:
            self._names.add((kind, name))
        self._history.append(HistoryRow(self._next_revision(), kind, record))
        if len(self._history) > self._max_rows:
            oldest = self._history.popleft()
            self._names.discard((oldest.kind, unique_name(oldest.record) or ""))

    def _check_names(self, records: Sequence[Record]) -> None:
        new: set[tuple[RowKind, str]] = set()
        for record in records:
            if isinstance(record, AuditEntry) or (name := unique_name(record)) is None:
                continue
            key = (ROW_KINDS[type(record)], name)
            if key in self._names or key in new:
                raise DuplicateRecord(key[0].value, name)
            new.add(key)


def _answers(query: CommandQuery, record: CommandRecord) -> bool:
    return (
        query.state in (CommandState.UNSPECIFIED, record.state)
        and query.principal in ("", record.principal)
        and query.kind in ("", record.kind)
        and query.seed_id in (0, record.seed_id)
    )


def _page(list_name: str, found: Iterable[tuple[int, RowT]], page_size: int) -> Page[RowT]:
    check_page_size(page_size)
    return cut_page(list_name, list(islice(found, page_size + 1)), page_size)
