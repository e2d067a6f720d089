"""What changed between two snapshots, and that the bytes of the changes make one delta."""

from dataclasses import replace

from esper.leyline.v1 import state_service_pb2

from esperd.control.deltas import RunChanged, SeedGone, changes
from esperd.control.state_board import StateBoard
from esperd.leyline.views import EmergencyView, RestorePoint, Snapshot, TimelineView
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel, Stage
from esperd.oona.feed_values import FeedPolicy
from tests.integration.control.stage import first_snapshot

EPOCH = bytes(16)


def later(before: Snapshot, **parts: object) -> Snapshot:
    return replace(before, revision=before.revision + 1, **parts)  # type: ignore[arg-type]


def test_nothing_changed() -> None:
    """Equal by value is unchanged, whoever made the object."""
    assert changes(first_snapshot(), first_snapshot()) == []


def test_each_part_has_its_key() -> None:
    """Every kind of change is found, with what it is about."""
    before = first_snapshot()
    raised = EmergencyView("e", EmergencyLevel.HALT, "r", "o", 1, 1.0)
    after = later(
        before,
        run=replace(before.run, global_step=101),
        seeds=(replace(before.seeds[0], seed_id=2),),
        sites=(before.sites[0], replace(before.sites[1], vacant=True)),
        optimizers=(),
        emergencies=(raised,),
        breakers=(replace(before.breakers[0], state=BreakerState.OPEN),),
        restore_points=(RestorePoint(50, 1, "c", False, True, 10),),
        timelines=(*before.timelines, TimelineView(2, 1, 50)),
    )
    keys = [key for key, _ in changes(before, after)]
    assert keys == [
        "run",
        "seed:2",
        "seed:1",
        "site:block.2",
        "optimizers",
        "emergencies",
        "breaker:isolation",
        "restore_points",
        "timelines",
    ]
    assert changes(before, after)[0][1] == RunChanged(after.run)
    assert changes(before, after)[2][1] == SeedGone(1)


def test_a_seed_ages_for_who_watches_as_for_who_looks() -> None:
    """Whoever follows the changes holds the same state as whoever takes a snapshot, also of a seed that rests."""
    before = first_snapshot()
    board = StateBoard(EPOCH, before)
    subscription = board.feed.subscribe()
    board.publish(later(before, run=replace(before.run, global_step=140)))
    delivery = subscription.take()
    assert delivery is not None
    followed = state_service_pb2.WatchStateResponse.FromString(board.delivery_bytes(delivery)).delta
    looked_at = state_service_pb2.WatchStateResponse.FromString(board.opening_bytes()).snapshot
    assert list(followed.seeds) == list(looked_at.seeds)
    assert followed.seeds[0].age_steps == 60


def test_the_pieces_make_one_message() -> None:
    """A delivery is one WatchStateResponse that protobuf reads as a whole, with every change in it."""
    before = first_snapshot()
    board = StateBoard(EPOCH, before)
    subscription = board.feed.subscribe()
    seed = replace(before.seeds[0], stage=Stage.BLENDING, alpha=0.5)
    board.publish(later(before, run=replace(before.run, global_step=101), seeds=(seed, replace(seed, seed_id=2))))
    delivery = subscription.take()
    assert delivery is not None
    message = state_service_pb2.WatchStateResponse.FromString(board.delivery_bytes(delivery))
    assert (message.revision, message.resume_token) == (6, board.feed.token.encode())
    assert message.delta.run.global_step == 101
    assert [(found.seed_id, found.stage) for found in message.delta.seeds] == [("1", 4), ("2", 4)]


def test_every_watcher_gets_the_same_bytes() -> None:
    """A delta is put together once for all who want every change."""
    before = first_snapshot()
    board = StateBoard(EPOCH, before)
    watchers = [board.feed.subscribe() for _ in range(3)]
    board.publish(later(before, run=replace(before.run, global_step=101)))
    deliveries = [watcher.take() for watcher in watchers]
    data = [board.delivery_bytes(delivery) for delivery in deliveries if delivery is not None]
    assert data[0] is data[1] is data[2]


def test_latest_keeps_the_newest_of_each_and_counts() -> None:
    """Ten revisions of one seed and one of another arrive as two changes."""
    snapshot = first_snapshot()
    board = StateBoard(EPOCH, snapshot)
    subscription = board.feed.subscribe(policy=FeedPolicy.LATEST)
    for number in range(10):
        snapshot = later(snapshot, seeds=(replace(snapshot.seeds[0], alpha=number / 10),))
        board.publish(snapshot)
    snapshot = later(snapshot, optimizers=())
    board.publish(snapshot)
    delivery = subscription.take()
    assert delivery is not None
    message = state_service_pb2.WatchStateResponse.FromString(board.delivery_bytes(delivery))
    (seed,) = message.delta.seeds
    assert round(seed.alpha, 3) == 0.9
    assert message.delta.optimizers_changed
    # The first of the ten changed nothing: alpha was 0 before.
    assert (message.num_conflated, message.revision) == (8, 16)


def test_a_revision_is_published_once() -> None:
    """What the event log repeats of a snapshot that was already read is passed over."""
    before = first_snapshot()
    board = StateBoard(EPOCH, before)
    board.publish(before)
    assert board.feed.token.revision == 5
    message = state_service_pb2.WatchStateResponse.FromString(board.opening_bytes())
    assert (message.revision, len(message.snapshot.sites), message.snapshot.run.task) == (5, 2, "digits")


def test_timelines_and_restore_points_come_as_wholes() -> None:
    """A watcher who gets them replaces what it had; an empty list of restore points is told as a change too."""
    point = RestorePoint(50, 1, "c", True, True, 10)
    before = replace(first_snapshot(), restore_points=(point,))
    board = StateBoard(EPOCH, before)
    snapshot = state_service_pb2.WatchStateResponse.FromString(board.opening_bytes()).snapshot
    assert [(found.checkpoint_id, found.in_memory) for found in snapshot.restore_points] == [("c", True)]
    assert [(found.timeline, found.parent) for found in snapshot.timelines] == [(1, 0)]
    subscription = board.feed.subscribe()
    timelines = (*before.timelines, TimelineView(2, 1, 50, "c-1"))
    board.publish(later(before, restore_points=(), timelines=timelines))
    delivery = subscription.take()
    assert delivery is not None
    delta = state_service_pb2.WatchStateResponse.FromString(board.delivery_bytes(delivery)).delta
    assert (delta.restore_points_changed, list(delta.restore_points), delta.timelines_changed) == (True, [], True)
    assert [(found.timeline, found.fork_step, found.cause) for found in delta.timelines] == [(1, 0, ""), (2, 50, "c-1")]
