"""What an earlier start of the daemon did after the checkpoint, to be done again: each command at its own safe point.

Training thread only. A position is (timeline, step), and positions only grow as a run goes on: a rollback goes back in
steps, but opens a new timeline. Knows no trainer: it says what is due where, and when the past is over.
"""

from collections import defaultdict
from dataclasses import dataclass

from esperd.leyline.commands import CheckpointCommand
from esperd.leyline.views import CheckpointEvent, NoticeEvent, TimelineEvent, TransitionEvent
from esperd.oona.past import PastCommand, RunPast, event_key

Position = tuple[int, int]
"""(timeline, global step)."""

START: Position = (0, 0)
"""Before every position."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a state lies in the journal: whoever goes on from it does again what came later."""

    sequence: int
    """Every outcome up to this number is in the state, or has changed nothing."""
    revision: int
    """The state's own revision, as it was counted when the journal was at `journal_revision`."""
    journal_revision: int
    """Rows up to this one belong to what led to the state."""


class CatchUp:
    """The recorded past of a run behind one of its checkpoints."""

    def __init__(
        self, past: RunPast, position: Position, *, first_revision: int = 0, journal_revision: int = 0
    ) -> None:
        """Make the past behind one checkpoint.

        Args:
            past: what the journal holds.
            position: of the checkpoint, from which the run goes on.
            first_revision: revision of its state in this start.
            journal_revision: how far the journal was at the checkpoint; 0 without one.
        """
        self._journal_revision = journal_revision
        self._revision_shift = first_revision - past.base_revision
        self.horizon: Position = max(past.horizon, position)
        """Position of the newest durable row: up to there history is fixed."""
        self.is_durable = past.is_durable
        """Whether there is a journal; without one nothing is known but the checkpoint."""
        self._event_keys = past.event_keys
        self._commands: defaultdict[Position, list[PastCommand]] = defaultdict(list)
        for command in past.settled:
            outcome = command.outcome
            assert outcome is not None  # settled ones have one
            where = (outcome.timeline, outcome.global_step)
            # Checkpoints change nothing; one that was answered late may even lie before this one.
            if where >= position and not isinstance(command.command.payload, CheckpointCommand):
                self._commands[where].append(command)

    def take(self, position: Position) -> list[PastCommand]:
        """The commands that took effect at this safe point, in their order; each is given out once."""
        return self._commands.pop(position, [])

    def has(self, position: Position) -> bool:
        """Whether a command took effect at this safe point."""
        return position in self._commands

    def is_over(self, position: Position) -> bool:
        """Whether the run has come to where history ends."""
        return position >= self.horizon

    def mark(self, sequence: int, revision: int) -> Mark:
        """Where a state lies that is kept while history is done again; both arguments are those of now.

        The journal is further than the run then. What it holds from the checkpoint on, of which some is still to be
        repeated, lies behind this state for the next start too.
        """
        left = [past.outcome.sequence for past in self.missed() if past.outcome is not None]
        before_left = min(left, default=sequence + 1) - 1
        return Mark(before_left, revision - self._revision_shift, self._journal_revision)

    def missed(self) -> list[PastCommand]:
        """Commands whose safe point was never met: the run has not gone the way it had gone before."""
        return [command for commands in self._commands.values() for command in commands]

    def knows(self, event: TransitionEvent | NoticeEvent | CheckpointEvent | TimelineEvent) -> bool:
        """Whether the journal holds this event already."""
        return event_key(event) in self._event_keys
