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


class RunHistory:
    """Writes the two rows of one run."""

    def __init__(self, record: Callable[[Record], None], clock: Callable[[], float]) -> None:
        """`record` takes a row for the journal, `clock` gives Unix seconds."""
        self._record = record
        self._clock = clock
        self._is_ended = False

    def begin(self, run: RunView, settings: Settings) -> None:
        """The run begins, with these settings."""
        config = json.dumps(redact(None, "", asdict(settings)), default=str)
        self._record(RunStarted(run.run_id, run.task, self._clock(), config))

    def look(self, run: RunView, *, is_daemon_leaving: bool = False) -> None:
        """Write the end when it has come; a run that the daemon leaves behind ends there."""
        if self._is_ended or not (is_daemon_leaving or run.phase in _ENDED):
            return
        self._is_ended = True
        self._record(RunFinished(run.run_id, run.phase, run.global_step, self._clock(), run.failure))
