"""The journal's writer for what nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
import structlog

from esperd.control import recorder
from esperd.control.recorder import Recorder
from esperd.leyline.commands import Outcome
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import CommandState
from esperd.oona.failures import JournalUnavailable
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import Acceptance, CommandQuery, CommandRecord, Record, Settlement


class Watched(MemoryJournal):
    """A journal that tells what it was asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[str, int]] = []

    async def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        self.writes.append(("outcomes", len(outcomes)))
        return await super().settle(outcomes, unix_s)

    async def append(self, *records: Record) -> int:
        self.writes.append(("records", len(records)))
        return await super().append(*records)


def outcome(number: int) -> Outcome:
    return Outcome(f"c{number}", CommandState.APPLIED, 1, 1, None)


def notice() -> NoticeEvent:
    return NoticeEvent("test", "", "info", 1, 1, 0.0)


async def test_rows_that_come_while_it_rests_share_the_next_commit() -> None:
    """The first outcome is written at once and alone; what comes until the rest is over is written together."""
    journal = Watched()
    rest = asyncio.Event()
    rests_s: list[float] = []

    async def sleep(seconds: float) -> None:
        rests_s.append(seconds)
        await rest.wait()

    writer = Recorder(
        journal=journal,
        clock=lambda: 0.0,
        sleep=sleep,
        on_accepted=lambda _: None,
        on_settled=lambda *_: None,
        on_durable=lambda *_: None,
        on_health=lambda _: None,
        log=structlog.get_logger(),
    )
    writer.settle_later(outcome(1))
    while not rests_s:
        await asyncio.sleep(0)
    for number in (2, 3):
        writer.settle_later(outcome(number))
        writer.append_later(notice())
    rest.set()
    await writer.flush(5.0)
    assert journal.writes == [("outcomes", 1), ("outcomes", 2), ("records", 2)]
    assert rests_s == [recorder.GROUP_S] * 2
    assert writer.is_idle


class Held(MemoryJournal):
    """A journal whose next accept fails, or waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = asyncio.Event()
        self.is_asked = asyncio.Event()
        self.num_failures = 0
        self.order: list[str] = []

    async def accept(self, records: Sequence[CommandRecord]) -> tuple[Acceptance, ...]:
        self.is_asked.set()
        await self.is_open.wait()
        if self.num_failures:
            self.num_failures -= 1
            raise JournalUnavailable("the disk is full")
        answers = await super().accept(records)
        self.order += [f"accept {record.command_id}" for record in records]
        return answers

    async def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        self.order += [f"settle {found.command_id}" for found in outcomes]
        return await super().settle(outcomes, unix_s)


def command(number: int, request_id: str = "", payload: bytes = b"") -> CommandRecord:
    return CommandRecord(f"c{number}", request_id, "p", "k", "m", "emergency", payload, payload.ljust(32), 0.0, "")


def recorder_of(journal: MemoryJournal, heard: list[str]) -> Recorder:
    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    return Recorder(
        journal=journal,
        clock=lambda: 0.0,
        sleep=sleep,
        on_accepted=lambda records: heard.extend(f"accepted {record.command_id}" for record in records),
        on_settled=lambda found, _: heard.extend(f"settled {one.outcome.command_id}" for one in found),
        on_durable=lambda *_: None,
        on_health=lambda _: None,
        log=structlog.get_logger(),
    )


@pytest.mark.parametrize("num_failures", [0, 2])
async def test_an_outcome_waits_for_its_command(num_failures: int) -> None:
    """An outcome that is there before its command is durable is recorded after it, through failures of the disk too."""
    journal, heard = Held(), list[str]()
    journal.num_failures = num_failures
    writer = recorder_of(journal, heard)
    writer.accept_later(command(1))
    await journal.is_asked.wait()
    writer.accept_later(command(2))
    for number in (2, 1):
        writer.settle_later(outcome(number))
    assert not journal.order
    journal.is_open.set()
    await writer.flush(5.0)
    assert sorted(heard) == ["accepted c1", "accepted c2", "settled c1", "settled c2"]
    assert all(journal.order.index(f"accept c{n}") < journal.order.index(f"settle c{n}") for n in (1, 2))
    assert writer.is_idle


async def test_outcomes_wait_for_commands_of_a_later_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more commands than a group holds, the outcome of the last one does not overtake it."""
    monkeypatch.setattr(recorder, "MAX_GROUP", 2)
    journal, heard = Held(), list[str]()
    journal.is_open.set()
    writer = recorder_of(journal, heard)
    for number in range(5):
        writer.accept_later(command(number))
    for number in reversed(range(5)):
        writer.settle_later(outcome(number))
    await writer.flush(5.0)
    assert sorted(heard) == sorted(f"{what} c{n}" for what in ("accepted", "settled") for n in range(5))


