"""What is special about the journal in memory: it forgets the oldest."""

from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import AuditQuery, CommandQuery, HistoryQuery
from tests.unit.oona.samples import NOW_S, applied, audit, command, field_report


async def test_the_oldest_settled_commands_are_forgotten() -> None:
    """Beyond max_rows the oldest settled commands go, with their request ids; open ones stay."""
    journal = MemoryJournal(max_rows=3)
    await journal.accept([command(str(number)) for number in range(3)])
    await journal.settle([applied("1"), applied("2")], NOW_S)
    await journal.accept([command("3"), command("4")])
    names = [record.command_id for record in (await journal.list_commands(CommandQuery())).rows]
    assert names == ["command-4", "command-3", "command-0"]
    assert await journal.find_requests(["request-1"]) == {}


async def test_the_oldest_rows_are_forgotten_and_the_chain_still_verifies() -> None:
    """Beyond max_rows the oldest history and audit rows go; what is left is in order."""
    journal = MemoryJournal(max_rows=2)
    await journal.append(*(field_report(str(number)) for number in range(4)))
    await journal.append(*(audit(str(number)) for number in range(4)))
    assert [row.journal_revision for row in (await journal.list_history(HistoryQuery())).rows] == [3, 4]
    await journal.append(field_report("0"))
    assert [row.number for row in (await journal.list_audit(AuditQuery())).rows] == [4, 3]
    assert (await journal.verify_audit()).intact
