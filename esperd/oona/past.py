"""What the journal knows of a run that is picked up again: for the trainer, before it goes on.

Any thread: it opens a connection of its own that cannot write, and waits for nobody. Reads the rows of one run only; a
journal holds several, one after another. Knows no trainer, and turns records into commands with what it is given.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from esperd.leyline.commands import Command, Outcome
from esperd.leyline.views import CheckpointEvent, NoticeEvent, RunResumed, TimelineEvent, TimelineView, TransitionEvent
from esperd.leyline.vocabulary import CommandState
from esperd.oona.reading import history_rows, last_sequence, run_commands, run_range
from esperd.oona.records import CommandRecord, HistoryRecord, RowKind, RunStarted, outcome_of
from esperd.oona.schema import open_reader

ToCommand = Callable[[CommandRecord], Command]
TrainerEvent = TransitionEvent | NoticeEvent | CheckpointEvent | TimelineEvent
Position = tuple[int, int]
"""(timeline, global step)."""

_TRAINER_KINDS = (RowKind.TRANSITION, RowKind.NOTICE, RowKind.CHECKPOINT, RowKind.TIMELINE)
_REPLAYED = (CommandState.APPLIED, CommandState.FAILED)
"""What had expired or was cancelled changed nothing, and neither did most of what was refused."""
_MEASURED = ("GATE_FAILED", "GATE_UNMEASURED")
"""Refusals by a gate, which has measured: that has drawn from the held-out data, and the seed remembers it."""


@dataclass(frozen=True, slots=True)
class PastCommand:
    """One command as it was accepted, and what came of it."""

    command: Command
    outcome: Outcome | None
    """None while it has none: then it is still to be carried out."""
    accepted_step: int
    """The run's step when it was accepted, or some steps before."""


@dataclass(frozen=True, slots=True)
class RunPast:
    """The durable past of one run, behind a checkpoint."""

    settled: tuple[PastCommand, ...]
    """What had an effect after the checkpoint, in the order of the outcomes' numbers."""
    unsettled: tuple[PastCommand, ...]
    """Commands without an outcome in the order of their acceptance; `expected_revision` is in this start's numbers."""
    last_sequence: int
    """The largest number of an outcome of the run."""
    horizon: Position
    """Position of the newest durable row: up to there history is fixed. (0, 0) when none is behind the checkpoint."""
    revision_offset: int
    """Added to a revision of the start before, it is the same state's revision in this start."""
    event_keys: frozenset[tuple[object, ...]]
    """`event_key` of every durable event after the checkpoint."""
    timelines: tuple[TimelineView, ...]
    """Every timeline of the run, oldest first."""
    base_revision: int = 0
    """Revision of the state behind which all this lies, as its own start counted it."""
    is_durable: bool = True
    """False when the run's journal was in memory, so that only its checkpoints tell of it."""

    def counts(self, checkpoint_id: str) -> bool:
        """Whether the run may go on from this checkpoint: what led to it is durable too, or nothing is."""
        return not self.is_durable or ("checkpoint", checkpoint_id) in self.event_keys


class ReadPast(Protocol):
    """Reads the past behind a checkpoint; all else is bound already."""

    def __call__(self, *, after_sequence: int, after_revision: int, state_revision: int) -> RunPast:
        """See `read_past`."""
        ...