@pytest.mark.parametrize("payload", [b"", b"other"])
async def test_a_command_under_a_request_id_in_use_has_its_own_row_and_outcome(payload: bytes) -> None:
    """The trainer already has it, so it is recorded without that id; the first command is left as it is."""
    journal, heard = Held(), list[str]()
    journal.is_open.set()
    writer = recorder_of(journal, heard)
    writer.accept_later(command(1, "same"))
    writer.settle_later(outcome(1))
    await writer.flush(5.0)
    writer.accept_later(command(2, "same", payload))
    writer.accept_later(command(3, "new"))
    for number in (2, 3):
        writer.settle_later(outcome(number))
    await writer.flush(5.0)
    assert sorted(heard) == sorted(f"{what} c{n}" for what in ("accepted", "settled") for n in (1, 2, 3))
    rows = (await journal.list_commands(CommandQuery())).rows
    assert {row.command_id: (row.request_id, row.state.name) for row in rows} == {
        "c1": ("same", "APPLIED"),
        "c2": ("", "APPLIED"),
        "c3": ("new", "APPLIED"),
    }


async def test_no_record_overtakes_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that came after outcomes is durable with the last of them at the earliest, however many wait."""
    monkeypatch.setattr(recorder, "MAX_GROUP", 2)
    journal, heard = Watched(), list[str]()
    writer = recorder_of(journal, heard)
    for number in range(5):
        writer.settle_later(outcome(number))
    writer.append_later(notice())
    await writer.flush(5.0)
    assert journal.writes == [("outcomes", 2), ("outcomes", 2), ("outcomes", 1), ("records", 1)]


async def test_no_record_overtakes_an_outcome_whose_command_is_not_durable() -> None:
    """An emergency's outcome waits for its command's row, and so does what came after it."""
    journal, heard = Held(), list[str]()
    writer = recorder_of(journal, heard)
    writer.accept_later(command(1))
    await journal.is_asked.wait()
    writer.accept_later(command(2))
    writer.settle_later(outcome(2))
    writer.append_later(notice())
    journal.is_open.set()
    rows: list[int] = []
    journal.append = _note_rows(journal, rows)  # type: ignore[method-assign]
    await writer.flush(5.0)
    assert journal.order == ["accept c1", "accept c2", "settle c2"]
    assert rows == [3]


async def test_no_outcome_overtakes_one_whose_command_is_not_durable() -> None:
    """After a restart, what has no outcome is done after all that has one: so the rows come in the trainer's order."""
    journal, heard = Held(), list[str]()
    await MemoryJournal.accept(journal, [command(1), command(3), command(4)])
    writer = recorder_of(journal, heard)
    writer.accept_later(command(5))
    await journal.is_asked.wait()
    writer.accept_later(command(2))
    for number in (1, 2, 3, 4):
        writer.settle_later(replace(outcome(number), sequence=number))
    journal.is_open.set()
    await writer.flush(5.0)
    assert [line for line in journal.order if line.startswith("settle")] == [f"settle c{n}" for n in (1, 2, 3, 4)]


def _note_rows(journal: MemoryJournal, rows: list[int]) -> Callable[..., Awaitable[int]]:
    """An append that notes how much had been written before it."""
    append = journal.append

    async def noted(*records: Record) -> int:
        rows.append(journal.revision)
        return await append(*records)

    return noted


@pytest.mark.parametrize("num_failures", [0, 1])
async def test_one_may_wait_for_an_outcomes_row(num_failures: int) -> None:
    """True once it is durable; False at once when the disk refuses it, and when the time is over first."""
    journal, heard = Held(), list[str]()
    journal.num_failures = num_failures
    writer = recorder_of(journal, heard)
    writer.accept_later(command(1))
    writer.settle_later(outcome(1))
    assert not await writer.wait_settled("c1", 0.01)
    waiting = asyncio.ensure_future(writer.wait_settled("c1", 60.0))
    await journal.is_asked.wait()
    journal.is_open.set()
    assert await waiting is (num_failures == 0)
    await writer.flush(5.0)
    assert heard == ["accepted c1", "settled c1"]
    assert await writer.wait_settled("c1", 0.0)


async def test_the_journals_revision_is_told_once_rows_are_durable() -> None:
    """After their commit and not before."""
    journal = MemoryJournal()
    durable: list[int] = []
    writer = Recorder(
        journal=journal,
        clock=lambda: 0.0,
        sleep=lambda _: asyncio.sleep(0),
        on_accepted=lambda _: None,
        on_settled=lambda *_: None,
        on_durable=lambda revision, _: durable.append(revision),
        on_health=lambda _: None,
        log=structlog.get_logger(),
    )
    writer.accept_later(command(1))
    writer.settle_later(outcome(1))
    writer.append_later(notice())
    assert durable == []
    await writer.flush(5.0)
    assert durable == [2, 3]


async def test_the_writer_outlives_a_fault_of_its_own() -> None:
    """An error that nobody foresaw is logged and the rows are written at the next try."""

    class Faulty(MemoryJournal):
        num_faults = 2

        async def append(self, *records: Record) -> int:
            if self.num_faults:
                self.num_faults -= 1
                raise RuntimeError("a fault")
            return await super().append(*records)

    journal, heard = Faulty(), []
    writer = recorder_of(journal, heard)
    writer.append_later(notice())
    await writer.flush(5.0)
    assert writer.is_idle
    assert journal.num_faults == 0
