"""What an earlier start of the daemon did after the checkpoint, to be done again: each command at its own safe point.

Training thread only. A position is (timeline, step), and positions only grow as a run goes on: a rollback goes back in
steps, but opens a new timeline. Knows no trainer: it says what is due where, and when the past is over.
"""

from collections import defaultdict

from esperd.leyline.commands import CheckpointCommand
from esperd.leyline.views import CheckpointEvent, NoticeEvent, TimelineEvent, TransitionEvent
from esperd.oona.past import PastCommand, RunPast, event_key

Position = tuple[int, int]
"""(timeline, global step)."""

START: Position = (0, 0)
"""Before every position."""


class CatchUp:
    """The recorded past of a run behind one of its checkpoints."""

    def __init__(self, past: RunPast, position: Position) -> None:
        """`position` is that of the checkpoint, from which the run goes on."""
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

    def missed(self) -> list[PastCommand]:
        """Commands whose safe point was never met: the run has not gone the way it had gone before."""
        return [command for commands in self._commands.values() for command in commands]

    def knows(self, event: TransitionEvent | NoticeEvent | CheckpointEvent | TimelineEvent) -> bool:
        """Whether the journal holds this event already."""
        return event_key(event) in self._event_keys
