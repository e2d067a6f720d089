"""Which checkpoints are kept."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.retention import NUM_EMERGENCY_KEPT, Retention, removable
from tests.unit.oona.checkpoints.samples import draft

SCHEDULED, REQUESTED, EMERGENCY, FINAL, FORK = (kind for kind in CheckpointKind if kind.value)


def stored(step: int, kind: CheckpointKind = SCHEDULED, *, is_good: bool = False) -> StoredCheckpoint:
    manifest = draft(step, kind)
    return StoredCheckpoint(manifest, Path(manifest.checkpoint_id), is_good, 1)


def removed_steps(checkpoints: list[StoredCheckpoint], rule: Retention, *protect: str) -> list[int]:
    return [checkpoint.manifest.global_step for checkpoint in removable(checkpoints, rule, protect)]


def test_the_newest_scheduled_ones_are_kept() -> None:
    """Of five, `keep` 2 lets the three oldest go."""
    assert removed_steps([stored(step) for step in (1, 2, 3, 4, 5)], Retention(2)) == [1, 2, 3]


def test_the_newest_good_one_is_kept_whatever_came_after() -> None:
    """Ten later ones that are not good do not push it out; an older good one goes."""
    checkpoints = [stored(1, is_good=True), stored(2, is_good=True), *(stored(step) for step in range(3, 13))]
    assert 2 not in removed_steps(checkpoints, Retention(1))
    assert 1 in removed_steps(checkpoints, Retention(1))


def test_multiples_are_kept_for_ever() -> None:
    """With keep_every_steps 100, steps 100 and 200 stay."""
    checkpoints = [stored(step) for step in (50, 100, 150, 200, 250)]
    assert removed_steps(checkpoints, Retention(1, 100)) == [50, 150]


def test_requested_ones_are_kept_until_removed_by_hand() -> None:
    """They are no part of `keep` either."""
    checkpoints = [stored(1, REQUESTED), stored(2), stored(3), stored(4, REQUESTED)]
    assert removed_steps(checkpoints, Retention(1)) == [2]


def test_emergency_final_and_fork_have_limits_of_their_own() -> None:
    """Three emergencies, one final, one fork; the newest of each."""
    emergencies = [stored(step, EMERGENCY) for step in range(1, 6)]
    others = [stored(10, FINAL), stored(11, FORK), stored(12, FINAL), stored(13, FORK)]
    assert removed_steps([*emergencies, *others], Retention(1)) == [1, 2, 10, 11]
    assert NUM_EMERGENCY_KEPT == 3


def test_what_is_protected_stays() -> None:
    """A checkpoint that somebody reads is not removed under his eyes."""
    checkpoints = [stored(step) for step in (1, 2, 3)]
    assert removed_steps(checkpoints, Retention(1), checkpoints[0].manifest.checkpoint_id) == [2]


KINDS = st.sampled_from([SCHEDULED, REQUESTED, EMERGENCY, FINAL, FORK])


@settings(deadline=None)
@given(st.lists(st.tuples(KINDS, st.booleans()), max_size=20), st.integers(1, 4), st.integers(0, 5))
def test_nothing_needed_ever_goes(kinds: list[tuple[CheckpointKind, bool]], keep: int, every: int) -> None:
    """The newest of all, the newest good one and every requested one survive, and a second pass removes nothing."""
    checkpoints = [stored(step + 1, kind, is_good=good) for step, (kind, good) in enumerate(kinds)]
    rule = Retention(keep, every)
    gone = removable(checkpoints, rule)
    left = [checkpoint for checkpoint in checkpoints if checkpoint not in gone]
    assert left[-1:] == checkpoints[-1:]
    assert [c for c in checkpoints if c.is_good][-1:] == [c for c in left if c.is_good][-1:]
    assert not any(c.manifest.kind is REQUESTED for c in gone)
    assert removable(left, rule) == []


def test_requested_ones_go_only_when_a_number_is_given():
    """Somebody asked for them; somebody has to say that they are no longer wanted."""
    asked = [stored(step, CheckpointKind.REQUESTED) for step in (1, 2, 3)]
    newest = stored(4)
    assert removed_steps([*asked, newest], Retention(1)) == []
    assert removed_steps([*asked, newest], Retention(1, keep_requested=1)) == [1, 2]
    assert removed_steps([*asked, newest], Retention(1, keep_requested=0)) == [1, 2, 3]
