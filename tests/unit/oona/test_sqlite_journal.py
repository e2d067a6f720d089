"""The journal on disk: what survives, what is refused, and what a full disk does."""

import asyncio
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from esperd.leyline.vocabulary import CommandState
from esperd.oona.failures import DuplicateRecord, JournalLocked, JournalUnavailable, JournalUnreadable
from esperd.oona.records import AcceptStatus, CommandQuery, HistoryQuery, SettleStatus
from esperd.oona.sqlite_journal import SqliteJournal
from tests.unit.oona.samples import NOW_S, applied, audit, command, field_report, notice, transition

CHILD = """
import asyncio, sys, time
from pathlib import Path
from esperd.oona.sqlite_journal import SqliteJournal
from tests.unit.oona.samples import command, notice

async def main():
    journal = await SqliteJournal.open(Path(sys.argv[1]))
    {work}

asyncio.run(main())
"""


def run_until_killed(path: Path, work: str, num_lines: int) -> list[str]:
    """Run a child that journals, read some lines from it, kill it in the middle, and return all it printed."""
    source = CHILD.format(work=textwrap.indent(textwrap.dedent(work), "    ").strip())
    with subprocess.Popen([sys.executable, "-c", source, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline().strip() for _ in range(num_lines)]
        finally:
            child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().split()
    assert child.returncode == -signal.SIGKILL
    return lines


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let every write past a size fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_an_awaited_append_survives_sigkill(tmp_path: Path) -> None:
    """A row whose append returned is there after the process was killed the moment after."""
    path = tmp_path / "journal"
    work = """
    await journal.append(notice())
    print("durable", flush=True)
    time.sleep(60)
    """
    assert run_until_killed(path, work, num_lines=1) == ["durable"]
    journal = await SqliteJournal.open(path)
    assert [row.record for row in (await journal.list_history(HistoryQuery())).rows] == [notice()]
    await journal.close()


async def test_a_kill_never_leaves_half_a_batch(tmp_path: Path) -> None:
    """Killed while it writes batch after batch: every answered batch is there, and none in part."""
    path = tmp_path / "journal"
    work = """
    async def write(first):
        for number in range(first, 100_000, 4):
            await journal.accept([command(f"{number}-{part}") for part in range(5)])
            print(number, flush=True)
    await asyncio.gather(*(write(first) for first in range(4)))
    """
    answered = {int(line) for line in run_until_killed(path, work, num_lines=40)[:-1]}
    with closing(sqlite3.connect(path)) as db:
        names = [row[0].removeprefix("command-") for row in db.execute("SELECT command_id FROM command")]
    batches: dict[int, int] = {}
    for name in names:
        number = int(name.split("-")[0])
        batches[number] = batches.get(number, 0) + 1
    assert answered <= batches.keys()
    assert set(batches.values()) == {5}


async def test_a_command_without_an_outcome_is_failed_once_at_the_next_start(tmp_path: Path) -> None:
    """Recovery gives each lost command exactly one outcome; a second recovery, or start, changes nothing."""
    path = tmp_path / "journal"
    work = """
    await journal.accept([command("lost"), command("also-lost")])
    print("accepted", flush=True)
    time.sleep(60)
    """
    run_until_killed(path, work, num_lines=1)
    journal = await SqliteJournal.open(path)
    lost = await journal.recover(NOW_S + 60)
    assert [record.command_id for record in lost] == ["command-lost", "command-also-lost"]
    assert {(record.state, record.refusal_reason) for record in lost} == {
        (CommandState.FAILED, "COMMAND_LOST_IN_RESTART")
    }
    assert {record.updated_unix_s for record in lost} == {NOW_S + 60}
    revision = journal.revision
    assert await journal.recover(NOW_S + 61) == ()
    await journal.close()

    journal = await SqliteJournal.open(path)
    assert await journal.recover(NOW_S + 62) == ()
    assert journal.revision == revision
    assert await journal.get_command("command-lost") == lost[0]
    await journal.close()


async def test_a_restart_keeps_requests_sequence_and_audit_chain(tmp_path: Path) -> None:
    """Idempotency, journal revisions and the audit chain go on where the last life ended."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.accept([command("a")])
    await journal.settle([applied("a")], NOW_S)
    await journal.append(audit("1"))
    await journal.close()

    journal = await SqliteJournal.open(path)
    assert journal.revision == 3
    assert (await journal.find_requests(["request-a"]))["request-a"].state is CommandState.APPLIED
    (answer,) = await journal.accept([command("b", request_id="request-a")])
    assert answer.status is AcceptStatus.DUPLICATE
    assert await journal.append(audit("2")) == 4
    assert (await journal.verify_audit()).num_rows == 2
    await journal.close()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit SET detail = 'nothing happened' WHERE number = 2",
        "DELETE FROM audit WHERE number = 2",
        "UPDATE audit SET number = number + 10 WHERE number = 2",
        "UPDATE audit SET row_hash = zeroblob(32) WHERE number = 2",
    ],
)
async def test_a_changed_audit_row_is_found(tmp_path: Path, tampering: str) -> None:
    """A row changed, removed or moved behind the daemon's back breaks the chain, and the place is named."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.append(*(audit(str(number)) for number in range(1, 5)))
    await journal.close()
    with closing(sqlite3.connect(path)) as db:
        triggers = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")]
        db.executescript("".join(f"DROP TRIGGER {name};" for name in triggers) + tampering)

    journal = await SqliteJournal.open(path)
    verdict = await journal.verify_audit()
    assert not verdict.intact
    assert verdict.first_bad_number == 2
    await journal.close()


@pytest.mark.parametrize("table", ["command", "outcome", "history", "audit"])
async def test_the_file_itself_refuses_changes(tmp_path: Path, table: str) -> None:
    """Rows can be neither changed nor removed through SQL."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.accept([command("a")])
    await journal.settle([applied("a")], NOW_S)
    await journal.append(notice(), audit())
    await journal.close()
    with closing(sqlite3.connect(path)) as db:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET revision = 99"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


async def test_a_full_disk_fails_the_write_and_leaves_the_journal_usable(tmp_path: Path) -> None:
    """The write that does not fit raises JournalUnavailable, leaves nothing behind, and the next one works."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.accept([command("before")])
    size = path.with_name("journal-wal").stat().st_size
    with file_size_limit(size + 20_000):
        big = [command(str(number), bytes(10_000)) for number in range(20)]
        answers = await asyncio.gather(journal.accept(big), journal.append(notice()), return_exceptions=True)
        assert [type(answer) for answer in answers] == [JournalUnavailable, JournalUnavailable]
        assert "E-SRV-002" in str(answers[0])
    assert journal.revision == 1
    await journal.accept(big)
    assert journal.revision == 21
    assert (await journal.list_history(HistoryQuery())).rows == ()
    await journal.close()

    journal = await SqliteJournal.open(path)
    assert len((await journal.list_commands(CommandQuery(), page_size=50)).rows) == 21
    await journal.close()


async def test_a_disk_that_stays_full_does_not_keep_the_journal_from_closing(tmp_path: Path) -> None:
    """Close ends the threads and lets go of the file even when the last writes fail."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    with file_size_limit(1):
        write = asyncio.ensure_future(journal.append(notice()))
        await asyncio.sleep(0)
        await journal.close()
        with pytest.raises(JournalUnavailable):
            await write
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("journal")] == []
    await (await SqliteJournal.open(path)).close()


async def test_a_refused_write_does_not_cost_its_group_anything(tmp_path: Path) -> None:
    """Writes that share a commit stand or fall alone: a duplicate and a value SQLite cannot hold are refused."""
    journal = await SqliteJournal.open(tmp_path / "journal")
    answers = await asyncio.gather(
        journal.append(field_report("1")),
        journal.append(notice(), field_report("1")),
        journal.append(transition(seed_id=1 << 70)),
        journal.append(audit(), audit()),
        journal.append(notice()),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [int, DuplicateRecord, OverflowError, int, int]
    assert [answers[0], answers[3], answers[4]] == [1, 3, 4]
    assert (await journal.verify_audit()).num_rows == 2
    await journal.close()


async def test_a_large_group_of_every_kind_is_answered_in_order(tmp_path: Path) -> None:
    """Commands, their outcomes and other rows in one commit: each has its place in the order they were asked for."""
    journal = await SqliteJournal.open(tmp_path / "journal")
    names = [str(number) for number in range(345)]
    accepted, settled, noticed, audited = await asyncio.gather(
        journal.accept([command(name) for name in names]),
        journal.settle([applied(name) for name in names], NOW_S),
        journal.append(*(notice() for _ in range(7))),
        journal.append(*(audit() for _ in range(3))),
    )
    assert [answer.record.journal_revision for answer in accepted] == list(range(1, 346))
    assert [answer.journal_revision for answer in settled] == list(range(346, 691))
    assert (noticed, audited, journal.revision) == (697, 700, 700)
    assert {answer.status for answer in settled} == {SettleStatus.RECORDED}
    last = await journal.get_command("command-344")
    assert last is not None
    assert (last.state, last.journal_revision) == (CommandState.APPLIED, 690)
    assert (await journal.verify_audit()).num_rows == 3
    await journal.close()


async def test_a_long_audit_chain_is_verified_in_pages(tmp_path: Path) -> None:
    """Pages join without a seam."""
    journal = await SqliteJournal.open(tmp_path / "journal")
    await journal.append(*(audit(str(number)) for number in range(1_100)))
    verdict = await journal.verify_audit()
    assert (verdict.intact, verdict.num_rows) == (True, 1_100)
    await journal.close()


async def test_a_cancelled_caller_does_not_take_its_row_back(tmp_path: Path) -> None:
    """Cancelling the wait for a commit leaves the row and the other callers alone."""
    journal = await SqliteJournal.open(tmp_path / "journal")
    given_up = asyncio.ensure_future(journal.accept([command("a")]))
    waiting = asyncio.ensure_future(journal.append(notice()))
    await asyncio.sleep(0)
    given_up.cancel()
    await waiting
    assert given_up.cancelled()
    assert (await journal.find_requests(["request-a"]))["request-a"].command_id == "command-a"
    await journal.close()


async def test_close_writes_what_is_pending(tmp_path: Path) -> None:
    """Everything asked for before close is in the file after it."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    writes = [asyncio.ensure_future(journal.append(notice())) for _ in range(20)]
    await asyncio.sleep(0)
    await journal.close()
    assert len(await asyncio.gather(*writes)) == 20
    journal = await SqliteJournal.open(path)
    assert journal.revision == 20
    await journal.close()


async def test_requests_are_found_when_memory_no_longer_holds_them_all(tmp_path: Path) -> None:
    """Past the number of ids kept in memory the disk is asked, also right after opening."""
    path = tmp_path / "journal"
    for life in range(2):
        journal = await SqliteJournal.open(path, max_known_requests=3)
        await journal.accept([command(f"{life}-{number}") for number in range(5)])
        names = [f"request-{old}-{number}" for old in range(life + 1) for number in range(5)]
        assert list((await journal.find_requests([*names, "request-new"])).keys()) == names
        await journal.close()


async def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    """A journal has one owner; the error names the file and the process, and the lock ends with the owner."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    with pytest.raises(JournalLocked, match=str(path)):
        await SqliteJournal.open(path)
    await journal.close()
    await (await SqliteJournal.open(path)).close()


async def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Garbage, another program's database and a newer schema: each a clear error, the lock free again."""
    garbage, foreign, newer = tmp_path / "garbage", tmp_path / "foreign", tmp_path / "newer"
    garbage.write_bytes(b"not a database, but long enough to be looked at " * 50)
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE theirs (x)")
    await (await SqliteJournal.open(newer)).close()
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 3")
    for path, words in ((garbage, "not a database"), (foreign, "another program"), (newer, "schema version 3")):
        before = path.read_bytes()
        for _ in range(2):
            with pytest.raises(JournalUnreadable, match=words):
                await SqliteJournal.open(path)
        assert path.read_bytes() == before


async def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    """A journal whose pages are destroyed is named as unreadable, and its lock is free again."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.append(*(notice() for _ in range(100)))
    await journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    for _ in range(2):
        with pytest.raises(JournalUnreadable, match="malformed"):
            await SqliteJournal.open(path)


async def test_a_place_that_cannot_hold_a_journal_is_an_error_of_the_catalogue(tmp_path: Path) -> None:
    """A missing directory, or a directory in the file's place: refused by name, with the path."""
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "missing" / "journal", tmp_path / "taken"):
        with pytest.raises(JournalUnreadable, match=f"E-SRV-015.*{path}"):
            await SqliteJournal.open(path)


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    """Payloads are nobody else's business: the files have mode 0600."""
    path = tmp_path / "journal"
    journal = await SqliteJournal.open(path)
    await journal.append(notice())
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}
    await journal.close()
