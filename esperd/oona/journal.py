"""The run's durable history: what was asked, by whom, what came of it, and why.

Used on the event loop only. `SqliteJournal` keeps it on disk, `MemoryJournal` for as long as the process
lives; one test suite holds both to this protocol. One sequence of journal revisions covers every row of
every kind. Rows are never changed and never removed: an outcome is a row of its own.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from esperd.leyline.commands import Outcome
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CommandState
from esperd.oona.records import (
    Acceptance,
    AuditQuery,
    AuditRow,
    AuditVerdict,
    CommandQuery,
    CommandRecord,
    HistoryQuery,
    HistoryRow,
    Record,
    Settlement,
)

RowT = TypeVar("RowT")
Pause = Callable[[], Awaitable[None]]

AUDIT_PAGE_ROWS = 512
"""Rows of the audit chain that are checked in one go: some milliseconds."""


async def no_pause() -> None:
    """Go on at once."""


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    """One page of a list."""

    rows: tuple[RowT, ...]
    next_page_token: str
    """Pass it to the next call; empty when there is nothing more."""


class Journal(Protocol):
    """What every journal promises.

    Every method that writes returns when its rows are durable, raises `JournalUnavailable` when they could
    not be made so, and writes all of its rows or none. A caller that is cancelled while it waits does not
    take its rows back.
    """

    @property
    def revision(self) -> int:
        """Journal revision of the newest durable row; 0 when there is none."""
        ...

    @property
    def num_pending(self) -> int:
        """Writes that wait for the commit that is running now; a sign of a slow disk."""
        ...

    async def recover(self, unix_s: float) -> tuple[CommandRecord, ...]:
        """Fail every command of an earlier life that has no outcome, and return them as they are now.

        For when nobody can carry them out any more: their run is over. Commands accepted since this journal was opened
        are left alone, so a second call changes nothing.
        """
        ...

    async def unsettled(self) -> tuple[CommandRecord, ...]:
        """Every command that has no outcome, in the order of acceptance."""
        ...

    async def last_state_revision(self) -> int:
        """The largest revision of the training state in any row; 0 when there is none."""
        ...

    async def accept(self, records: Sequence[CommandRecord]) -> tuple[Acceptance, ...]:
        """Write commands as ACCEPTED, all or none, and answer for each in order.

        A request id that is known already, with the same payload hash, is answered as a DUPLICATE with the
        first record as it stands now; the others of the batch are accepted.

        Raises:
            RequestIdReused: a request id is known with another payload; nothing was accepted.
            DuplicateRecord: a command id is taken; nothing was accepted.
        """
        ...

    async def settle(self, outcomes: Sequence[Outcome], unix_s: float) -> tuple[Settlement, ...]:
        """Write final outcomes; each command takes exactly one, and a second is answered as refused."""
        ...

    async def append(self, *records: Record) -> int:
        """Write history records and audit entries, all or none; returns the journal revision of the last.

        Raises:
            DuplicateRecord: a report id or a run's start or end is in the journal already.
        """
        ...

    async def find_requests(self, request_ids: Sequence[str]) -> dict[str, CommandRecord]:
        """The commands that these request ids brought, by request id; unknown ones are left out."""
        ...

    async def get_command(self, command_id: str) -> CommandRecord | None:
        """One command as it stands now, or None."""
        ...

    async def list_commands(
        self, query: CommandQuery, page_size: int = 100, page_token: str = ""
    ) -> Page[CommandRecord]:
        """Commands in the order of their acceptance, newest first.

        Raises:
            PageTokenInvalid: the token did not come from this list.
        """
        ...

    async def list_history(self, query: HistoryQuery, page_size: int = 100, page_token: str = "") -> Page[HistoryRow]:
        """History rows, oldest first.

        Raises:
            PageTokenInvalid: the token did not come from this list.
        """
        ...

    async def list_audit(self, query: AuditQuery, page_size: int = 100, page_token: str = "") -> Page[AuditRow]:
        """Audit rows, newest first.

        Raises:
            PageTokenInvalid: the token did not come from this list.
        """
        ...

    async def verify_audit(self, pause: Pause = no_pause) -> AuditVerdict:
        """Compute the audit chain again from its first row and compare; `pause` is awaited between pages of rows."""
        ...

    async def close(self) -> None:
        """Write what is pending, then let go of the file; later writes raise `JournalUnavailable`."""
        ...


def lost_in_restart(command_id: str) -> Outcome:
    """The outcome of a command that an earlier life of the daemon accepted and never settled."""
    refusal = EsperdError("COMMAND_LOST_IN_RESTART").refusal()
    return Outcome(command_id, CommandState.FAILED, global_step=0, revision=0, refusal=refusal)


def check_final(outcomes: Sequence[Outcome]) -> None:
    """Refuse outcomes whose state is not a final one."""
    for outcome in outcomes:
        if not outcome.state.is_final:
            raise ValueError(f"{outcome.state.name} is no final state; command {outcome.command_id} needs one")
