"""Which run a start of the daemon is about: one that it begins, goes on with, or only shows because it has finished.

Main thread; decides in values. The journal says what earlier starts did; without a journal the newest checkpoint does.
A run goes on only with the task, the task's options and the random seed with which it began; one that failed before its
first step has nothing to lose, and makes way for another when they are corrected.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from esperd.config.settings import Settings
from esperd.control.histories import read_all
from esperd.control.run_history import config_text
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import CheckpointEvent
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.journal import Journal
from esperd.oona.records import HistoryQuery, RowKind, RunFinished, RunStarted

REVISION_BLOCK = 1_000_000
"""State revisions of a start begin at a multiple of this, so that they grow from start to start."""
_UNCHANGEABLE = ("run.task", "run.task_options", "run.random_seed")


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The newest run of which there is a trace."""

    run_id: str
    started_unix_s: float
    config: Mapping[str, Any]
    """Its settings by section, as it began."""
    is_resumable: bool
    finished: RunFinished | None
    never_began: bool = False
    """Whether all that there is of it is a failure: no step and no checkpoint."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that is not what it was when the run began."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.name} was {self.then}, is {self.now}"


@dataclass(frozen=True, slots=True)
class Picked:
    """The run of this start."""

    run_id: str
    started_unix_s: float
    first_revision: int
    """The first state revision that this start shows."""
    resumes: bool = False
    """Whether an earlier start began it and this one goes on."""
    finished: RunFinished | None = None
    """How it ended, if it has finished: then there is nothing to train."""
    changes: tuple[Change, ...] = ()


def pick(
    earlier: EarlierRun | None, settings: Settings, *, new_run_id: str, unix_s: float, last_revision: int
) -> Picked:
    """The run of a start at `unix_s`, when `last_revision` is the largest state revision on record.

    Raises:
        EsperdError: CHECKPOINT_MISMATCH, when an earlier run that has begun would go on with another task, options or
            random seed.
    """
    first_revision = 1 if last_revision == 0 else (last_revision // REVISION_BLOCK + 1) * REVISION_BLOCK
    if earlier is None or not earlier.is_resumable:
        return Picked(new_run_id, unix_s, first_revision)
    if earlier.finished is not None:
        return Picked(earlier.run_id, earlier.started_unix_s, first_revision, finished=earlier.finished)
    changes = tuple(_changes(earlier.config, json.loads(config_text(settings))))
    broken = [str(change) for change in changes if change.name in _UNCHANGEABLE]
    if broken and earlier.never_began:
        return Picked(new_run_id, unix_s, first_revision)
    if broken:
        raise EsperdError("CHECKPOINT_MISMATCH", checkpoint_id=f"of {earlier.run_id}", detail="; ".join(broken))
    return Picked(earlier.run_id, earlier.started_unix_s, first_revision, resumes=True, changes=changes)


async def newest_in_journal(journal: Journal) -> EarlierRun | None:
    """The journal's newest run."""
    rows = await read_all(journal, HistoryQuery(kinds=(RowKind.RUN_STARTED, RowKind.RUN_FINISHED, RowKind.CHECKPOINT)))
    started: RunStarted | None = None
    finished: RunFinished | None = None
    ends: list[RunFinished] = []
    has_checkpoint = False
    for row in rows:
        if isinstance(row.record, RunStarted):
            started, finished, ends, has_checkpoint = row.record, None, [], False
        elif isinstance(row.record, CheckpointEvent):
            has_checkpoint = True
        elif isinstance(row.record, RunFinished):
            ends.append(row.record)
            finished = row.record if row.record.phase is TrainerPhase.FINISHED else finished
    if started is None:
        return None
    config = json.loads(started.config) if started.is_resumable else {}
    never_began = bool(ends) and not has_checkpoint and all(map(_is_early_failure, ends))
    return EarlierRun(started.run_id, started.unix_s, config, started.is_resumable, finished, never_began)


def newest_in_store(checkpoints: Sequence[StoredCheckpoint]) -> tuple[EarlierRun | None, int]:
    """The run of the newest checkpoint, and the largest state revision of any.

    One that has finished goes on as well, and finds at once that nothing is left to do.
    """
    if not checkpoints:
        return None, 0
    manifest = max((one.manifest for one in checkpoints), key=lambda found: found.written_unix_s)
    earlier = EarlierRun(manifest.run_id, manifest.written_unix_s, manifest.config, is_resumable=True, finished=None)
    return earlier, max(one.manifest.revision for one in checkpoints)


def _is_early_failure(end: RunFinished) -> bool:
    return end.phase is TrainerPhase.FAILED and end.global_step == 0


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Settings that both know and that differ."""
    for section, values in now.items():
        before = then.get(section, {})
        for key, value in values.items():
            if key in before and before[key] != value:
                yield Change(f"{section}.{key}", json.dumps(before[key]), json.dumps(value))
