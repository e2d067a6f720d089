"""How a watch begins, goes on and ends: at a token or now, with bookmarks while it is quiet, resumable when it ends.

Event loop only. The same for everything that can be watched: it knows the feed and who puts its changes into bytes, but
neither what they mean nor gRPC.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from esper.leyline.v1 import command_service_pb2, state_service_pb2

from esperd.control.call import Send
from esperd.oona.feed import Feed
from esperd.oona.feed_values import Compacted, Delivery, FeedClosed, FeedItem, FeedPolicy, ResumeToken
from esperd.oona.subscription import Subscription

DEFAULT_BOOKMARK_S = 5


class Watched(Protocol):
    """Something that can be watched: a feed of changes, and what each message of a watch looks like."""

    feed: Feed[None]
    max_waiting: int
    """Changes that may wait for a reader of EVERY, or things of which one waits for a reader of LATEST."""

    def opening_bytes(self) -> bytes:
        """The first message of a watch that begins now, with the token of the feed as it stands."""

    def delivery_bytes(self, delivery: Delivery[None]) -> bytes:
        """Changes, or a bookmark."""

    def draining_bytes(self, token: ResumeToken) -> bytes:
        """The last message when the daemon drains."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a caller wants to watch."""

    since: ResumeToken | None
    """From where on; None begins now."""
    policy: FeedPolicy
    bookmark_every_s: float
    begins_anew: bool
    """Whether a token that is too old begins now, instead of failing."""


def read_wishes(
    request: state_service_pb2.WatchStateRequest | command_service_pb2.WatchCommandsRequest, *, begins_anew: bool
) -> Wishes:
    """What a request asks for. Raises TokenInvalid."""
    is_latest = request.delivery == state_service_pb2.DELIVERY_POLICY_LATEST
    return Wishes(
        since=ResumeToken.decode(request.resume_token) if request.resume_token else None,
        policy=FeedPolicy.LATEST if is_latest else FeedPolicy.EVERY,
        bookmark_every_s=request.bookmark_interval_s or DEFAULT_BOOKMARK_S,
        begins_anew=begins_anew,
    )


async def watch(board: Watched, wishes: Wishes, send: Send) -> None:
    """Serve one watch until its reader leaves or the daemon drains.

    Raises:
        Compacted: the history does not reach back to the token.
        TokenInvalid: the token lies in the future.
        SlowConsumer: more waited than may; the reader can resume.
    """
    subscribe = partial(board.feed.subscribe, policy=wishes.policy, max_items=board.max_waiting)
    since = wishes.since
    try:
        subscription = subscribe(since)
    except Compacted:
        if not wishes.begins_anew:
            raise
        since, subscription = None, subscribe(None)
    # Taken before the first await: it belongs to the revision at which the subscription begins.
    opening = board.opening_bytes() if since is None else None
    with subscription:
        if opening is not None:
            await send(opening)
        await _follow(board, subscription, wishes.bookmark_every_s, send)


async def _follow(board: Watched, subscription: Subscription[None], bookmark_every_s: float, send: Send) -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def remind() -> None:
        subscription.offer_bookmark(board.feed.token.revision)
        timers[:] = [loop.call_later(bookmark_every_s, remind)]

    timers.append(loop.call_later(bookmark_every_s, remind))
    try:
        async for delivery in subscription:
            await send(board.delivery_bytes(delivery))
    except FeedClosed as closed:
        await send(board.draining_bytes(closed.token))
    finally:
        timers[0].cancel()


class SharedBytes:
    """Deliveries as bytes: made once for all readers that get the same changes one after the other."""

    def __init__(self, write: Callable[[Delivery[None]], bytes]) -> None:
        self._write = write
        self._last: tuple[tuple[FeedItem[None], ...], bytes] | None = None

    def of(self, delivery: Delivery[None]) -> bytes:
        """The bytes of a delivery; the same object for the same changes."""
        is_shared = bool(delivery.items) and not delivery.num_conflated
        if is_shared and self._last is not None and self._last[0] is delivery.items:
            return self._last[1]
        data = self._write(delivery)
        if is_shared:
            self._last = (delivery.items, data)
        return data
