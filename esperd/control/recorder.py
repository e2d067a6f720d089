"""What must reach the journal without anybody waiting for it: outcomes, the run's history, audit rows.

Event loop only; one task writes, in order, and keeps what it could not write until it can. An outcome is told to
clients only once it is durable. Knows neither gRPC nor what a record means.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from esperd.leyline.commands import Outcome
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.views import CheckpointEvent
from esperd.oona.failures import JournalUnavailable, RequestIdReused
from esperd.oona.journal import Journal
from esperd.oona.records import CommandRecord, Record, Settlement, SettleStatus

RETRY_S = 1.0
GROUP_S = 0.025
"""Commits follow each other no faster, so that under load rows share them; a row that comes alone is written at once,
except history and audit rows, which wait so long for an outcome to go with."""
MAX_GROUP = 1024

RowT = TypeVar("RowT")


class Recorder:
    """The journal's writer for everything that the trainer reports."""

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        on_accepted: Callable[[Sequence[CommandRecord]], None],
        on_settled: Callable[[Sequence[Settlement], float], None],
        on_durable: Callable[[int, Sequence[str]], None],
        on_health: Callable[[bool], None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Make a recorder.

        Args:
            journal: where rows go.
            clock: Unix seconds.
            sleep: waits so many seconds between tries.
            on_accepted: hears of commands recorded by `accept_later` that are durable now.
            on_settled: hears of outcomes that are durable now, and when.
            on_durable: hears the journal's revision when rows have become durable, and the ids of checkpoints among
                them.
            on_health: hears whether the journal can be written.
            log: hears of what could not be written.
        """
        self._journal = journal
        self._clock = clock
        self._sleep = sleep
        self._on_accepted = on_accepted
        self._on_settled = on_settled
        self._on_durable = on_durable
        self._on_health = on_health
        self._log = log
        self._commands: list[CommandRecord] = []
        # Outcomes of commands that are not durable yet, by command id; an id is here as long as its command is above.
        self._too_early: dict[str, list[Outcome]] = {}
        self._outcomes: list[Outcome] = []
        self._records: list[Record] = []
        self._writer: asyncio.Task[None] | None = None
        self._is_awaited = asyncio.Event()
        # Those who wait for an outcome's row, by command id.
        self._row_waits: dict[str, asyncio.Future[bool]] = {}
        self._last_error = ""

    @property
    def is_idle(self) -> bool:
        """Whether everything that came has been written."""
        return not (self._commands or self._outcomes or self._records)

    @property
    def num_waiting(self) -> int:
        """Rows that have not been written."""
        return len(self._commands) + len(self._outcomes) + len(self._records)

    def accept_later(self, record: CommandRecord) -> None:
        """Record a command that was already handed over: an emergency does not wait for a disk."""
        self._commands.append(record)
        self._too_early[record.command_id] = []
        self._is_awaited.set()
        self._start()

    async def wait_settled(self, command_id: str, within_s: float) -> bool:
        """Whether an outcome given to `settle_later` is durable by then; False at once when the disk refuses."""
        waits_for_command = command_id in self._too_early
        if not waits_for_command and all(outcome.command_id != command_id for outcome in self._outcomes):
            return True
        waiting = self._row_waits.setdefault(command_id, asyncio.get_running_loop().create_future())
        await asyncio.wait([waiting], timeout=within_s)
        return waiting.done() and waiting.result()

    def settle_later(self, outcome: Outcome) -> None:
        """Record a final outcome; that of a command which is not durable yet waits until it is."""
        self._too_early.get(outcome.command_id, self._outcomes).append(outcome)
        self._is_awaited.set()
        self._start()

    def append_later(self, record: Record) -> None:
        """Record a row of history or of the audit trail."""
        self._records.append(record)
        self._start()

    async def flush(self, within_s: float) -> None:
        """Wait until what has come so far is written, or the time is over."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=within_s)

    async def finish(self, within_s: float) -> None:
        """Write what is left; what cannot be written in time is logged as lost."""
        await self.flush(within_s)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        num_early = sum(map(len, self._too_early.values()))
        lost = len(self._commands) + num_early + len(self._outcomes) + len(self._records)
        if lost:
            self._log.error("rows were lost: the journal could not be written", num_rows=lost, error=self._last_error)

    def _start(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), name="journal recorder")

    async def _write_all(self) -> None:
        while not self.is_idle:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_awaited.wait(), GROUP_S)
            self._is_awaited.clear()
            try:
                await self._write_group()
            except JournalUnavailable as error:
                self._answer_row_waits(list(self._row_waits), is_durable=False)
                self._on_health(False)
                self._last_error = error.message
                self._log.error("the journal cannot be written; trying again", error=error.message)
                await self._sleep(RETRY_S)
            except Exception:  # noqa: BLE001 - the writer outlives a fault of its own: nobody else writes outcomes
                self._answer_row_waits(list(self._row_waits), is_durable=False)
                self._on_health(False)
                self._log.exception("a fault while writing to the journal; trying again")
                await self._sleep(RETRY_S)
            else:
                self._on_health(True)
                await self._sleep(GROUP_S)

    async def _write_group(self) -> None:
        """Write the oldest rows of each kind; they leave the lists only when they are durable."""
        await self._write_commands(self._commands[:MAX_GROUP])
        outcomes = self._outcomes_due()
        records = self._records[:MAX_GROUP] if self._are_records_due(outcomes) else []
        # In one commit, and both to their end: a write cannot be taken back, and must not be asked for twice.
        written = await asyncio.gather(
            self._write_outcomes(outcomes), self._write_records(records), return_exceptions=True
        )
        for fault in written:
            if fault is not None:
                raise fault

    def _outcomes_due(self) -> list[Outcome]:
        """The oldest outcomes, none of which overtakes one that waits for its command: after a restart what has no
        outcome comes after all that has one.
        """
        held_back = [outcome.sequence for early in self._too_early.values() for outcome in early if outcome.sequence]
        before = min(held_back, default=None)
        if before is None:
            return self._outcomes[:MAX_GROUP]
        return list(itertools.takewhile(lambda outcome: outcome.sequence < before, self._outcomes))[:MAX_GROUP]

    def _are_records_due(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether no outcome that came before a record is left behind.

        A checkpoint's row says that everything which led to that state is in the journal.
        """
        return len(outcomes) == len(self._outcomes) and not any(self._too_early.values())

    async def _write_commands(self, commands: Sequence[CommandRecord]) -> None:
        if commands:
            await self._whole_or_single(commands, self._accept)
            del self._commands[: len(commands)]
            again = {record.command_id for record in self._commands}
            for command_id in [record.command_id for record in commands if record.command_id not in again]:
                self._outcomes += self._too_early.pop(command_id, ())
            self._outcomes.sort(key=lambda outcome: outcome.sequence)  # those that were not the trainer's come first

    async def _write_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            now_s = self._clock()
            failpoint("outcome.before_settle")
            settled = await self._journal.settle(outcomes, now_s)
            del self._outcomes[: len(outcomes)]
            self._answer_row_waits([outcome.command_id for outcome in outcomes], is_durable=True)
            self._on_durable(self._journal.revision, ())
            self._tell_settled(settled, now_s)

    async def _write_records(self, records: Sequence[Record]) -> None:
        if records:
            await self._whole_or_single(records, self._append)
            del self._records[: len(records)]
            checkpoints = [record.checkpoint_id for record in records if isinstance(record, CheckpointEvent)]
            self._on_durable(self._journal.revision, checkpoints)

    async def _accept(self, records: Sequence[CommandRecord]) -> None:
        try:
            answers = await self._journal.accept(records)
        except RequestIdReused:
            if len(records) > 1:
                raise  # each is tried by itself
            self._accept_unnamed(records[0])
            return
        own = []
        for record, answer in zip(records, answers, strict=True):
            if answer.record.command_id == record.command_id:
                own.append(answer.record)
            else:
                self._accept_unnamed(record)
        self._on_accepted(own)

    def _accept_unnamed(self, record: CommandRecord) -> None:
        """Try again without a request id that is another command's: the trainer has this one, so it needs its row."""
        self._log.warning("a request id came twice", command_id=record.command_id, request_id=record.request_id)
        self._commands.append(replace(record, request_id=""))

    def _answer_row_waits(self, command_ids: Sequence[str], *, is_durable: bool) -> None:
        for command_id in command_ids:
            waiting = self._row_waits.pop(command_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(is_durable)

    async def _append(self, records: Sequence[Record]) -> None:
        await self._journal.append(*records)

    async def _whole_or_single(self, rows: Sequence[RowT], write: Callable[[Sequence[RowT]], Awaitable[None]]) -> None:
        """Write rows as one group; if the journal refuses the group, one by one, so that one bad row loses itself."""
        try:
            await write(rows)
            return
        except JournalUnavailable:
            raise
        except EsperdError as error:
            if len(rows) == 1:
                self._log.error("the journal refused a row", error=error.message)
                return
        for row in rows:
            await self._whole_or_single([row], write)

    def _tell_settled(self, settlements: Sequence[Settlement], now_s: float) -> None:
        for settlement in settlements:
            if settlement.status is not SettleStatus.RECORDED:
                self._log.error(
                    "an outcome was not recorded",
                    command_id=settlement.outcome.command_id,
                    cause=settlement.status.value,
                )
        self._on_settled([found for found in settlements if found.status is SettleStatus.RECORDED], now_s)
