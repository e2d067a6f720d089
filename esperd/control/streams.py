"""How a fan-out stream goes on and ends: bookmarks while it is quiet, a last message when the daemon drains.

Event loop only. Knows the feed, but neither what it carries nor gRPC.
"""

import asyncio
from collections.abc import Awaitable, Callable

from esperd.oona.feed import Feed
from esperd.oona.feed_values import Delivery, FeedClosed, ResumeToken
from esperd.oona.subscription import Subscription


async def follow(
    feed: Feed[None],
    subscription: Subscription[None],
    *,
    bookmark_every_s: float,
    deliver: Callable[[Delivery[None]], Awaitable[None]],
    drained: Callable[[ResumeToken], Awaitable[None]],
) -> None:
    """Pass on every delivery until the reader leaves, falls behind, or the feed is closed.

    Args:
        feed: what is followed; says up to where a bookmark is true.
        subscription: this reader's place in it.
        bookmark_every_s: seconds between bookmarks.
        deliver: sends one delivery, or a bookmark.
        drained: sends the last message, with the token to resume from.

    Raises:
        SlowConsumer: more waited than may.
    """
    loop = asyncio.get_running_loop()

    timers: list[asyncio.TimerHandle] = []

    def remind() -> None:
        subscription.offer_bookmark(feed.token.revision)
        timers[:] = [loop.call_later(bookmark_every_s, remind)]

    timers.append(loop.call_later(bookmark_every_s, remind))
    try:
        async for delivery in subscription:
            await deliver(delivery)
    except FeedClosed as closed:
        await drained(closed.token)
    finally:
        timers[0].cancel()
        subscription.close()


def resume_token(data: bytes) -> ResumeToken | None:
    """A client's token, None when it sent none. Raises TokenInvalid."""
    return ResumeToken.decode(data) if data else None
