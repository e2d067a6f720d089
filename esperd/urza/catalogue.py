"""What the library knows besides the files: states, uploads, pins, last use, reasons; one SQLite file.

A worker thread, one call at a time. What is written is durable when the call returns. Nothing in it is needed to trust
a kernel: it is made again from the store when it is gone or cannot be read. Knows no rules.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import read_manifest, read_report
from esperd.leyline.kernels import KernelDocuments, Signature
from esperd.leyline.private_files import sync_directory
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.stored import CompilationReport, StoredKernel

SCHEMA_VERSION = 1
_LOG_PAGES = 64
"""The log beside the file is emptied after so many: the file is small, and so is the disk of some run directories."""

_TABLES = """
CREATE TABLE kernel (
    artifact_id     TEXT PRIMARY KEY,
    manifest        BLOB NOT NULL,
    manifest_key_id TEXT NOT NULL,
    manifest_hmac   BLOB NOT NULL,
    report          BLOB NOT NULL,
    report_key_id   TEXT NOT NULL,
    report_hmac     BLOB NOT NULL,
    state           INTEGER NOT NULL CHECK (state BETWEEN 4 AND 8),
    detail          TEXT NOT NULL,
    principal       TEXT NOT NULL,
    pinned          INTEGER NOT NULL,
    create_unix_s   REAL NOT NULL,
    update_unix_s   REAL NOT NULL,
    last_use_unix_s REAL NOT NULL
) STRICT;
CREATE TABLE part (
    artifact_id   TEXT NOT NULL,
    role          INTEGER NOT NULL,
    num_received  INTEGER NOT NULL,
    update_unix_s REAL NOT NULL,
    PRIMARY KEY (artifact_id, role)
) STRICT, WITHOUT ROWID;
CREATE TABLE compilation (
    variant_key   TEXT PRIMARY KEY,
    state         INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    detail        TEXT NOT NULL,
    principal     TEXT NOT NULL,
    update_unix_s REAL NOT NULL
) STRICT;
"""


class Catalogue:
    """An open file; `close` it at the end."""

    def __init__(self, path: Path, now_unix_s: float) -> None:
        """Open it, making it when there is none; one that cannot be read is moved aside and begun anew.

        Raises:
            EsperdError: KERNEL_STORE_UNAVAILABLE when no file can be made there.
        """
        self._path = path
        with self._usable():
            try:
                self._db = _open(path)
            except sqlite3.OperationalError:
                raise  # a full disk, a missing directory: the file itself may be sound
            except (sqlite3.DatabaseError, EsperdError, ValueError):
                _move_aside(path, now_unix_s)
                self._db = _open(path)

    def kernels(self) -> dict[str, StoredKernel]:
        """Every kernel by its artifact id."""
        with self._usable():
            rows = self._db.execute("SELECT * FROM kernel").fetchall()
            parts = self._db.execute("SELECT part.* FROM part JOIN kernel USING (artifact_id) ORDER BY role").fetchall()
        kernels = {row["artifact_id"]: _kernel(row) for row in rows}
        for part in parts:
            kernel = kernels[part["artifact_id"]]
            kernels[kernel.artifact_id] = replace(
                kernel,
                received=(*kernel.received, (KernelFileRole(part["role"]), part["num_received"])),
                update_unix_s=max(kernel.update_unix_s, part["update_unix_s"]),
            )
        return kernels

    def compilations(self) -> dict[str, CompilationReport]:
        """What compilers last said, by the key of the wish."""
        with self._usable():
            rows = self._db.execute("SELECT * FROM compilation").fetchall()
        return {
            row["variant_key"]: CompilationReport(**{**dict(row), "state": KernelState(row["state"])}) for row in rows
        }

    def put(self, kernel: StoredKernel) -> None:
        """Write a kernel as it is now; what has come of its libraries is struck out unless it is still coming in."""
        with self._usable(), self._transaction():
            self._put_row("kernel", _kernel_row(kernel))
            if not kernel.received:
                self._db.execute("DELETE FROM part WHERE artifact_id = ?", (kernel.artifact_id,))

    def put_received(self, artifact_id: str, role: KernelFileRole, num_received: int, now_unix_s: float) -> None:
        """Write how much of a library has come: a small row, since chunks are many."""
        row = {
            "artifact_id": artifact_id,
            "role": int(role),
            "num_received": num_received,
            "update_unix_s": now_unix_s,
        }
        with self._usable():
            self._put_row("part", row)

    def put_compilation(self, report: CompilationReport) -> None:
        """Write what a compiler says about a wish."""
        row = {name: getattr(report, name) for name in CompilationReport.__slots__}
        with self._usable():
            self._put_row("compilation", {**row, "state": int(report.state)})

    def forget(self, artifact_id: str) -> None:
        """Strike a kernel out."""
        with self._usable(), self._transaction():
            self._db.execute("DELETE FROM kernel WHERE artifact_id = ?", (artifact_id,))
            self._db.execute("DELETE FROM part WHERE artifact_id = ?", (artifact_id,))

    def forget_compilation(self, variant_key: str) -> None:
        """Strike out what was said about a wish."""
        with self._usable():
            self._db.execute("DELETE FROM compilation WHERE variant_key = ?", (variant_key,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _put_row(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join(f":{name}" for name in row)
        self._db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EsperdError("KERNEL_STORE_UNAVAILABLE", path=self._path, detail=error) from error


def _open(path: Path) -> sqlite3.Connection:
    # Made on one thread, used on another: the library's methods are called by one thread at a time.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            sync_directory(path.parent)
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is not {SCHEMA_VERSION}")
        for row in db.execute("SELECT * FROM kernel"):
            _kernel(row)
        db.execute("SELECT * FROM part").fetchall()
        db.execute("SELECT * FROM compilation").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _move_aside(path: Path, now_unix_s: float) -> None:
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(f"{path.name}.unreadable-{int(now_unix_s)}{suffix}"))


def _kernel_row(kernel: StoredKernel) -> dict[str, Any]:
    documents = kernel.documents
    report_signature = documents.report_signature or Signature("", b"")
    return {
        "artifact_id": kernel.artifact_id,
        "manifest": documents.manifest,
        "manifest_key_id": documents.manifest_signature.key_id,
        "manifest_hmac": documents.manifest_signature.hmac,
        "report": documents.report,
        "report_key_id": report_signature.key_id,
        "report_hmac": report_signature.hmac,
        "state": int(kernel.state),
        "detail": kernel.detail,
        "principal": kernel.principal,
        "pinned": int(kernel.pinned),
        "create_unix_s": kernel.create_unix_s,
        "update_unix_s": kernel.update_unix_s,
        "last_use_unix_s": kernel.last_use_unix_s,
    }


def _kernel(row: sqlite3.Row) -> StoredKernel:
    report = row["report"]
    return StoredKernel(
        manifest=read_manifest(row["manifest"]),
        documents=KernelDocuments(
            row["manifest"],
            Signature(row["manifest_key_id"], row["manifest_hmac"]),
            report,
            Signature(row["report_key_id"], row["report_hmac"]) if report else None,
        ),
        state=KernelState(row["state"]),
        create_unix_s=row["create_unix_s"],
        update_unix_s=row["update_unix_s"],
        last_use_unix_s=row["last_use_unix_s"],
        detail=row["detail"],
        principal=row["principal"],
        pinned=bool(row["pinned"]),
        report=read_report(report) if report else None,
    )
