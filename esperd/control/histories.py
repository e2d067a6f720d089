"""Reading a run's history rows out of the journal, and telling one run's rows from another's.

Event loop only. A journal may hold several runs one after the other; a run reaches from its RunStarted to the next
one's, over as many starts of the daemon as it took.
"""

from dataclasses import dataclass

from esperd.oona.journal import Journal
from esperd.oona.records import HistoryQuery, HistoryRow, RowKind, RunStarted

_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Span:
    """The part of the journal that belongs to one run."""

    begin: int
    """Journal revision of its RunStarted."""
    end: int | None
    """That of the next run's; None when there is no later run."""

    def __contains__(self, row: object) -> bool:
        """Whether a row is the run's."""
        assert isinstance(row, HistoryRow)
        return self.begin <= row.journal_revision and (self.end is None or row.journal_revision < self.end)


async def read_all(journal: Journal, query: HistoryQuery) -> list[HistoryRow]:
    """Every row of a query, oldest first."""
    rows: list[HistoryRow] = []
    token = ""
    while True:
        page = await journal.list_history(query, _PAGE_ROWS, token)
        rows += page.rows
        token = page.next_page_token
        if not token:
            return rows


async def find_run(journal: Journal, run_id: str) -> Span | None:
    """Where a run lies in the journal; None when the journal does not know it."""
    begin: int | None = None
    for row in await read_all(journal, HistoryQuery(kinds=(RowKind.RUN_STARTED,))):
        assert isinstance(row.record, RunStarted)
        if begin is not None:
            return Span(begin, row.journal_revision)
        if row.record.run_id == run_id:
            begin = row.journal_revision
    return None if begin is None else Span(begin, None)
