"""What every journal promises, on disk and in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from esperd.leyline.commands import Outcome
from esperd.leyline.vocabulary import CommandState, TrainerPhase
from esperd.oona.failures import DuplicateRecord, JournalUnavailable, PageTokenInvalid, RequestIdReused
from esperd.oona.journal import Journal
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import (
    AcceptStatus,
    AuditQuery,
    CommandQuery,
    HistoryQuery,
    HistoryRecord,
    RowKind,
    SettleStatus,
    outcome_of,
)
from esperd.oona.sqlite_journal import SqliteJournal
from tests.unit.oona.samples import (
    NOW_S,
    applied,
    audit,
    checkpoint,
    command,
    emergency,
    field_report,
    notice,
    rejected,
    run_finished,
    run_resumed,
    run_started,
    timeline,
    transition,
)


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    opened: Journal = MemoryJournal() if request.param == "memory" else await SqliteJournal.open(tmp_path / "journal")
    yield opened
    await opened.close()


async def test_an_accepted_command_is_kept_as_it_came(journal: Journal) -> None:
    """The record comes back with the same bytes, ACCEPTED, at its place in the sequence."""
    (answer,) = await journal.accept([command("a", b"\x00\x01")])
    assert answer.status is AcceptStatus.ACCEPTED
    kept = await journal.get_command("command-a")
    assert kept == answer.record
    assert (kept.payload, kept.state, kept.journal_revision) == (b"\x00\x01", CommandState.ACCEPTED, 1)
    assert kept.updated_unix_s == NOW_S


async def test_a_repeated_request_gets_the_first_command(journal: Journal) -> None:
    """Same request id and same payload: the first command as it stands now, and nothing new is written."""
    await journal.accept([command("a")])
    await journal.settle([applied("a")], NOW_S + 1)
    revision = journal.revision
    (answer,) = await journal.accept([command("b", request_id="request-a")])
    assert answer.status is AcceptStatus.DUPLICATE
    assert (answer.record.command_id, answer.record.state) == ("command-a", CommandState.APPLIED)
    assert journal.revision == revision
    assert await journal.get_command("command-b") is None


async def test_a_reused_request_id_refuses_the_whole_batch(journal: Journal) -> None:
    """Same request id with another payload: RequestIdReused, and no command of the batch is accepted."""
    await journal.accept([command("a")])
    with pytest.raises(RequestIdReused) as refusal:
        await journal.accept([command("b"), command("c", b"other", request_id="request-a")])
    assert refusal.value.command_id == "command-a"
    assert await journal.get_command("command-b") is None
    assert await journal.find_requests(["request-b"]) == {}
    assert journal.revision == 1


async def test_a_taken_command_id_refuses_the_whole_batch(journal: Journal) -> None:
    """Two commands cannot share an id; nothing of the batch is accepted."""
    await journal.accept([command("a")])
    with pytest.raises(DuplicateRecord):
        await journal.accept([command("b"), command("a", request_id="another")])
    assert await journal.get_command("command-b") is None


async def test_a_request_repeated_within_a_batch_is_accepted_once(journal: Journal) -> None:
    """The second of two equal requests in one batch is a duplicate of the first."""
    answers = await journal.accept([command("a"), command("b", request_id="request-a")])
    assert [answer.status for answer in answers] == [AcceptStatus.ACCEPTED, AcceptStatus.DUPLICATE]
    assert answers[1].record == answers[0].record


async def test_commands_without_a_request_id_are_all_new(journal: Journal) -> None:
    """An empty request id stands for no request: such commands never collide, and none is found by it."""
    answers = await journal.accept([command("a", request_id=""), command("b", request_id="")])
    assert [answer.status for answer in answers] == [AcceptStatus.ACCEPTED] * 2
    assert await journal.find_requests([""]) == {}


async def test_one_of_two_racing_requests_wins(journal: Journal) -> None:
    """Two calls with one request id at the same time: one is accepted, the other gets the first's command."""
    first, second = await asyncio.gather(
        journal.accept([command("a")]), journal.accept([command("b", request_id="request-a")])
    )
    assert (first[0].status, second[0].status) == (AcceptStatus.ACCEPTED, AcceptStatus.DUPLICATE)
    assert second[0].record.command_id == "command-a"


