"""The feed's six promises, by name, and what happens to those who cannot keep up."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esperd.oona.feed import Feed
from esperd.oona.feed_values import (
    Compacted,
    Delivery,
    FeedClosed,
    FeedItem,
    FeedPolicy,
    ResumeToken,
    SlowConsumer,
    TokenInvalid,
)
from esperd.oona.subscription import Subscription

EPOCH = bytes(range(16))


def item(revision: int, key: str = "seed:1", data: bytes = b"data") -> FeedItem[str]:
    return FeedItem(revision, key, data, f"{key}@{revision}")


def feed_of(num_revisions: int, **limits: int) -> Feed[str]:
    feed: Feed[str] = Feed(EPOCH, **limits)
    for revision in range(1, num_revisions + 1):
        feed.publish(revision, [item(revision)])
    return feed


def drain(subscription: Subscription[str]) -> list[Delivery[str]]:
    taken = []
    while (delivery := subscription.take()) is not None:
        taken.append(delivery)
    return taken


def changes(deliveries: list[Delivery[str]]) -> list[int]:
    return [delivery.token.revision for delivery in deliveries if delivery.items]


def at(revision: int) -> ResumeToken:
    return ResumeToken(EPOCH, revision)


class TestPromises:
    """etcd's six watch guarantees."""

    def test_ordered(self) -> None:
        """Changes come in the order of their revisions, replayed and new ones alike."""
        feed = feed_of(3)
        subscription = feed.subscribe(since=at(0))
        feed.publish(7, [item(7)])
        feed.publish(9, [item(9)])
        assert changes(drain(subscription)) == [1, 2, 3, 7, 9]

    def test_unique(self) -> None:
        """No change comes twice, also not to one who resumes from what it saw last."""
        feed = feed_of(3)
        with feed.subscribe(since=at(0)) as first:
            seen = [first.take(), first.take()]
        second = feed.subscribe(since=first.token)
        numbers = [delivery.token.revision for delivery in seen if delivery] + changes(drain(second))
        assert numbers == [1, 2, 3]

    def test_reliable(self) -> None:
        """Between the token and the newest revision nothing is left out, whatever the pace of reading."""
        feed = feed_of(0)
        subscription = feed.subscribe()
        seen: list[int] = []
        for revision in range(1, 200):
            feed.publish(revision, [item(revision)])
            if revision % 7 == 0:
                seen += changes(drain(subscription))
        assert seen + changes(drain(subscription)) == list(range(1, 200))

    def test_atomic(self) -> None:
        """All changes of one revision come in one delivery."""
        feed = feed_of(0)
        live = feed.subscribe()
        latest = feed.subscribe(policy=FeedPolicy.LATEST)
        feed.publish(1, [item(1, "seed:1"), item(1, "seed:2"), item(1, "run")])
        for subscription in (live, latest, feed.subscribe(since=at(0))):
            delivery = subscription.take()
            assert delivery is not None
            assert [change.key for change in delivery.items] == ["seed:1", "seed:2", "run"]

    def test_resumable(self) -> None:
        """Every token that a delivery carried can be resumed from, through its bytes."""
        feed = feed_of(5)
        for delivery in drain(feed.subscribe(since=at(0))):
            token = ResumeToken.decode(delivery.token.encode())
            rest = drain(feed.subscribe(since=token))
            assert changes(rest) == list(range(token.revision + 1, 6))

    def test_bookmarkable(self) -> None:
        """A bookmark comes after everything up to its revision, and moves on one who saw none of the changes."""
        feed = feed_of(0)
        everything = feed.subscribe()
        other_seed = feed.subscribe(accepts=lambda change: change.key == "seed:2")
        feed.publish(1, [item(1)])
        feed.publish(2, [item(2)])
        for subscription in (everything, other_seed):
            subscription.offer_bookmark(feed.token.revision)
        assert [(one.token.revision, len(one.items)) for one in drain(everything)] == [(1, 1), (2, 1), (2, 0)]
        assert [(one.token.revision, len(one.items)) for one in drain(other_seed)] == [(2, 0)]
        assert other_seed.token == at(2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["publish", "read", "resume", "bookmark"]), max_size=60), st.booleans())
