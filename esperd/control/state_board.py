"""The state that watchers see: the newest snapshot, and the feed of what changed from revision to revision.

Event loop only. Each change is serialised once; a delta is its changes' bytes put one after the other, which protobuf
reads as one message. So EVERY and LATEST watchers share the same bytes.
"""

from collections.abc import Iterable

from esper.leyline.v1 import state_service_pb2

from esperd.control import shown
from esperd.control.command_board import feed_epoch
from esperd.control.deltas import (
    BreakerChanged,
    Change,
    EmergenciesChanged,
    OptimizersChanged,
    RestorePointsChanged,
    RunChanged,
    SeedChanged,
    SeedGone,
    SiteChanged,
    TimelinesChanged,
    changes,
)
from esperd.control.streams import SharedBytes
from esperd.control.wire_bytes import submessage
from esperd.leyline.views import Snapshot
from esperd.oona.feed import Feed
from esperd.oona.feed_values import Delivery, FeedItem, ResumeToken

MAX_WAITING = 1024
"""Changes that may wait for one reader: minutes of a run."""


class StateBoard:
    """The newest snapshot as bytes, and the feed that continues it."""

    def __init__(self, epoch: bytes, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._snapshot_bytes: bytes | None = None
        self._shared = SharedBytes(_delivery)
        self.max_waiting = MAX_WAITING
        self.feed: Feed[None] = Feed(feed_epoch(epoch, "state"), snapshot.revision)

    def publish(self, snapshot: Snapshot) -> None:
        """Take in the next revision; one that watchers know already is passed over."""
        revision = snapshot.revision
        if revision <= self._snapshot.revision:
            return
        before, self._snapshot, self._snapshot_bytes = self._snapshot, snapshot, None
        if not self.feed.is_known:
            self.feed.skip(revision)
            return
        found = changes(before, snapshot)
        items = [FeedItem(revision, key, _delta(change, snapshot).SerializeToString(), None) for key, change in found]
        self.feed.publish(revision, items)

    def opening_bytes(self) -> bytes:
        """A serialised WatchStateResponse with everything, at the feed's revision."""
        if self._snapshot_bytes is None:
            message = state_service_pb2.WatchStateResponse(
                revision=self._snapshot.revision,
                resume_token=self.feed.token.encode(),
                snapshot=shown.snapshot_message(self._snapshot),
            )
            self._snapshot_bytes = message.SerializeToString()
        return self._snapshot_bytes

    def delivery_bytes(self, delivery: Delivery[None]) -> bytes:
        """A serialised WatchStateResponse with a delta, or a bookmark; the same object for the same changes."""
        return self._shared.of(delivery)

    def draining_bytes(self, token: ResumeToken) -> bytes:
        """The last message of a watch when the daemon drains."""
        return _head(token, draining=True)


def _delivery(delivery: Delivery[None]) -> bytes:
    return _head(delivery.token, num_conflated=delivery.num_conflated) + _delta_field(delivery.items)


def _head(token: ResumeToken, *, num_conflated: int = 0, draining: bool = False) -> bytes:
    message = state_service_pb2.WatchStateResponse(
        revision=token.revision, resume_token=token.encode(), num_conflated=num_conflated, draining=draining
    )
    return message.SerializeToString()


def _delta_field(items: Iterable[FeedItem[None]]) -> bytes:
    body = b"".join(item.data for item in items)
    return submessage(state_service_pb2.WatchStateResponse.DELTA_FIELD_NUMBER, body) if body else b""


def _delta(change: Change, snapshot: Snapshot) -> state_service_pb2.StateDelta:
    match change:
        case RunChanged(view):
            return state_service_pb2.StateDelta(run=shown.run(view))
        case SeedChanged(view):
            return state_service_pb2.StateDelta(seeds=shown.seeds([view], snapshot))
        case SeedGone(seed_id):
            return state_service_pb2.StateDelta(removed_seed_ids=[str(seed_id)])
        case SiteChanged(view):
            return state_service_pb2.StateDelta(sites=[shown.site(view)])
        case OptimizersChanged(views):
            groups = [shown.optimizer(view) for view in views]
            return state_service_pb2.StateDelta(optimizers=groups, optimizers_changed=True)
        case EmergenciesChanged(views):
            raised = [shown.emergency(view) for view in views]
            return state_service_pb2.StateDelta(emergencies=raised, emergencies_changed=True)
        case BreakerChanged(view):
            return state_service_pb2.StateDelta(breakers=[shown.breaker(view)])
        case RestorePointsChanged(views):
            points = [shown.restore_point(view) for view in views]
            return state_service_pb2.StateDelta(restore_points=points, restore_points_changed=True)
        case TimelinesChanged(views):
            branches = [shown.timeline(view) for view in views]
            return state_service_pb2.StateDelta(timelines=branches, timelines_changed=True)
