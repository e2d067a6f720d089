"""The journal's tables, and how a connection to them is opened.

Used on the journal's own threads. The schema itself holds the promises: one command per request id, one outcome per
command, one audit row per number, and nothing that was written is ever changed or removed.
"""

import sqlite3
from pathlib import Path

from esperd.leyline.private_files import sync_directory
from esperd.oona.failures import JournalUnreadable

APPLICATION_ID = 0x45535045
"""`ESPE`: marks the file as a journal of ours."""
SCHEMA_VERSION = 2

_TABLES = """
CREATE TABLE command (
    revision        INTEGER PRIMARY KEY,
    command_id      TEXT NOT NULL UNIQUE,
    request_id      TEXT UNIQUE,
    principal       TEXT NOT NULL,
    key_id          TEXT NOT NULL,
    method          TEXT NOT NULL,
    kind            TEXT NOT NULL,
    payload         BLOB NOT NULL,
    payload_sha256  BLOB NOT NULL CHECK (length(payload_sha256) = 32),
    accepted_unix_s REAL NOT NULL,
    reason          TEXT NOT NULL,
    seed_id         INTEGER NOT NULL,
    accepted_step   INTEGER NOT NULL DEFAULT 0,
    decision_id     TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE outcome (
    revision         INTEGER PRIMARY KEY,
    command_id       TEXT NOT NULL UNIQUE REFERENCES command (command_id),
    state            INTEGER NOT NULL CHECK (state BETWEEN 2 AND 6),
    global_step      INTEGER NOT NULL,
    state_revision   INTEGER NOT NULL,
    seed_id          INTEGER NOT NULL,
    refusal_reason   TEXT NOT NULL,
    refusal_message  TEXT NOT NULL,
    settled_unix_s   REAL NOT NULL,
    timeline         INTEGER NOT NULL DEFAULT 1,
    sequence         INTEGER NOT NULL DEFAULT 0,
    refusal_metadata TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL,
    name     TEXT,
    seed_id  INTEGER NOT NULL,
    body     TEXT NOT NULL,
    UNIQUE (kind, name)
) STRICT;
CREATE INDEX history_of_seed ON history (seed_id, revision) WHERE seed_id > 0;
CREATE TABLE audit (
    revision       INTEGER PRIMARY KEY,
    number         INTEGER NOT NULL UNIQUE,
    principal      TEXT NOT NULL,
    key_id         TEXT NOT NULL,
    peer           TEXT NOT NULL,
    method         TEXT NOT NULL,
    payload_sha256 BLOB NOT NULL,
    decision       TEXT NOT NULL,
    detail         TEXT NOT NULL,
    unix_s         REAL NOT NULL,
    previous_hash  BLOB NOT NULL,
    row_hash       BLOB NOT NULL
) STRICT;
"""

_VIEW = """
CREATE VIEW command_now AS
SELECT c.revision AS accept_revision, c.command_id, coalesce(c.request_id, '') AS request_id, c.principal, c.key_id,
    c.method, c.kind, c.payload, c.payload_sha256, c.accepted_unix_s, c.reason,
    CASE WHEN o.seed_id > 0 THEN o.seed_id ELSE c.seed_id END AS seed_id,
    coalesce(o.state, 1) AS state, coalesce(o.global_step, 0) AS global_step,
    coalesce(o.state_revision, 0) AS state_revision, coalesce(o.refusal_reason, '') AS refusal_reason,
    coalesce(o.refusal_message, '') AS refusal_message,
    coalesce(o.settled_unix_s, c.accepted_unix_s) AS updated_unix_s,
    coalesce(o.revision, c.revision) AS journal_revision, c.accepted_step, c.decision_id,
    coalesce(o.timeline, 1) AS timeline, coalesce(o.sequence, 0) AS sequence,
    coalesce(o.refusal_metadata, '{}') AS refusal_metadata
FROM command AS c LEFT JOIN outcome AS o ON o.command_id = c.command_id;
"""

_INDEX = """
CREATE INDEX history_of_kind ON history (kind, revision);
"""
"""The rows of one kind are asked for with many calls (where does a run begin?), and lie among millions of others."""

_FROM_VERSION_1 = """
ALTER TABLE command ADD COLUMN accepted_step INTEGER NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN decision_id TEXT NOT NULL DEFAULT '';
ALTER TABLE outcome ADD COLUMN timeline INTEGER NOT NULL DEFAULT 1;
ALTER TABLE outcome ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outcome ADD COLUMN refusal_metadata TEXT NOT NULL DEFAULT '{}';
DROP VIEW command_now;
"""
"""New columns come last in their tables, so that a migrated file is like a new one."""

_APPEND_ONLY = """
CREATE TRIGGER {table}_is_not_changed BEFORE UPDATE ON {table}
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER {table}_is_not_removed BEFORE DELETE ON {table}
BEGIN SELECT raise(ABORT, 'the journal is append-only'); END;
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that may write, on a file that is made if need be; every commit is flushed to the disk.

    Raises:
        JournalUnreadable: the file is not a journal that this daemon can carry on.
    """
    connection: sqlite3.Connection | None = None
    try:
        path.touch(mode=0o600)
        sync_directory(path.parent)
        connection = sqlite3.connect(path, isolation_level=None)
        _prepare(connection, path)
    except (OSError, sqlite3.DatabaseError, JournalUnreadable) as error:
        if connection is not None:
            connection.close()
        raise error if isinstance(error, JournalUnreadable) else JournalUnreadable(str(path), str(error)) from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; it sees every commit that is durable and waits for none."""
    return sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application_id = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    is_new = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not is_new and application_id != APPLICATION_ID:
        raise JournalUnreadable(str(path), "it is another program's database")
    if not is_new and not 1 <= version <= SCHEMA_VERSION:
        raise JournalUnreadable(str(path), f"it has schema version {version}, this daemon writes {SCHEMA_VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if is_new:
        triggers = "".join(_APPEND_ONLY.format(table=table) for table in ("command", "outcome", "history", "audit"))
        _change(connection, f"{_TABLES} {_INDEX} {_VIEW} {triggers} PRAGMA application_id = {APPLICATION_ID};")
    elif version == 1:
        _change(connection, f"{_FROM_VERSION_1} {_INDEX} {_VIEW}")


def _change(connection: sqlite3.Connection, statements: str) -> None:
    """Bring the schema to our version, whole or not at all."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
