"""Where a rollback goes: the newest good state of the lineage, or the checkpoint that was named."""

from dataclasses import replace

import pytest

from esperd.leyline.commands import RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import MAX_SHOWN, are_all_shown, choose, lineage, needed_by_trainer, newest
from esperd.leyline.views import RestorePoint, TimelineView
from esperd.leyline.vocabulary import RollbackTier
from tests.integration.control.stage import first_snapshot

TIMELINES = (TimelineView(1, 0, 0), TimelineView(2, 1, 400), TimelineView(3, 2, 300), TimelineView(4, 1, 50))
POINTS = (
    RestorePoint(10, 1, "t1-10", False, True, 1),
    RestorePoint(60, 1, "t1-60", False, False, 1),
    RestorePoint(70, 1, "", True, True, 1),
    RestorePoint(350, 1, "t1-350", False, True, 1),
    RestorePoint(450, 2, "t2-450", True, True, 1),
    RestorePoint(320, 3, "", True, True, 1),
    RestorePoint(55, 4, "t4-55", False, True, 1),
)
NOW = replace(first_snapshot(), restore_points=POINTS, timelines=TIMELINES)
NOW = replace(NOW, run=replace(NOW.run, timeline=3, global_step=330))


def test_the_lineage_ends_at_each_fork() -> None:
    """Timeline 3 left 2 at step 300, which lies before the fork of 2 at 400: of timeline 1 steps up to 300 count."""
    assert lineage(TIMELINES, 3) == {3: None, 2: 300, 1: 300}
    assert lineage(TIMELINES, 4) == {4: None, 1: 50}
    assert lineage((), 1) == {1: None}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (RollbackCommand(global_step=330), POINTS[5]),
        (RollbackCommand(global_step=319), POINTS[2]),  # neither timeline 4 nor what lies behind a fork
        (RollbackCommand(global_step=69), POINTS[0]),  # 60 is not good
        (RollbackCommand(global_step=69, tier=RollbackTier.FULL), POINTS[0]),
        (RollbackCommand(before_seed_id=9), POINTS[5]),  # gone from the snapshot: the trainer decides
        (RollbackCommand(before_seed_id=1), POINTS[2]),
        (RollbackCommand(checkpoint_id="t1-60"), POINTS[1]),
        (RollbackCommand(checkpoint_id="t4-55"), POINTS[6]),
    ],
    ids=str,
)
def test_the_newest_good_state_is_chosen(command: RollbackCommand, expected: RestorePoint) -> None:
    """Seed 1 germinated at step 80. A checkpoint by name may be of any timeline and need not be good."""
    assert choose(command, NOW) == expected


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (RollbackCommand(global_step=9), "ROLLBACK_TARGET"),
        (RollbackCommand(global_step=50, tier=RollbackTier.FAST), "ROLLBACK_TARGET"),
        (RollbackCommand(global_step=100, tier=RollbackTier.FULL), "ROLLBACK_TARGET"),
        (RollbackCommand(checkpoint_id="t9"), "CHECKPOINT_UNKNOWN"),
        (RollbackCommand(checkpoint_id="t1-10", tier=RollbackTier.FAST), "ROLLBACK_TARGET"),
    ],
    ids=str,
)
def test_what_cannot_be_reached_is_refused(command: RollbackCommand, reason: str) -> None:
    """Each refusal has its own reason."""
    with pytest.raises(EsperdError) as refused:
        choose(command, NOW)
    assert refused.value.reason == reason


def test_of_very_many_states_the_newest_are_shown() -> None:
    """What memory holds and the newest good one on disk are always there, in order; few are all shown."""
    many = [RestorePoint(step, 1, f"c{step}", step in (5, 499), step == 7, 1) for step in range(500)]
    shown = newest(many)
    assert len(shown) == MAX_SHOWN
    assert [point.global_step for point in shown[:3]] == [5, 7, 402]
    assert shown[-1] == many[-1]
    assert newest(many[:MAX_SHOWN]) == tuple(many[:MAX_SHOWN])
    assert [are_all_shown(replace(NOW, restore_points=points)) for points in (POINTS, shown)] == [True, False]


def test_what_the_trainer_needs_stays() -> None:
    """On timeline 3 that is the newest good state before the forks, not the newer one that was left behind."""
    assert needed_by_trainer(NOW) == ["t1-10", "t2-450", "t4-55"]
    assert needed_by_trainer(first_snapshot()) == []
