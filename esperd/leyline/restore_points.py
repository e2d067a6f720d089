"""Which earlier state a rollback goes to, and which steps belong to the history that led to the present.

Any thread; pure. Timelines form a tree: a rollback leaves its timeline at the fork and opens a child. What lies on the
way from the first timeline to the current one is the run's lineage; what was left behind is not.
"""

from collections.abc import Iterable, Mapping, Sequence

from esperd.leyline.commands import RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RestorePoint, Snapshot, TimelineView
from esperd.leyline.vocabulary import RollbackTier

MAX_SHOWN = 100
"""States that a snapshot names at most: a run of months may keep thousands, and every snapshot holds them all."""


def newest(points: Sequence[RestorePoint]) -> tuple[RestorePoint, ...]:
    """Of all states, oldest first, those that a snapshot names: what memory holds, the newest good one on disk, and
    the newest of the others.
    """
    if len(points) <= MAX_SHOWN:
        return tuple(points)
    last_good = max((i for i, point in enumerate(points) if point.is_good and point.checkpoint_id), default=-1)
    wanted = [i for i, point in enumerate(points) if point.in_memory or i == last_good]
    others = [i for i in range(len(points)) if i not in wanted]
    chosen = [*wanted, *others[len(others) - max(0, MAX_SHOWN - len(wanted)) :]]
    return tuple(points[i] for i in sorted(chosen))


def needed_by_trainer(snapshot: Snapshot) -> list[str]:
    """Checkpoints to which the run may go back by itself: the newest good one of its lineage, the two newest, and those
    of states in memory, since a run that was killed must find there what it had gone back to from memory.
    """
    points = [point for point in snapshot.restore_points if point.checkpoint_id]
    last_good = sorted((point for point in _good(snapshot) if point.checkpoint_id), key=_age)[-1:]
    needed = [*last_good, *points[-2:], *(point for point in points if point.in_memory)]
    return list(dict.fromkeys(point.checkpoint_id for point in needed))


def are_all_shown(snapshot: Snapshot) -> bool:
    """Whether the snapshot names every state that there is; otherwise only the trainer knows the older ones."""
    return len(snapshot.restore_points) < MAX_SHOWN


def lineage(timelines: Iterable[TimelineView], timeline: int) -> dict[int, int | None]:
    """Each timeline on the way to `timeline`, with the last of its steps that counts; None for the current one."""
    known = {view.timeline: view for view in timelines}
    found: dict[int, int | None] = {timeline: None}
    view = known.get(timeline)
    until: int | None = None
    while view is not None and view.parent:
        # A fork of a fork may lie before the step at which the parent itself had begun.
        until = view.fork_step if until is None else min(until, view.fork_step)
        found[view.parent] = until
        view = known.get(view.parent)
    return found


def is_on(steps: Mapping[int, int | None], timeline: int, global_step: int) -> bool:
    """Whether a step of a timeline belongs to the history that `lineage` gave."""
    if timeline not in steps:
        return False
    until = steps[timeline]
    return until is None or global_step <= until


def choose(command: RollbackCommand, snapshot: Snapshot) -> RestorePoint:
    """The state that a rollback goes to.

    A named checkpoint may be of any timeline and need not be good; a step or a seed leads to the newest good state of
    the lineage. Of a seed that the snapshot no longer shows only the trainer knows when it germinated: for such a one
    this is the newest state of all.

    Raises:
        EsperdError: CHECKPOINT_UNKNOWN, or ROLLBACK_TARGET when no state fits, or it is not where it is wanted from.
    """
    found = _named(command, snapshot) if command.checkpoint_id else _newest(command, snapshot)
    on_disk = bool(found.checkpoint_id)
    check_tier(command.tier, found.global_step, in_memory=found.in_memory, on_disk=on_disk)
    return found


def check_tier(tier: RollbackTier, step: int, *, in_memory: bool, on_disk: bool) -> None:
    """Raise EsperdError ROLLBACK_TARGET unless the state of `step` is where it is wanted from."""
    if tier is RollbackTier.FAST and not in_memory:
        raise EsperdError("ROLLBACK_TARGET", detail=f"the state of step {step} is not in memory")
    if tier is RollbackTier.FULL and not on_disk:
        raise EsperdError("ROLLBACK_TARGET", detail=f"the state of step {step} is not on disk")


def _named(command: RollbackCommand, snapshot: Snapshot) -> RestorePoint:
    for point in snapshot.restore_points:
        if point.checkpoint_id == command.checkpoint_id:
            return point
    raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=command.checkpoint_id)


def _newest(command: RollbackCommand, snapshot: Snapshot) -> RestorePoint:
    newest_step, what = _newest_step(command, snapshot)
    fitting = [point for point in _good(snapshot) if newest_step is None or point.global_step <= newest_step]
    if not fitting:
        raise EsperdError("ROLLBACK_TARGET", detail=f"no good state {what}")
    return max(fitting, key=_age)


def _good(snapshot: Snapshot) -> list[RestorePoint]:
    """The good states of the lineage."""
    steps = lineage(snapshot.timelines, snapshot.run.timeline)
    return [p for p in snapshot.restore_points if p.is_good and is_on(steps, p.timeline, p.global_step)]


def _age(point: RestorePoint) -> tuple[int, int]:
    return point.timeline, point.global_step


def _newest_step(command: RollbackCommand, snapshot: Snapshot) -> tuple[int | None, str]:
    if not command.before_seed_id:
        return command.global_step, f"is as old as step {command.global_step}"
    seed = next((view for view in snapshot.seeds if view.seed_id == command.before_seed_id), None)
    if seed is None:
        return None, "is there"
    return seed.germinated_step - 1, f"is older than seed {seed.seed_id} (germinated at step {seed.germinated_step})"
