"""Questions to the SQLite journal.

Runs on the journal's reader thread, and within a write on its writer thread. Knows SQL, but not asyncio.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from esperd.leyline.vocabulary import CommandState
from esperd.oona.codec import from_json
from esperd.oona.journal import Page
from esperd.oona.pages import cut_page, decode_token
from esperd.oona.records import (
    ACCEPTED,
    RECORD_TYPES,
    AuditEntry,
    AuditQuery,
    AuditRow,
    CommandQuery,
    CommandRecord,
    HistoryQuery,
    HistoryRecord,
    HistoryRow,
    RowKind,
)

_COMMAND_COLUMNS = """accept_revision, command_id, request_id, principal, key_id, method, kind, payload, payload_sha256,
    accepted_unix_s, reason, seed_id, state, global_step, state_revision, refusal_reason, refusal_message,
    updated_unix_s, journal_revision, accepted_step, decision_id, timeline, sequence, refusal_metadata"""
_MAX_NAMES_PER_QUERY = 500
_NO_END = 1 << 62
"""Above every journal revision."""


def get_command(db: sqlite3.Connection, command_id: str) -> CommandRecord | None:
    """One command as it stands now."""
    rows = db.execute(f"SELECT {_COMMAND_COLUMNS} FROM command_now WHERE command_id = ?", (command_id,))
    return next((_command(row) for row in rows), None)


def command_of_request(db: sqlite3.Connection, request_id: str) -> CommandRecord | None:
    """The command that a request id brought."""
    return find_requests(db, [request_id]).get(request_id)


def find_requests(db: sqlite3.Connection, request_ids: Sequence[str]) -> dict[str, CommandRecord]:
    """The commands that these request ids brought."""
    found: dict[str, CommandRecord] = {}
    for start in range(0, len(request_ids), _MAX_NAMES_PER_QUERY):
        names = request_ids[start : start + _MAX_NAMES_PER_QUERY]
        marks = ", ".join("?" * len(names))
        # The condition stands on the table, not on the view, so that the unique index answers it.
        chosen = f"SELECT command_id FROM command WHERE request_id IN ({marks})"
        rows = db.execute(f"SELECT {_COMMAND_COLUMNS} FROM command_now WHERE command_id IN ({chosen})", names)
        found.update((record.request_id, record) for record in map(_command, rows))
    return found


def open_commands(db: sqlite3.Connection, up_to_revision: int) -> list[CommandRecord]:
    """The commands accepted up to a journal revision that have no outcome, in order."""
    query = f"""SELECT {_COMMAND_COLUMNS} FROM command_now WHERE accept_revision <= ? AND state = ?
        ORDER BY accept_revision"""
    return [_command(row) for row in db.execute(query, (up_to_revision, int(CommandState.ACCEPTED)))]


def request_ids(db: sqlite3.Connection, max_ids: int) -> list[str]:
    """Up to `max_ids` request ids."""
    query = "SELECT request_id FROM command WHERE request_id IS NOT NULL LIMIT ?"
    return [request_id for (request_id,) in db.execute(query, (max_ids,))]


def list_commands(db: sqlite3.Connection, query: CommandQuery, page_size: int, token: str) -> Page[CommandRecord]:
    """One page of commands, newest first."""
    terms, values = ["1"], list[object]()
    wanted = (
        ("state = ?", int(query.state), query.state != CommandState.UNSPECIFIED),
        ("principal = ?", query.principal, query.principal),
        ("kind = ?", query.kind, query.kind),
        ("seed_id = ?", query.seed_id, query.seed_id),
    )
    for term, value, is_set in wanted:
        if is_set:
            terms.append(term)
            values.append(value)
    before = decode_token("commands", token)
    if before is not None:
        terms.append("accept_revision < ?")
        values.append(before)
    select = f"SELECT {_COMMAND_COLUMNS} FROM command_now WHERE {' AND '.join(terms)}"
    rows = db.execute(f"{select} ORDER BY accept_revision DESC LIMIT ?", (*values, page_size + 1))
    return cut_page("commands", [(row[0], _command(row)) for row in rows], page_size)


def list_history(db: sqlite3.Connection, query: HistoryQuery, page_size: int, token: str) -> Page[HistoryRow]:
    """One page of history rows, oldest first."""
    after = decode_token("history", token)
    terms, values = ["revision > ?"], list[object]([query.after_revision if after is None else after])
    if query.kinds:
        terms.append(f"kind IN ({', '.join('?' * len(query.kinds))})")
        values.extend(kind.value for kind in query.kinds)
    if query.seed_id:
        terms.append("seed_id > 0 AND seed_id = ?")
        values.append(query.seed_id)
    select = f"SELECT revision, kind, body FROM history WHERE {' AND '.join(terms)}"
    rows = db.execute(f"{select} ORDER BY revision LIMIT ?", (*values, page_size + 1))
    return cut_page("history", [(row[0], _history(row)) for row in rows], page_size)


def run_range(db: sqlite3.Connection, run_id: str) -> tuple[int, int]:
    """First journal revision of a run, and the first of the run after it: a journal holds one run after another.

    Raises:
        LookupError: the run is not in the journal.
    """
    kind = RowKind.RUN_STARTED.value
    begun = db.execute("SELECT revision FROM history WHERE kind = ? AND name = ?", (kind, run_id)).fetchone()
    if begun is None:
        raise LookupError(run_id)
    after = db.execute("SELECT min(revision) FROM history WHERE kind = ? AND revision > ?", (kind, begun[0]))
    return begun[0], after.fetchone()[0] or _NO_END


def history_rows(
    db: sqlite3.Connection, kinds: Sequence[RowKind], first: int, end: int
) -> Iterator[tuple[int, HistoryRecord]]:
    """History rows from one journal revision up to but without another, with their revisions, in order."""
    marks = ", ".join("?" * len(kinds))
    query = f"SELECT revision, kind, body FROM history WHERE kind IN ({marks}) AND revision BETWEEN ? AND ?"
    names = [kind.value for kind in kinds]
    for row in db.execute(f"{query} ORDER BY revision", (*names, first, end - 1)):
        yield row[0], _history(row).record


def run_commands(
    db: sqlite3.Connection, first: int, end: int, after_sequence: int
) -> Iterator[tuple[int, CommandRecord]]:
    """Commands accepted from one journal revision up to but without another, with the revision of their acceptance.

    Only those that have no outcome, or one with a number above `after_sequence`.
    """
    query = f"""SELECT {_COMMAND_COLUMNS} FROM command_now WHERE accept_revision BETWEEN ? AND ?
        AND (state = ? OR sequence > ?) ORDER BY accept_revision"""
    for row in db.execute(query, (first, end - 1, int(CommandState.ACCEPTED), after_sequence)):
        yield row[0], _command(row)


def last_sequence(db: sqlite3.Connection, first: int, end: int) -> int:
    """The largest number of an outcome from one journal revision up to but without another."""
    query = "SELECT coalesce(max(sequence), 0) FROM outcome WHERE revision BETWEEN ? AND ?"
    found: int = db.execute(query, (first, end - 1)).fetchone()[0]
    return found


def last_state_revision(db: sqlite3.Connection) -> int:
    """The largest state revision in any row."""
    settled: int = db.execute("SELECT coalesce(max(state_revision), 0) FROM outcome").fetchone()[0]
    told: int = db.execute("SELECT coalesce(max(json_extract(body, '$.revision')), 0) FROM history").fetchone()[0]
    return max(settled, told)


def list_audit(db: sqlite3.Connection, query: AuditQuery, page_size: int, token: str) -> Page[AuditRow]:
    """One page of audit rows, newest first."""
    terms, values = ["1"], list[object]()
    wanted = (
        ("principal = ?", (query.principal,), query.principal),
        ("key_id = ?", (query.key_id,), query.key_id),
        ("(method = ? OR substr(method, -length(?)) = ?)", (query.method, *[f"/{query.method}"] * 2), query.method),
        ("decision = ?", (query.decision,), query.decision),
        ("decision != ?", (ACCEPTED,), query.refused_only),
    )
    for term, found, is_set in wanted:
        if is_set:
            terms.append(term)
            values += found
    before = decode_token("audit", token)
    if before is not None:
        terms.append("revision < ?")
        values.append(before)
    select = f"SELECT * FROM audit WHERE {' AND '.join(terms)} ORDER BY revision DESC LIMIT ?"
    rows = db.execute(select, (*values, page_size + 1))
    return cut_page("audit", [(row[0], _audit(row)) for row in rows], page_size)


def audit_after(db: sqlite3.Connection, revision: int, max_rows: int) -> list[AuditRow]:
    """Audit rows after a journal revision, oldest first."""
    query = "SELECT * FROM audit WHERE revision > ? ORDER BY revision LIMIT ?"
    return [_audit(row) for row in db.execute(query, (revision, max_rows))]


def _command(row: tuple[Any, ...]) -> CommandRecord:
    # The columns after the first stand in the order of the record's fields.
    fields = [*row[1:12], CommandState(row[12]), *row[13:-1], json.loads(row[-1])]
    return CommandRecord(*fields)


def _history(row: tuple[Any, ...]) -> HistoryRow:
    revision, kind_name, body = row
    kind = RowKind(kind_name)
    return HistoryRow(revision, kind, from_json(RECORD_TYPES[kind], body))


def _audit(row: tuple[Any, ...]) -> AuditRow:
    revision, number, *fields, previous_hash, digest = row
    return AuditRow(number, revision, AuditEntry(*fields), previous_hash, digest)
