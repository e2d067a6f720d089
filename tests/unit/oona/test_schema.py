"""How connections to the journal are opened."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from esperd.oona.schema import APPLICATION_ID, open_reader, open_writer


def test_every_commit_is_flushed(tmp_path: Path) -> None:
    """Write-ahead log, a flush at each commit (FULL is 2), foreign keys on, and the file marked as ours."""
    with closing(open_writer(tmp_path / "journal")) as db:
        settings = [
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "application_id")
        ]
    assert settings == ["wal", 2, 1, APPLICATION_ID]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """The reading connection is refused every change, and copes with a path that needs quoting."""
    path = tmp_path / "a run? #1 %20"
    with closing(open_writer(path)), closing(open_reader(path)) as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DROP TABLE audit")
        assert db.execute("SELECT count(*) FROM command").fetchone() == (0,)