async def test_find_requests_leaves_out_unknown_ids(journal: Journal) -> None:
    """Only known request ids are in the answer."""
    await journal.accept([command("a"), command("b")])
    found = await journal.find_requests(["request-b", "request-x", "request-a"])
    assert {name: record.command_id for name, record in found.items()} == {
        "request-a": "command-a",
        "request-b": "command-b",
    }


async def test_a_command_takes_exactly_one_outcome(journal: Journal) -> None:
    """A second outcome is refused and changes nothing; the others of its batch are recorded."""
    await journal.accept([command("a"), command("b")])
    await journal.settle([rejected("a")], NOW_S + 1)
    answers = await journal.settle([applied("a"), applied("b", seed_id=5), applied("x")], NOW_S + 2)
    assert [answer.status for answer in answers] == [
        SettleStatus.ALREADY_SETTLED,
        SettleStatus.RECORDED,
        SettleStatus.UNKNOWN_COMMAND,
    ]
    first, second = await journal.get_command("command-a"), await journal.get_command("command-b")
    assert first is not None
    assert second is not None
    assert (first.state, first.refusal_reason, first.updated_unix_s) == (
        CommandState.REJECTED,
        "SEED_STAGE",
        NOW_S + 1,
    )
    assert first.refusal_message == "Seed 3 is DORMANT."
    assert (second.state, second.global_step, second.revision, second.seed_id) == (CommandState.APPLIED, 120, 7, 5)
    assert second.journal_revision == answers[1].journal_revision == journal.revision


async def test_an_outcome_must_be_final(journal: Journal) -> None:
    """ACCEPTED is no outcome."""
    await journal.accept([command("a")])
    with pytest.raises(ValueError, match="ACCEPTED is no final state"):
        await journal.settle([Outcome("command-a", CommandState.ACCEPTED, 0, 0)], NOW_S)


async def test_recovery_leaves_the_commands_of_this_life_alone(journal: Journal) -> None:
    """Only commands accepted before the journal was opened can have been lost."""
    await journal.accept([command("a")])
    assert await journal.recover(NOW_S) == ()
    kept = await journal.get_command("command-a")
    assert kept is not None
    assert kept.state is CommandState.ACCEPTED


async def test_commands_without_an_outcome_are_listed_as_they_came(journal: Journal) -> None:
    """Oldest first, with where the run stood at their acceptance and the decision that they answer."""
    third = replace(command("c"), accepted_step=40, decision_id="d-1")
    await journal.accept([command("a"), command("b"), third])
    await journal.settle([applied("b")], NOW_S)
    first, last = await journal.unsettled()
    assert (first.command_id, last.command_id) == ("command-a", "command-c")
    assert (last.accepted_step, last.decision_id) == (40, "d-1")


async def test_an_outcome_keeps_its_place_and_its_facts(journal: Journal) -> None:
    """Timeline, number and the refusal's facts come back; they are part of what a later start must know."""
    await journal.accept([replace(command("a"), accepted_step=40, decision_id="d-1")])
    outcome = replace(rejected("a"), timeline=3, sequence=17)
    await journal.settle([outcome], NOW_S)
    kept = await journal.get_command("command-a")
    assert kept is not None
    assert outcome_of(kept) == outcome
    assert (kept.accepted_step, kept.decision_id) == (40, "d-1")


async def test_the_largest_state_revision_is_known(journal: Journal) -> None:
    """Of outcomes, events and starts alike: a later start's revisions lie above all of them."""
    assert await journal.last_state_revision() == 0
    await journal.accept([command("a")])
    await journal.settle([applied("a")], NOW_S)
    assert await journal.last_state_revision() == 7
    await journal.append(timeline(), notice(), field_report())
    assert await journal.last_state_revision() == 11
    await journal.append(run_resumed())
    assert await journal.last_state_revision() == 1_000_000


