"""That a run began and how it ended, for the journal, so that later starts of the daemon can tell of it.

Event loop only. Knows the run by its snapshot alone: whoever ended it, and for whatever reason, one row says so.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

from esperd.config.settings import Settings
from esperd.leyline.redact import redact
from esperd.leyline.views import RunView
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.records import Record, RunFinished, RunStarted

_ENDED = (TrainerPhase.FINISHED, TrainerPhase.FAILED)


def run_started(run: RunView, settings: Settings, revision: int) -> RunStarted:
    """The row of a run that begins with these settings; `revision` is its first public one."""
    return RunStarted(run.run_id, run.task, run.started_unix_s, config_text(settings), revision, is_resumable=True)


def config_text(settings: Settings) -> str:
    """Every setting as JSON, secrets redacted."""
    return json.dumps(redact(None, "", asdict(settings)), default=str)


class RunHistory:
    """Writes how one run ended, or that the daemon left it."""

    def __init__(self, record: Callable[[Record], None], clock: Callable[[], float], *, is_ended: bool) -> None:
        """`record` takes a row for the journal, `clock` gives Unix seconds, `is_ended`: the row is there already."""
        self._record = record
        self._clock = clock
        self._is_ended = is_ended

    def look(self, run: RunView, *, is_daemon_leaving: bool = False) -> None:
        """Write the end when it has come; a run that the daemon leaves behind has its row too."""
        if self._is_ended or not (is_daemon_leaving or run.phase in _ENDED):
            return
        self._is_ended = True
        self._record(
            RunFinished(
                run.run_id,
                run.phase,
                run.global_step,
                self._clock(),
                run.failure,
                run.epoch,
                run.train_loss,
                run.val_loss,
                run.metrics,
                run.timeline,
            )
        )
