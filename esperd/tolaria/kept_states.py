"""The states of the run to which it can go back: in memory, on disk, or both; and which of them a request means.

Training thread only; holds states, decides by rule, reads no file. In memory are the states of the last two
checkpoints and some between the last of them and now. Older ones are left out on purpose: after a restart the same
states can be reached, so that a rollback that is done again leads to the same one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from esperd.leyline.commands import RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import check_tier, is_on, lineage, newest
from esperd.leyline.views import RestorePoint, TimelineView
from esperd.tolaria.catch_up import Position
from esperd.tolaria.state_tree import Captured

WRITTEN_IN_MEMORY = 2
"""Written states that stay in memory: the newest, which is not good yet, and the one before it."""


@dataclass(slots=True)
class KeptState:
    """One state."""

    position: Position
    num_bytes: int
    name: str = ""
    """Empty for the one state of its position that the run keeps by itself; else the id of its checkpoint, which may
    hold more of what happened at that safe point."""
    captured: Captured | None = None
    """In memory; None when it is on disk only."""
    checkpoint_ids: list[str] = field(default_factory=list)
    """On disk; empty when it is in memory only."""
    is_for_disk: bool = False
    """It was written, or is to be."""
    pending_ids: list[str] = field(default_factory=list)
    """Checkpoints of it that the writer has not finished; until then it is not forgotten."""
    is_by_chance: bool = False
    """Written because of what came from outside the run (an emergency, the daemon's end): gone back to by its id only,
    so that a run that is done again finds the same states."""
    is_good: bool = False

    @property
    def step(self) -> int:
        """Its global step."""
        return self.position[1]

    @property
    def checkpoint_id(self) -> str:
        """Its first checkpoint, empty when it has none."""
        return self.checkpoint_ids[0] if self.checkpoint_ids else ""

    @property
    def is_there(self) -> bool:
        """In memory, on disk, or on its way there; not when it was too large for memory and is not for the disk."""
        return self.captured is not None or bool(self.checkpoint_ids) or bool(self.pending_ids)

    def drop_memory(self) -> None:
        """Give its memory back; the writer may still hold it."""
        if self.captured is not None:
            self.captured.release()
            self.captured = None


class KeptStates:
    """All of them, oldest first."""

    def __init__(self, num_between: int, max_bytes: int) -> None:
        """Keep `num_between` states in memory after the last written one, and `max_bytes` in all."""
        self._num_between = num_between
        self._max_bytes = max_bytes
        self._states: list[KeptState] = []

    def __iter__(self) -> Iterator[KeptState]:
        return iter(self._states)

    def add(self, state: KeptState) -> None:
        """Keep a state; one for the disk makes those between it and the one before leave."""
        known = self.find(state.position, state.name)
        if known is not None:
            self._merge(known, state)
        else:
            self._states.append(state)
            self._states.sort(key=_age)
        self._trim_memory(known or state)

    def find(self, position: Position, name: str = "") -> KeptState | None:
        """The state of a position and name, if it is kept."""
        return next((state for state in self.at(position) if state.name == name), None)

    def at(self, position: Position) -> list[KeptState]:
        """Every state of a position."""
        return [state for state in self._states if state.position == position]

    def is_wanted_in_memory(self, state: KeptState) -> bool:
        """Whether it is one of the newest that were written, and there is room for it."""
        written = [kept for kept in self._states if kept.is_for_disk and not kept.is_by_chance]
        held = sum(kept.num_bytes for kept in self._states if kept.captured is not None)
        is_newest = any(kept is state for kept in written[-WRITTEN_IN_MEMORY:])
        return is_newest and state.captured is None and held + state.num_bytes <= self._max_bytes

    def begin_writing(self, position: Position, name: str, checkpoint_id: str) -> None:
        """A checkpoint of the state, if it is kept, is on its way to the disk."""
        state = self.find(position, name)
        if state is not None:
            state.pending_ids.append(checkpoint_id)

    def end_writing(self, position: Position, name: str, checkpoint_id: str) -> None:
        """It has arrived there, or could not be written."""
        state = self.find(position, name)
        if state is not None and checkpoint_id in state.pending_ids:
            state.pending_ids.remove(checkpoint_id)
            if not state.pending_ids and not state.checkpoint_ids:
                state.is_for_disk = False  # it could not be written: no later start will find it
            self._forget_lost()

    def lose_checkpoint(self, checkpoint_id: str) -> None:
        """Its files are gone."""
        for state in self._states:
            if checkpoint_id in state.checkpoint_ids:
                state.checkpoint_ids.remove(checkpoint_id)
        self._forget_lost()

    def went_back(self, state: KeptState) -> None:
        """The run has gone back to this state: what is newer stays on disk only."""
        for other in self._states:
            if other.position > state.position:
                other.drop_memory()
        self._forget_lost()

    def points(self) -> tuple[RestorePoint, ...]:
        """As seen from outside: one for each name under which a rollback can ask for a state."""
        return newest([point for state in self._states if state.is_there for point in _points(state)])

    def newest_good(self, timelines: Sequence[TimelineView], before_step: int | None = None) -> KeptState | None:
        """The newest good state in the history of the last timeline, before a step if one is given."""
        there = [s for s in self._states if s.is_good and s.is_there and not s.is_by_chance]
        steps = lineage(timelines, timelines[-1].timeline)
        known = [s for s in there if is_on(steps, *s.position)]
        reachable = [s for s in known if before_step is None or s.step < before_step]
        return max(reachable, key=_age, default=None)

    def wanted(
        self, command: RollbackCommand, timelines: Sequence[TimelineView], germinated_step: int | None
    ) -> KeptState:
        """The state that a command means; `germinated_step` is that of the seed that it names.

        Raises EsperdError ROLLBACK_TARGET.
        """
        found = self._named(command, timelines, germinated_step)
        check_tier(command.tier, found.step, in_memory=found.captured is not None, on_disk=bool(found.checkpoint_id))
        return found

    def _named(
        self, command: RollbackCommand, timelines: Sequence[TimelineView], germinated_step: int | None
    ) -> KeptState:
        if command.checkpoint_id:
            found = next((s for s in self._states if command.checkpoint_id in s.checkpoint_ids), None)
            wish = f"there is no checkpoint {command.checkpoint_id} in this run"
        elif germinated_step is not None:
            found = self.newest_good(timelines, germinated_step)
            wish = f"no good state is older than seed {command.before_seed_id} (germinated at step {germinated_step})"
        else:
            found = self.newest_good(timelines, command.global_step + 1)
            wish = f"no good state of this timeline is as old as step {command.global_step}"
        if found is None:
            raise EsperdError("ROLLBACK_TARGET", detail=wish)
        return found

    @staticmethod
    def _merge(known: KeptState, state: KeptState) -> None:
        if state.captured is not None:
            known.drop_memory()
            known.captured, known.num_bytes = state.captured, state.num_bytes
        known.checkpoint_ids += [name for name in state.checkpoint_ids if name not in known.checkpoint_ids]
        known.is_for_disk |= state.is_for_disk
        known.is_by_chance &= state.is_by_chance
        known.is_good |= state.is_good

    def _trim_memory(self, newest: KeptState) -> None:
        in_memory = [s for s in self._states if s.captured is not None]
        written = [s for s in in_memory if s.is_for_disk and not s.is_by_chance]
        last = written[-1].position if written else (0, -1)
        between = [s for s in in_memory if not s.is_for_disk and s.position > last]
        staying = [*written[-WRITTEN_IN_MEMORY:], *between[max(0, len(between) - self._num_between) :]]
        for state in in_memory:
            if not any(state is kept for kept in staying):
                state.drop_memory()
        held = [s for s in self._states if s.captured is not None]
        while held and sum(s.num_bytes for s in held) > self._max_bytes:
            held.pop(0).drop_memory()
        self._forget_lost(newest)

    def _forget_lost(self, newest: KeptState | None = None) -> None:
        # The newest may be on its way to the disk.
        self._states = [s for s in self._states if s.is_there or s is newest]


def _age(state: KeptState) -> tuple[Position, str]:
    """What the run keeps by itself is of before the commands of its step, what was asked for of among them."""
    return state.position, state.name


def _points(state: KeptState) -> Iterator[RestorePoint]:
    """Of several checkpoints of one state the last one is also what memory holds."""
    names = state.checkpoint_ids or [""]
    for name in names:
        in_memory = state.captured is not None and name == names[-1]
        yield RestorePoint(state.step, state.position[0], name, in_memory, state.is_good, state.num_bytes)