async def test_a_run_finishes_once_but_may_be_left_often(journal: Journal) -> None:
    """Each start leaves its row; that it has finished is said once."""
    left = replace(run_finished(), phase=TrainerPhase.STOPPING)
    await journal.append(left)
    await journal.append(left, replace(left, phase=TrainerPhase.FAILED))
    await journal.append(run_finished())
    with pytest.raises(DuplicateRecord) as caught:
        await journal.append(run_finished())
    assert caught.value.reason == "RECORD_EXISTS"


async def test_history_comes_back_as_it_was(journal: Journal) -> None:
    """Every kind of record survives, gate evidence with infinities and bytes included, in the order written."""
    records: list[HistoryRecord] = [
        run_started(),
        transition(),
        notice(),
        emergency(),
        field_report(),
        checkpoint(),
        timeline(),
        run_resumed(),
        run_finished(),
    ]
    last = await journal.append(*records)
    page = await journal.list_history(HistoryQuery())
    assert [row.record for row in page.rows] == records
    assert [row.journal_revision for row in page.rows] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert last == journal.revision == 9


async def test_history_can_be_narrowed(journal: Journal) -> None:
    """By kind, by seed, and to what came after a revision."""
    await journal.append(transition(3), transition(4), field_report("1", seed_id=3), notice())

    async def revisions(query: HistoryQuery) -> list[int]:
        return [row.journal_revision for row in (await journal.list_history(query)).rows]

    assert await revisions(HistoryQuery(kinds=(RowKind.TRANSITION, RowKind.NOTICE))) == [1, 2, 4]
    assert await revisions(HistoryQuery(seed_id=3)) == [1, 3]
    assert await revisions(HistoryQuery(after_revision=2)) == [3, 4]


async def test_a_report_is_kept_once(journal: Journal) -> None:
    """A second record of the same name is refused, and nothing of its call is written."""
    await journal.append(field_report("1"))
    with pytest.raises(DuplicateRecord):
        await journal.append(notice(), field_report("1"))
    with pytest.raises(DuplicateRecord):
        await journal.append(field_report("2"), field_report("2"))
    assert journal.revision == 1
    assert len((await journal.list_history(HistoryQuery())).rows) == 1


async def test_one_sequence_covers_everything(journal: Journal) -> None:
    """Commands, outcomes, history and audit rows share one sequence that only grows."""
    (answer,) = await journal.accept([command("a")])
    noticed = await journal.append(notice())
    (settled,) = await journal.settle([applied("a")], NOW_S)
    audited = await journal.append(audit())
    assert [answer.record.journal_revision, noticed, settled.journal_revision, audited] == [1, 2, 3, 4]


async def test_commands_are_listed_newest_first_in_pages(journal: Journal) -> None:
    """Walking the pages gives every command once, also when new ones come in between."""
    await journal.accept([command(str(number)) for number in range(5)])
    page = await journal.list_commands(CommandQuery(), page_size=2)
    await journal.accept([command("later")])
    seen = [record.command_id for record in page.rows]
    while page.next_page_token:
        page = await journal.list_commands(CommandQuery(), page_size=2, page_token=page.next_page_token)
        seen += [record.command_id for record in page.rows]
    assert seen == [f"command-{number}" for number in (4, 3, 2, 1, 0)]


async def test_commands_can_be_narrowed(journal: Journal) -> None:
    """By state, principal, kind and seed; the seed is the one made by the command once it is known."""
    await journal.accept([command("a"), command("b", seed_id=2)])
    await journal.settle([applied("a", seed_id=9)], NOW_S)

    async def names(query: CommandQuery) -> list[str]:
        return [record.command_id for record in (await journal.list_commands(query)).rows]

    assert await names(CommandQuery(state=CommandState.ACCEPTED)) == ["command-b"]
    assert await names(CommandQuery(seed_id=9)) == ["command-a"]
    assert await names(CommandQuery(principal="tamiyo", kind="seed")) == ["command-b", "command-a"]
    assert await names(CommandQuery(principal="nobody")) == []