def test_no_walk_breaks_a_promise(moves: list[str], odd_only: bool) -> None:
    """Whatever the order of publishing, reading, resuming and bookmarks: ordered, unique, reliable."""
    feed: Feed[str] = Feed(EPOCH)

    def accepts(change: FeedItem[str]) -> bool:
        return not odd_only or change.revision % 2 == 1

    subscription = feed.subscribe(accepts=accepts)
    seen: list[int] = []
    for move in moves:
        if move == "publish":
            feed.publish(feed.token.revision + 1, [item(feed.token.revision + 1)])
        elif move == "read":
            delivery = subscription.take()
            seen += changes([delivery] if delivery else [])
        elif move == "resume":
            subscription.close()
            subscription = feed.subscribe(since=subscription.token, accepts=accepts)
        else:
            subscription.offer_bookmark(feed.token.revision)
    seen += changes(drain(subscription))
    assert seen == [revision for revision in range(1, feed.token.revision + 1) if accepts(item(revision))]


def test_one_who_resumes_is_told_when_it_has_caught_up() -> None:
    """After the replay comes a bookmark with the newest revision, also if a filter let nothing through."""
    feed = feed_of(3)
    caught_up = drain(feed.subscribe(since=at(1)))[-1]
    assert (caught_up.items, caught_up.token) == ((), at(3))
    (only,) = drain(feed.subscribe(since=at(1), accepts=lambda _: False))
    assert (only.items, only.token) == ((), at(3))
    assert drain(feed.subscribe(since=at(3))) == []


def test_the_same_bytes_go_to_everybody() -> None:
    """A change is serialised once: every subscriber gets the same bytes object."""
    feed = feed_of(0)
    subscriptions = [feed.subscribe() for _ in range(3)] + [feed.subscribe(policy=FeedPolicy.LATEST)]
    data = b"serialised once"
    feed.publish(1, [item(1, data=data)])
    for subscription in subscriptions:
        delivery = subscription.take()
        assert delivery is not None
        assert delivery.items[0].data is data


def test_a_token_older_than_the_history_is_compacted() -> None:
    """Resuming from before the floor, or from another epoch, names the floor; from the floor it works."""
    feed = feed_of(10, max_items=4)
    assert feed.floor == at(6)
    for token in (at(5), ResumeToken(bytes(16), 8)):
        with pytest.raises(Compacted) as refusal:
            feed.subscribe(since=token)
        assert refusal.value.floor == at(6)
    assert changes(drain(feed.subscribe(since=at(6)))) == [7, 8, 9, 10]


def test_the_history_is_bounded_in_bytes_too() -> None:
    """Large changes push out old ones."""
    feed: Feed[str] = Feed(EPOCH, max_bytes=100)
    for revision in range(1, 6):
        feed.publish(revision, [item(revision, data=bytes(40))])
    assert feed.floor == at(3)


@pytest.mark.parametrize("data", [b"", b"x" * 23, b"x" * 25])
def test_a_broken_token_is_refused(data: bytes) -> None:
    """Bytes of another length than a token are no token."""
    with pytest.raises(TokenInvalid):
        ResumeToken.decode(data)


def test_a_token_from_the_future_is_refused() -> None:
    """A revision that has not happened cannot have been seen."""
    with pytest.raises(TokenInvalid):
        feed_of(3).subscribe(since=at(4))


def test_revisions_only_grow() -> None:
    """A revision that does not follow is an error of the publisher, and nothing is delivered."""
    feed = feed_of(3)
    subscription = feed.subscribe()
    with pytest.raises(ValueError, match="does not follow"):
        feed.publish(3, [item(3)])
    with pytest.raises(ValueError, match="another revision"):
        feed.publish(4, [item(5)])
    assert drain(subscription) == []


@pytest.mark.parametrize("limits", [{"max_items": 3}, {"max_bytes": 15}])
def test_every_ends_a_slow_consumer_with_the_last_revision_delivered(limits: Any) -> None:
    """More waiting than allowed, in items or in bytes, ends the stream; resuming misses and repeats nothing."""
    feed = feed_of(0)
    slow, quick = feed.subscribe(**limits), feed.subscribe(**limits)
    feed.publish(1, [item(1)])
    assert changes(drain(slow)) == [1]
    quick_saw = []
    for revision in range(2, 7):
        feed.publish(revision, [item(revision)])
        quick_saw += changes(drain(quick))
    with pytest.raises(SlowConsumer) as end:
        slow.take()
    assert end.value.last_delivered == at(1)
    assert feed.num_subscriptions == 1
    assert changes(drain(feed.subscribe(since=end.value.last_delivered))) == [2, 3, 4, 5, 6]
    assert quick_saw == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("policy", list(FeedPolicy))
