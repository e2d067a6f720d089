"""Which earlier state a rollback goes to, and which steps belong to the history that led to the present.

Any thread; pure. Timelines form a tree: a rollback leaves its timeline at the fork and opens a child. What lies on the
way from the first timeline to the current one is the run's lineage; what was left behind is not.
"""

from collections.abc import Iterable, Sequence

from esperd.leyline.commands import RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RestorePoint, Snapshot, TimelineView
from esperd.leyline.vocabulary import RollbackTier


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


def choose(command: RollbackCommand, snapshot: Snapshot) -> RestorePoint:
    """The state that a rollback goes to.

    A named checkpoint may be of any timeline and need not be good; a step or a seed leads to the newest good state of
    the lineage.

    Raises:
        EsperdError: CHECKPOINT_UNKNOWN, SEED_UNKNOWN, or ROLLBACK_TARGET when no state fits.
    """
    points = [point for point in snapshot.restore_points if _has_tier(point, command.tier)]
    if command.checkpoint_id:
        return _named(command, points, snapshot.restore_points)
    newest_step, what = _newest_step(command, snapshot)
    steps = lineage(snapshot.timelines, snapshot.run.timeline)
    fitting = [point for point in points if point.is_good and point.global_step <= newest_step and _is_on(point, steps)]
    if not fitting:
        raise EsperdError("ROLLBACK_TARGET", detail=f"no good state {what}{_of_tier(command.tier)}")
    return max(fitting, key=lambda point: (point.global_step, point.timeline, point.in_memory))


def _named(
    command: RollbackCommand, points: Sequence[RestorePoint], everywhere: Sequence[RestorePoint]
) -> RestorePoint:
    name = command.checkpoint_id
    found = next((point for point in points if point.checkpoint_id == name), None)
    if found is not None:
        return found
    if any(point.checkpoint_id == name for point in everywhere):
        raise EsperdError("ROLLBACK_TARGET", detail=f"the checkpoint {name} is not there{_of_tier(command.tier)}")
    raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=name)


def _newest_step(command: RollbackCommand, snapshot: Snapshot) -> tuple[int, str]:
    if not command.before_seed_id:
        return command.global_step, f"at or before step {command.global_step}"
    seed = next((view for view in snapshot.seeds if view.seed_id == command.before_seed_id), None)
    if seed is None:
        raise EsperdError("SEED_UNKNOWN", seed_id=command.before_seed_id)
    # The state of the very step holds the seed already: a safe point applies commands before it is saved.
    return seed.germinated_step - 1, f"before seed {seed.seed_id} (germinated at step {seed.germinated_step})"


def _has_tier(point: RestorePoint, tier: RollbackTier) -> bool:
    match tier:
        case RollbackTier.FAST:
            return point.in_memory
        case RollbackTier.FULL:
            return bool(point.checkpoint_id)
    return True


def _is_on(point: RestorePoint, steps: dict[int, int | None]) -> bool:
    if point.timeline not in steps:
        return False
    until = steps[point.timeline]
    return until is None or point.global_step <= until


def _of_tier(tier: RollbackTier) -> str:
    return {RollbackTier.FAST: " in memory", RollbackTier.FULL: " on disk"}.get(tier, "")