async def test_history_and_audit_come_in_pages(journal: Journal) -> None:
    """The pages follow one another without gap or repetition."""
    await journal.append(*[notice() for _ in range(3)], *[audit(str(number)) for number in range(3)])
    history = await journal.list_history(HistoryQuery(), page_size=2)
    rest = await journal.list_history(HistoryQuery(), page_size=2, page_token=history.next_page_token)
    assert [row.journal_revision for row in (*history.rows, *rest.rows)] == [1, 2, 3]
    audits = await journal.list_audit(AuditQuery(), page_size=2)
    await journal.append(audit("4"))
    more = await journal.list_audit(AuditQuery(), page_size=2, page_token=audits.next_page_token)
    assert [row.number for row in (*audits.rows, *more.rows)] == [3, 2, 1]
    assert rest.next_page_token == more.next_page_token == ""


@pytest.mark.parametrize("token", ["x", "!!", "aGlzdG9yeTox", "Y29tbWFuZHM6LTE=", "Y29tbWFuZHM6", "ü"])
async def test_a_foreign_page_token_is_refused(journal: Journal, token: str) -> None:
    """A token that this list did not give out is an error, never a guess."""
    with pytest.raises(PageTokenInvalid):
        await journal.list_commands(CommandQuery(), page_token=token)


async def test_audit_rows_can_be_narrowed(journal: Journal) -> None:
    """By principal, key, method (also by its last part), decision, and to refusals."""
    first = audit("1")
    await journal.append(
        first,
        replace(audit("2"), principal="rival"),
        replace(audit("3"), key_id="rival-1"),
        replace(audit("4"), method="/esper.leyline.v1.RunService/StopRun"),
        audit("5", "SIGNATURE_INVALID"),
    )

    async def numbers(query: AuditQuery) -> list[int]:
        return [row.number for row in (await journal.list_audit(query)).rows]

    assert await numbers(AuditQuery(principal="rival")) == [2]
    assert await numbers(AuditQuery(key_id="rival-1")) == [3]
    assert await numbers(AuditQuery(method="StopRun")) == await numbers(
        AuditQuery(method="/esper.leyline.v1.RunService/StopRun")
    )
    assert await numbers(AuditQuery(method="StopRun")) == [4]
    assert await numbers(AuditQuery(method="opRun")) == []
    assert (
        await numbers(AuditQuery(decision="SIGNATURE_INVALID")) == await numbers(AuditQuery(refused_only=True)) == [5]
    )
    assert await numbers(AuditQuery(principal=first.principal, decision="OK")) == [4, 3, 1]


async def test_the_audit_chain_verifies(journal: Journal) -> None:
    """Rows are numbered without a gap, each building on the one before, and the chain checks out."""
    assert (await journal.verify_audit()).intact
    await journal.append(audit("1"), audit("2", "SIGNATURE_INVALID"))
    await journal.append(audit("3"))
    rows = (await journal.list_audit(AuditQuery())).rows[::-1]
    assert [(row.number, row.entry.decision) for row in rows] == [(1, "OK"), (2, "SIGNATURE_INVALID"), (3, "OK")]
    assert rows[1].previous_hash == rows[0].row_hash
    verdict = await journal.verify_audit()
    assert (verdict.intact, verdict.num_rows, verdict.head_hash) == (True, 3, rows[2].row_hash)


async def test_a_closed_journal_takes_nothing(journal: Journal) -> None:
    """After close every call says that the journal is unavailable; closing again is harmless."""
    await journal.close()
    await journal.close()
    with pytest.raises(JournalUnavailable):
        await journal.append(notice())
    with pytest.raises(JournalUnavailable):
        await journal.get_command("command-a")
