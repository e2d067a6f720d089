"""The journal's writer for what nobody waits for."""

import asyncio
from collections.abc import Sequence

import structlog

from esperd.control import recorder
from esperd.control.recorder import Recorder
from esperd.leyline.commands import Outcome
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import CommandState
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import Record, Settlement


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
