"""Which rows of a journal belong to which run."""

import pytest

from esperd.control.histories import Span, find_run, read_all
from esperd.leyline.views import TransitionEvent
from esperd.leyline.vocabulary import Stage
from esperd.oona.memory_journal import MemoryJournal
from esperd.oona.records import HistoryQuery, RowKind, RunStarted


def germinated(seed_id: int) -> TransitionEvent:
    return TransitionEvent(seed_id, "s", "b", Stage.DORMANT, Stage.GERMINATED, 1, 1, "auto", None, 1.0)


@pytest.fixture
async def journal() -> MemoryJournal:
    """Two runs one after the other, each with its seed 1."""
    found = MemoryJournal()
    for run_id in ("run-1", "run-2"):
        await found.append(RunStarted(run_id, "task", 1.0))
        await found.append(germinated(1))
    return found


async def test_a_run_reaches_to_the_next_one(journal: MemoryJournal) -> None:
    """The last one has no end; a run that the journal does not know is nowhere."""
    assert await find_run(journal, "run-1") == Span(1, 3)
    assert await find_run(journal, "run-2") == Span(3, None)
    assert await find_run(journal, "run-3") is None


async def test_rows_of_a_run(journal: MemoryJournal) -> None:
    """Seed 1 of the first run is another one than that of the second."""
    for run_id, expected in (("run-1", [2]), ("run-2", [4])):
        span = await find_run(journal, run_id)
        assert span is not None
        rows = await read_all(journal, HistoryQuery(kinds=(RowKind.TRANSITION,)))
        assert [row.journal_revision for row in rows if row in span] == expected


async def test_every_page_is_read(journal: MemoryJournal) -> None:
    """More rows than a page holds come as one list."""
    await journal.append(*(germinated(number) for number in range(2, 1300)))
    rows = await read_all(journal, HistoryQuery(kinds=(RowKind.TRANSITION,)))
    assert len(rows) == 1300
