"""A feed: a revisioned log of changes that many subscribers follow, each at its own pace.

Used on the event loop only. It carries bytes that were serialised once and knows neither protobuf nor gRPC,
nor what the values mean. Its six promises are etcd's (etcd, "Watch guarantees"): a subscriber sees changes in
the order of their revisions (Ordered), each once (Unique), without a gap (Reliable), all changes of one
revision together (Atomic), may go on from a resume token (Resumable), and a bookmark tells it that nothing up
to a revision is missing (Bookmarkable). Nothing is dropped in silence: a subscriber that cannot keep up is
ended with the last revision delivered (EVERY), or gets the newest change of each key with a count (LATEST).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from esperd.oona.feed_values import (
    Compacted,
    FeedItem,
    FeedPolicy,
    ItemT,
    ResumeToken,
    Revision,
    TokenInvalid,
)
from esperd.oona.subscription import Backlog, EveryBacklog, LatestBacklog, Subscription


class Feed(Generic[ItemT]):
    """A bounded history of changes, and its subscribers."""

    def __init__(
        self, epoch: bytes, revision: int = 0, max_items: int = 16_384, max_bytes: int = 32 * 1024 * 1024
    ) -> None:
        """Start a feed whose newest revision is `revision` and whose history is empty.

        Args:
            epoch: 16 bytes that tell this life of the feed from every other.
            revision: the revision before the first one that will be published.
            max_items: history kept for resuming, in items.
            max_bytes: history kept for resuming, in bytes of item data.
        """
        self._epoch = epoch
        self._revision = revision
        self._floor = revision
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._history: deque[Revision[ItemT]] = deque()
        self._num_items = 0
        self._num_bytes = 0
        self._subscriptions: dict[Subscription[ItemT], None] = {}
        self._close_reason: str | None = None
        self.is_known = False
        """Whether anybody has ever subscribed. Before that no token exists, so that changes may be skipped."""

    @property
    def token(self) -> ResumeToken:
        """Where the feed stands: a subscriber that knows the state at this token misses nothing after it."""
        return ResumeToken(self._epoch, self._revision)

    @property
    def floor(self) -> ResumeToken:
        """The oldest token that can still be resumed from."""
        return ResumeToken(self._epoch, self._floor)

    @property
    def num_subscriptions(self) -> int:
        """Subscribers that have neither left nor been ended."""
        return len(self._subscriptions)

    def publish(self, revision: int, items: Sequence[FeedItem[ItemT]]) -> None:
        """Add all changes of one revision; they reach each subscriber together.

        Raises:
            ValueError: the revision is not larger than the newest one, or an item carries another revision.
        """
        if revision <= self._revision:
            raise ValueError(f"revision {revision} does not follow revision {self._revision}")
        if any(item.revision != revision for item in items):
            raise ValueError(f"an item of another revision was published with revision {revision}")
        self._revision = revision
        change = Revision(revision, tuple(items))
        self._remember(change)
        for subscription in list(self._subscriptions):
            subscription.offer(change)

    def skip(self, revision: int) -> None:
        """Pass over a revision whose changes nobody can ask for, because nobody has ever subscribed.

        Raises:
            ValueError: the revision is not larger than the newest one, or somebody has subscribed.
        """
        if self.is_known or revision <= self._revision:
            raise ValueError(f"revision {revision} cannot be skipped after revision {self._revision}")
        self._revision = self._floor = revision

    def subscribe(
        self,
        since: ResumeToken | None = None,
        policy: FeedPolicy = FeedPolicy.EVERY,
        max_items: int = 1_024,
        max_bytes: int = 4 * 1024 * 1024,
        accepts: Callable[[FeedItem[ItemT]], bool] | None = None,
    ) -> Subscription[ItemT]:
        """Follow the feed from a token, or from now.

        What the history replays after `since` does not count against the limits; it is bounded already.

        Args:
            since: deliver everything after this token; None means everything from now on.
            policy: what to do when the subscriber does not keep up.
            max_items: changes that may wait for the subscriber (LATEST: different keys).
            max_bytes: bytes of item data that may wait for the subscriber.
            accepts: deliver only the items for which it holds; None means all.

        Raises:
            Compacted: the history no longer reaches back to `since`, or it is of another epoch.
            TokenInvalid: `since` lies in the future of this feed.
        """
        self.is_known = True
        start = self.token if since is None else self._checked(since)
        replay = [change for change in self._history if change.number > start.revision]
        backlog: Backlog[ItemT] = (
            EveryBacklog(max_items, max_bytes) if policy is FeedPolicy.EVERY else LatestBacklog(max_items, max_bytes)
        )
        subscription = Subscription(start, backlog, accepts, self._forget)
        subscription.replay(replay, self._revision)
        self._subscriptions[subscription] = None
        if self._close_reason is not None:
            subscription.end(self._close_reason)
        return subscription

    def close(self, reason: str) -> None:
        """End every subscription, and each later one, once it has read what waits for it (drain).

        Each ends with `FeedClosed`, which carries the reason and the token to resume from.
        """
        self._close_reason = reason
        for subscription in list(self._subscriptions):
            subscription.end(reason)

    def _checked(self, since: ResumeToken) -> ResumeToken:
        if since.epoch != self._epoch or since.revision < self._floor:
            raise Compacted(self.floor)
        if since.revision > self._revision:
            raise TokenInvalid
        return since

    def _remember(self, change: Revision[ItemT]) -> None:
        self._history.append(change)
        self._num_items += len(change.items)
        self._num_bytes += change.num_bytes
        while self._history and (self._num_items > self._max_items or self._num_bytes > self._max_bytes):
            oldest = self._history.popleft()
            self._floor = oldest.number
            self._num_items -= len(oldest.items)
            self._num_bytes -= oldest.num_bytes

    def _forget(self, subscription: Subscription[ItemT]) -> None:
        self._subscriptions.pop(subscription, None)