def test_what_is_replayed_does_not_count_as_slowness(policy: FeedPolicy) -> None:
    """One who resumes far back gets the whole history, whatever its limits, and then its full allowance."""
    feed: Feed[str] = Feed(EPOCH)
    for revision in range(1, 51):
        feed.publish(revision, [item(revision, key=f"seed:{revision}")])
    subscription = feed.subscribe(since=at(0), policy=policy, max_items=2)
    feed.publish(51, [item(51, key="seed:51")])
    feed.publish(52, [item(52, key="seed:52")])
    taken = drain(subscription)
    assert [change.revision for one in taken for change in one.items] == list(range(1, 53))


def test_latest_keeps_the_newest_of_each_key_and_counts_the_others() -> None:
    """Nothing is dropped in silence: each replaced change is counted once."""
    feed = feed_of(0)
    subscription = feed.subscribe(policy=FeedPolicy.LATEST, max_items=2)
    for revision in range(1, 8):
        feed.publish(revision, [item(revision, key=f"seed:{revision % 2}")])
    (delivery,) = drain(subscription)
    assert [change.revision for change in delivery.items] == [6, 7]
    assert (delivery.token, delivery.num_conflated) == (at(7), 5)
    feed.publish(8, [item(8)])
    (delivery,) = drain(subscription)
    assert (delivery.token, delivery.num_conflated) == (at(8), 0)


@pytest.mark.parametrize("limits", [{"max_items": 3}, {"max_bytes": 15}])
def test_latest_is_bounded_by_its_keys(limits: Any) -> None:
    """More different keys, or bytes of them, than allowed end a LATEST stream as they end an EVERY stream."""
    feed = feed_of(0)
    subscription = feed.subscribe(policy=FeedPolicy.LATEST, **limits)
    for revision in range(1, 5):
        feed.publish(revision, [item(revision, key=f"seed:{revision}")])
    with pytest.raises(SlowConsumer) as end:
        subscription.take()
    assert end.value.last_delivered == at(0)


async def test_a_waiting_reader_is_woken() -> None:
    """A reader that waits gets the change that is published next."""
    feed = feed_of(0)
    with feed.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        feed.publish(1, [item(1)])
        assert (await waiting).token == at(1)


async def test_a_cancelled_reader_loses_nothing() -> None:
    """A reader that is cancelled while it waits can read on, without a gap."""
    feed = feed_of(0)
    subscription = feed.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    feed.publish(1, [item(1)])
    assert (await anext(subscription)).token == at(1)


async def test_drain_delivers_what_waits_and_then_ends_with_a_token() -> None:
    """Closing the feed ends every stream with the reason and a token, behind what is still to be read."""
    feed = feed_of(1)
    subscription = feed.subscribe()
    feed.publish(2, [item(2)])
    feed.close("draining")
    assert (await anext(subscription)).token == at(2)
    for late in (subscription, feed.subscribe()):
        with pytest.raises(FeedClosed, match="draining") as end:
            await anext(late)
        assert end.value.token == at(2)


async def test_drain_wakes_a_waiting_reader() -> None:
    """One who waits for a change hears of the close at once."""
    feed = feed_of(0)
    waiting = asyncio.ensure_future(anext(feed.subscribe()))
    await asyncio.sleep(0)
    feed.close("draining")
    with pytest.raises(FeedClosed):
        await waiting


async def test_one_who_left_gets_nothing_more() -> None:
    """Leaving forgets what waits, frees the place in the feed and ends the iteration."""
    feed = feed_of(0)
    with feed.subscribe() as subscription:
        feed.publish(1, [item(1)])
    assert feed.num_subscriptions == 0
    assert [delivery async for delivery in subscription] == []


def test_what_nobody_can_ask_for_is_skipped() -> None:
    """Before the first subscriber revisions pass without their changes; after it every one of them counts."""
    feed: Feed[None] = Feed(bytes(16))
    feed.skip(7)
    assert feed.token.revision == feed.floor.revision == 7
    feed.subscribe().close()
    with pytest.raises(ValueError, match="cannot be skipped"):
        feed.skip(8)
