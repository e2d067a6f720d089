"""One subscriber of a feed: what waits for it, and how it is told that it fell behind.

Used on the event loop only, by one reader at a time. A backlog holds references to shared items, so its cost
is the deque's; the bytes it counts are those that it keeps alive.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, Protocol

from esperd.oona.feed_values import (
    Delivery,
    FeedClosed,
    FeedItem,
    ItemT,
    ResumeToken,
    Revision,
    SlowConsumer,
)


class Backlog(Protocol[ItemT]):
    """What waits for one subscriber."""

    def replay(self, change: Revision[ItemT]) -> None:
        """Add a change from the history, which does not count against the limits."""
        ...

    def add(self, change: Revision[ItemT]) -> bool:
        """Add a new change; False when the limits are passed."""
        ...

    def take(self, epoch: bytes) -> Delivery[ItemT] | None:
        """Remove and return what comes next, None when nothing waits."""
        ...

    def clear(self) -> None:
        """Forget everything that waits."""
        ...


class EveryBacklog(Generic[ItemT]):
    """Keeps every change, in order."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._replayed: deque[Revision[ItemT]] = deque()
        self._waiting: deque[Revision[ItemT]] = deque()
        self._num_items = 0
        self._num_bytes = 0

    def replay(self, change: Revision[ItemT]) -> None:
        """Add a change from the history."""
        self._replayed.append(change)

    def add(self, change: Revision[ItemT]) -> bool:
        """Add a new change; False when the limits are passed."""
        self._waiting.append(change)
        self._num_items += len(change.items)
        self._num_bytes += change.num_bytes
        return self._num_items <= self._max_items and self._num_bytes <= self._max_bytes

    def take(self, epoch: bytes) -> Delivery[ItemT] | None:
        """Remove and return what comes next, None when nothing waits."""
        if self._replayed:
            change = self._replayed.popleft()
        elif self._waiting:
            change = self._waiting.popleft()
            self._num_items -= len(change.items)
            self._num_bytes -= change.num_bytes
        else:
            return None
        return Delivery(ResumeToken(epoch, change.number), change.items)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._replayed.clear()
        self._waiting.clear()


class LatestBacklog(Generic[ItemT]):
    """Keeps the newest item of each key and counts the ones it replaced."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._newest: dict[str, FeedItem[ItemT]] = {}
        self._num_bytes = 0
        self._num_conflated = 0
        self._num_replayed = 0
        self._num_replayed_bytes = 0
        self._revision = 0

    def replay(self, change: Revision[ItemT]) -> None:
        """Add a change from the history; what it fills comes on top of the limits until it is taken."""
        self._put(change)
        self._num_replayed = len(self._newest)
        self._num_replayed_bytes = self._num_bytes

    def add(self, change: Revision[ItemT]) -> bool:
        """Add a new change; False when the limits are passed."""
        self._put(change)
        num_items, num_bytes = len(self._newest) - self._num_replayed, self._num_bytes - self._num_replayed_bytes
        return num_items <= self._max_items and num_bytes <= self._max_bytes

    def take(self, epoch: bytes) -> Delivery[ItemT] | None:
        """Remove and return what comes next, None when nothing waits."""
        if not self._newest:
            return None
        items = tuple(self._newest.values())
        delivery = Delivery(ResumeToken(epoch, self._revision), items, self._num_conflated)
        self.clear()
        return delivery

    def clear(self) -> None:
        """Forget everything that waits."""
        self._newest.clear()
        self._num_bytes = self._num_conflated = 0
        self._num_replayed = self._num_replayed_bytes = 0

    def _put(self, change: Revision[ItemT]) -> None:
        self._revision = change.number
        for item in change.items:
            # Taken out first, so that the dict stays in the order of the revisions.
            replaced = self._newest.pop(item.key, None)
            if replaced is not None:
                self._num_conflated += 1
                self._num_bytes -= len(replaced.data)
            self._newest[item.key] = item
            self._num_bytes += len(item.data)


class Subscription(Generic[ItemT]):
    """An async iterator of deliveries; leave it with `close()` or as a context manager.

    From the feed's side it ends with `SlowConsumer` or `FeedClosed`, never by running dry.
    """

    def __init__(
        self,
        start: ResumeToken,
        backlog: Backlog[ItemT],
        accepts: Callable[[FeedItem[ItemT]], bool] | None,
        forget: "Callable[[Subscription[ItemT]], None]",
    ) -> None:
        self._token = start
        self._backlog = backlog
        self._accepts = accepts
        self._forget = forget
        self._bookmark_revision: int | None = None
        self._too_slow = False
        self._left = False
        self._end_reason: str | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def token(self) -> ResumeToken:
        """The last place delivered; resuming from it neither misses nor repeats a change."""
        return self._token

    def __enter__(self) -> "Subscription[ItemT]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> "Subscription[ItemT]":
        return self

    async def __anext__(self) -> Delivery[ItemT]:
        """Wait for the next delivery.

        Raises:
            SlowConsumer: more waited than the limits allow.
            FeedClosed: the feed was closed and everything that waited has been delivered.
        """
        while not self._left:
            delivery = self.take()
            if delivery is not None:
                return delivery
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        raise StopAsyncIteration

    def take(self) -> Delivery[ItemT] | None:
        """The next delivery if one waits, else None; raises as `__anext__` does."""
        if self._too_slow:
            raise SlowConsumer(self._token)
        delivery = self._backlog.take(self._token.epoch) or self._take_bookmark()
        if delivery is not None:
            self._token = delivery.token
            return delivery
        if self._end_reason is not None:
            raise FeedClosed(self._end_reason, self._token)
        return None

    def close(self) -> None:
        """Stop following the feed and forget what waits; a reader that waits stops iterating."""
        self._left = True
        self._forget(self)
        self._backlog.clear()
        self._wake_reader()

    def replay(self, changes: Iterable[Revision[ItemT]], revision: int) -> None:
        """Take over the part of the history that the subscriber resumes with, which ends at `revision`."""
        for change in changes:
            accepted = self._accepted(change)
            if accepted.items:
                self._backlog.replay(accepted)
        if revision > self._token.revision:
            self.offer_bookmark(revision)

    def offer(self, change: Revision[ItemT]) -> None:
        """Let one revision wait for the subscriber."""
        accepted = self._accepted(change)
        if not accepted.items:
            return
        self._bookmark_revision = None
        if not self._backlog.add(accepted):
            self._too_slow = True
            self._forget(self)
            self._backlog.clear()
        self._wake_reader()

    def offer_bookmark(self, revision: int) -> None:
        """Let a bookmark wait for the subscriber, behind what waits already."""
        self._bookmark_revision = revision
        self._wake_reader()

    def end(self, reason: str) -> None:
        """End the subscription once what waits has been read."""
        self._end_reason = reason
        self._forget(self)
        self._wake_reader()

    def _accepted(self, change: Revision[ItemT]) -> Revision[ItemT]:
        if self._accepts is None:
            return change
        kept = tuple(item for item in change.items if self._accepts(item))
        return change if len(kept) == len(change.items) else Revision(change.number, kept)

    def _take_bookmark(self) -> Delivery[ItemT] | None:
        revision, self._bookmark_revision = self._bookmark_revision, None
        if revision is None:
            return None
        return Delivery(ResumeToken(self._token.epoch, revision), ())

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
