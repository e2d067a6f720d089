"""What changed between two snapshots.

Pure. Each part of the state that can change by itself is one change with its own key, so that a watcher who wants only
the newest of each thing can have it; the changes of one revision, put one after the other, are its whole delta.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from esperd.leyline.views import (
    BreakerView,
    EmergencyView,
    OptimizerGroupView,
    RestorePoint,
    RunView,
    SeedView,
    SiteView,
    Snapshot,
    TimelineView,
)

PartT = TypeVar("PartT")


@dataclass(frozen=True, slots=True)
class RunChanged:
    """The run as a whole is another."""

    view: RunView


@dataclass(frozen=True, slots=True)
class SeedChanged:
    """A seed came or changed."""

    view: SeedView


@dataclass(frozen=True, slots=True)
class SeedGone:
    """A seed is no longer there."""

    seed_id: int


@dataclass(frozen=True, slots=True)
class SiteChanged:
    """A site changed."""

    view: SiteView


@dataclass(frozen=True, slots=True)
class OptimizersChanged:
    """The optimizers' groups are others."""

    views: tuple[OptimizerGroupView, ...]


@dataclass(frozen=True, slots=True)
class EmergenciesChanged:
    """Other emergencies stand."""

    views: tuple[EmergencyView, ...]


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A breaker changed."""

    view: BreakerView


@dataclass(frozen=True, slots=True)
class RestorePointsChanged:
    """A rollback can go to other states."""

    views: tuple[RestorePoint, ...]


@dataclass(frozen=True, slots=True)
class TimelinesChanged:
    """A timeline was opened."""

    views: tuple[TimelineView, ...]


Change = (
    RunChanged
    | SeedChanged
    | SeedGone
    | SiteChanged
    | OptimizersChanged
    | EmergenciesChanged
    | BreakerChanged
    | RestorePointsChanged
    | TimelinesChanged
)


def changes(before: Snapshot, after: Snapshot) -> list[tuple[str, Change]]:
    """Every change with its key, e.g. `seed:3`; what is equal by value is no change."""
    found: list[tuple[str, Change]] = []
    if after.run != before.run:
        found.append(("run", RunChanged(after.run)))
    # What is shown of a seed counts from the run's step and from what its site offers, and changes with them.
    is_of_another_moment = _moment(before) != _moment(after)
    seeds = after.seeds if is_of_another_moment else _changed(before.seeds, after.seeds, lambda view: view.seed_id)
    found += [(f"seed:{view.seed_id}", SeedChanged(view)) for view in seeds]
    present = {view.seed_id for view in after.seeds}
    found += [(f"seed:{view.seed_id}", SeedGone(view.seed_id)) for view in before.seeds if view.seed_id not in present]
    sites = _changed(before.sites, after.sites, lambda view: view.site)
    found += [(f"site:{view.site}", SiteChanged(view)) for view in sites]
    if after.optimizers != before.optimizers:
        found.append(("optimizers", OptimizersChanged(after.optimizers)))
    if after.emergencies != before.emergencies:
        found.append(("emergencies", EmergenciesChanged(after.emergencies)))
    breakers = _changed(before.breakers, after.breakers, lambda view: view.name)
    found += [(f"breaker:{view.name}", BreakerChanged(view)) for view in breakers]
    if after.restore_points != before.restore_points:
        found.append(("restore_points", RestorePointsChanged(after.restore_points)))
    if after.timelines != before.timelines:
        found.append(("timelines", TimelinesChanged(after.timelines)))
    return found


def _moment(snapshot: Snapshot) -> tuple[int, int, tuple[SiteView, ...]]:
    return snapshot.run.global_step, snapshot.run.epoch, snapshot.sites


def _changed(before: Sequence[PartT], after: Iterable[PartT], key: Callable[[PartT], Hashable]) -> list[PartT]:
    known = {key(part): part for part in before}
    return [part for part in after if known.get(key(part)) is not part and known.get(key(part)) != part]
