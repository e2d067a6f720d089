"""How connections to the journal are opened, and how an older file becomes one of today."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from esperd.leyline.vocabulary import CommandState, TrainerPhase
from esperd.oona.failures import JournalUnreadable
from esperd.oona.records import HistoryQuery, RunFinished, RunStarted
from esperd.oona.schema import APPLICATION_ID, SCHEMA_VERSION, open_reader, open_writer
from esperd.oona.sqlite_journal import SqliteJournal
from tests.unit.oona.samples import NOW_S, command, rejected

VERSION_1 = Path(__file__).with_name("journal_version_1.sql").read_text()


def make_version_1(path: Path, more: str = "") -> None:
    """A file as the first schema left it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"BEGIN; {VERSION_1} {more} COMMIT;")


def shape(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table's columns, and every other thing in the schema by its SQL."""
    with closing(sqlite3.connect(path)) as db:
        found = {}
        for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall():
            is_table = kind == "table"
            found[name] = db.execute(f"PRAGMA table_info({name})").fetchall() if is_table else [(kind, sql)]
        return found


def test_every_commit_is_flushed(tmp_path: Path) -> None:
    """Write-ahead log, a flush at each commit (FULL is 2), foreign keys on, and the file marked as ours."""
    with closing(open_writer(tmp_path / "journal")) as db:
        settings = [
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
        ]
    assert settings == ["wal", 2, 1, APPLICATION_ID, SCHEMA_VERSION]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """The reading connection is refused every change, and copes with a path that needs quoting."""
    path = tmp_path / "a run? #1 %20"
    with closing(open_writer(path)), closing(open_reader(path)) as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DROP TABLE audit")
        assert db.execute("SELECT count(*) FROM command").fetchone() == (0,)


def test_rows_of_a_kind_are_found_by_an_index(tmp_path: Path) -> None:
    """A page of one kind neither looks at the other rows nor sorts: there may be millions after a month."""
    with closing(open_writer(tmp_path / "journal")) as db:
        query = "SELECT revision FROM history WHERE revision > 0 AND kind IN ('notice') ORDER BY revision LIMIT 9"
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert plan == ["SEARCH history USING COVERING INDEX history_of_kind (kind=? AND revision>?)"]


def test_a_migrated_file_is_like_a_new_one(tmp_path: Path) -> None:
    """The same columns in the same order, the same view and the same triggers."""
    make_version_1(tmp_path / "old")
    for name in ("old", "new"):
        open_writer(tmp_path / name).close()
    assert shape(tmp_path / "old") == shape(tmp_path / "new")


async def test_a_file_of_version_1_goes_on(tmp_path: Path) -> None:
    """Its rows are read with the defaults of what they lack, its open command too, and new rows keep everything."""
    path = tmp_path / "journal"
    make_version_1(path)
    journal = await SqliteJournal.open(path)
    old = await journal.get_command("command-a")
    assert old is not None
    assert (old.state, old.payload, old.refusal_reason) == (CommandState.REJECTED, b"\x00\x01", "SEED_STAGE")
    assert (old.timeline, old.sequence, old.accepted_step, old.refusal_metadata) == (1, 0, 0, {})
    assert [record.command_id for record in await journal.unsettled()] == ["command-b"]
    started, finished = [row.record for row in (await journal.list_history(HistoryQuery())).rows]
    assert isinstance(started, RunStarted)
    assert isinstance(finished, RunFinished)
    assert not started.is_resumable
    assert finished.phase is TrainerPhase.STOPPING
    await journal.accept([command("new")])
    await journal.settle([rejected("new")], NOW_S)
    new = await journal.get_command("command-new")
    assert new is not None
    assert (new.refusal_metadata, new.journal_revision) == ({"seed_id": "3"}, 7)
    await journal.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """All of it is one transaction: the version, the columns and the view."""
    path = tmp_path / "journal"
    make_version_1(path, "ALTER TABLE outcome ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;")
    before = shape(path)
    with pytest.raises(JournalUnreadable, match="duplicate column"):
        open_writer(path)
    assert shape(path) == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