def read_past(
    path: Path,
    run_id: str,
    *,
    after_sequence: int,
    after_revision: int,
    state_revision: int,
    first_revision: int,
    to_command: ToCommand,
) -> RunPast:
    """What the journal at `path` holds of a run behind one of its checkpoints.

    Args:
        path: the journal's file; its daemon may be writing to it.
        run_id: the run.
        after_sequence: number of the last outcome that the checkpoint knows; 0 without a checkpoint.
        after_revision: journal revision at the checkpoint; 0 without one.
        state_revision: state revision at the checkpoint; 0 without one, for the run's beginning.
        first_revision: the first public revision of this start, which is the restored state's.
        to_command: makes a command of its record.

    Raises:
        LookupError: the journal does not know the run.
    """
    with closing(open_reader(path)) as db:
        # One transaction, so that everything is read from one state of the journal.
        db.execute("BEGIN")
        first_row, end_row = run_range(db, run_id)
        rows = list(history_rows(db, _TRAINER_KINDS, max(first_row, after_revision + 1), end_row))
        starts = list(history_rows(db, (RowKind.RUN_STARTED, RowKind.RUN_RESUMED), first_row, end_row))
        branches = [record for _, record in history_rows(db, (RowKind.TIMELINE,), first_row, end_row)]
        records = list(run_commands(db, first_row, end_row, after_sequence))
        sequence = last_sequence(db, first_row, end_row)
    events = [record for _, record in rows if isinstance(record, TrainerEvent)]
    offset = first_revision - _revision_before(starts, state_revision, after_revision)
    shifts = _Shifts(starts, offset)
    given = sorted((record for _, record in records if record.state.is_final), key=lambda record: record.sequence)
    positions = [(event.timeline, _step(event)) for event in events]
    positions += [(record.timeline, record.global_step) for record in given]
    return RunPast(
        settled=tuple(
            PastCommand(to_command(record), outcome_of(record), record.accepted_step)
            for record in given
            if record.state in _REPLAYED or record.refusal_reason in _MEASURED
        ),
        unsettled=tuple(
            PastCommand(shifts.apply(to_command(record), accepted_at), None, record.accepted_step)
            for accepted_at, record in records
            if record.state is CommandState.ACCEPTED
        ),
        last_sequence=sequence,
        horizon=max(positions, default=(0, 0)),
        revision_offset=offset,
        event_keys=frozenset(map(event_key, events)),
        timelines=(TimelineView(1, 0, 0), *_timelines(branches)),
        base_revision=_base_revision(starts, state_revision),
    )


def no_past(*, after_sequence: int, after_revision: int, state_revision: int, first_revision: int) -> RunPast:  # noqa: ARG001 - as `read_past`
    """The past of a run whose journal was kept in memory only: nothing lies behind its checkpoint."""
    offset = first_revision - state_revision
    return RunPast(
        (),
        (),
        after_sequence,
        (0, 0),
        offset,
        frozenset(),
        (TimelineView(1, 0, 0),),
        base_revision=state_revision,
        is_durable=False,
    )


def event_key(event: TrainerEvent) -> tuple[object, ...]:
    """What makes an event the same when its step is done again: place and content, but neither time nor revision."""
    match event:
        case TransitionEvent():
            place = (event.timeline, event.global_step)
            return ("transition", *place, event.seed_id, int(event.source), int(event.target))
        case NoticeEvent():
            return ("notice", event.timeline, event.global_step, event.kind, event.message)
        case CheckpointEvent():
            return ("checkpoint", event.checkpoint_id)
        case TimelineEvent():
            return ("timeline", event.timeline)


class _Shifts:
    """From a command's own numbering of state revisions to that of this start."""

    def __init__(self, starts: "Sequence[tuple[int, HistoryRecord]]", own_offset: int) -> None:
        self._offsets = [(row, record.revision_offset) for row, record in starts if isinstance(record, RunResumed)]
        self._own_offset = own_offset

    def apply(self, command: Command, accepted_at: int) -> Command:
        """The command that was accepted at this journal revision."""
        if not command.expected_revision:
            return command
        offset = self._own_offset + sum(offset for row, offset in self._offsets if row > accepted_at)
        return replace(command, expected_revision=command.expected_revision + offset)


def _revision_before(starts: "Sequence[tuple[int, HistoryRecord]]", state_revision: int, after_revision: int) -> int:
    """The state revision of the checkpoint in the numbering of the newest start."""
    later = (record for row, record in starts if isinstance(record, RunResumed) and row > after_revision)
    return _base_revision(starts, state_revision) + sum(record.revision_offset for record in later)


def _base_revision(starts: "Sequence[tuple[int, HistoryRecord]]", state_revision: int) -> int:
    """The state revision of the checkpoint, or without one that of the run's beginning."""
    begun = next((record.revision for _, record in starts if isinstance(record, RunStarted)), 1)
    return state_revision or begun


def _step(event: TrainerEvent) -> int:
    return event.fork_step if isinstance(event, TimelineEvent) else event.global_step


def _timelines(branches: "Sequence[HistoryRecord]") -> Iterator[TimelineView]:
    for record in branches:
        if isinstance(record, TimelineEvent):
            yield TimelineView(record.timeline, record.parent, record.fork_step, record.cause)
