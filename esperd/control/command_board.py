"""Commands from acceptance to outcome: who waits for one, and who watches them all.

Event loop only. Keeps the records of commands that have no durable outcome yet; everything older is in the journal.
A change is serialised once and the same bytes go to every watcher.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from esperd.control.command_messages import change_bytes, watch_bytes
from esperd.control.streams import SharedBytes
from esperd.leyline.commands import Outcome
from esperd.oona.feed import Feed
from esperd.oona.feed_values import Delivery, FeedItem, ResumeToken
from esperd.oona.records import CommandRecord, Settlement, as_settled

MAX_WAITING = 16_384
"""Changes of commands that may wait for one reader: 64 full batches."""
MAX_REMEMBERED = 65_536
"""Changes of commands from which a reader can resume; fewer when they are large."""


def feed_epoch(epoch: bytes, name: str) -> bytes:
    """An epoch for one feed of this start, so that the token of one feed means nothing to another."""
    return hashlib.sha256(epoch + name.encode()).digest()[:16]


class CommandBoard:
    """The commands in flight, and the feed of all changes."""

    def __init__(self, epoch: bytes) -> None:
        self._shared = SharedBytes(_delivery)
        self.max_waiting = MAX_WAITING
        self.feed: Feed[None] = Feed(feed_epoch(epoch, "commands"), max_items=MAX_REMEMBERED)
        self._open: dict[str, CommandRecord] = {}
        self._open_seeds: Counter[int] = Counter()
        self._acknowledgements: dict[str, asyncio.Future[Outcome]] = {}
        self._settlements: dict[str, list[asyncio.Future[CommandRecord]]] = {}
        self._listeners: list[Callable[[CommandRecord], None]] = []

    @property
    def num_open(self) -> int:
        """Commands without a durable outcome."""
        return len(self._open)

    def listen(self, listener: Callable[[CommandRecord], None]) -> None:
        """Have `listener` called with every command that got its durable outcome."""
        self._listeners.append(listener)

    def opening_bytes(self) -> bytes:
        """A bookmark: from here on nothing will be missed."""
        return watch_bytes((), self.feed.token)

    def delivery_bytes(self, delivery: Delivery[None]) -> bytes:
        """A serialised WatchCommandsResponse with the commands that changed, or a bookmark."""
        return self._shared.of(delivery)

    def draining_bytes(self, token: ResumeToken) -> bytes:
        """The last message of a watch when the daemon drains."""
        return watch_bytes((), token, draining=True)

    def is_seed_busy(self, seed_id: int) -> bool:
        """Whether a command about this seed is in flight."""
        return seed_id in self._open_seeds

    def is_open(self, command_id: str) -> bool:
        """Whether the command has no durable outcome yet."""
        return command_id in self._open

    def reopen(self, records: Sequence[CommandRecord]) -> None:
        """Commands of an earlier start that have no outcome; before anybody watches."""
        self._keep_open(records)

    def accepted(self, records: Sequence[CommandRecord]) -> None:
        """Commands are durable; before they are handed to the trainer."""
        self._keep_open(records)
        self._publish(records)

    def settled(self, settlements: Sequence[Settlement], now_unix_s: float) -> None:
        """Outcomes are durable."""
        done = [
            as_settled(record, found.outcome, now_unix_s, found.journal_revision)
            for found in settlements
            if (record := self._close(found.outcome.command_id)) is not None
        ]
        self._publish(done)
        for record in done:
            for waiting in self._settlements.pop(record.command_id, ()):
                if not waiting.done():
                    waiting.set_result(record)
            for listener in self._listeners:
                listener(record)

    def acknowledged(self, outcome: Outcome) -> None:
        """The trainer has answered; its answer is not durable yet."""
        waiting = self._acknowledgements.pop(outcome.command_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def expect_acknowledgement(self, command_id: str) -> asyncio.Future[Outcome]:
        """A future of the trainer's answer to a command that was handed over in this turn of the loop, or is open."""
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._acknowledgements[command_id] = waiting
        return waiting

    async def wait_settled(self, command_id: str, timeout_s: float) -> CommandRecord | None:
        """Wait for the durable outcome of a command in flight; None when the time is over first."""
        waiting: asyncio.Future[CommandRecord] = asyncio.get_running_loop().create_future()
        self._settlements.setdefault(command_id, []).append(waiting)
        try:
            await asyncio.wait([waiting], timeout=timeout_s)
            return waiting.result() if waiting.done() and not waiting.cancelled() else None
        finally:
            self._forget(command_id, waiting)

    def end_waits(self) -> None:
        """End every wait now, for an outcome or for the trainer's answer: the daemon drains."""
        for futures in self._settlements.values():
            for waiting in futures:
                waiting.cancel()
        for acknowledgement in self._acknowledgements.values():
            acknowledgement.cancel()

    def _keep_open(self, records: Sequence[CommandRecord]) -> None:
        for record in records:
            self._open[record.command_id] = record
            if record.seed_id:
                self._open_seeds[record.seed_id] += 1

    def _close(self, command_id: str) -> CommandRecord | None:
        record = self._open.pop(command_id, None)
        if record is not None and record.seed_id:
            self._open_seeds[record.seed_id] -= 1
            if not self._open_seeds[record.seed_id]:
                del self._open_seeds[record.seed_id]
        return record

    def _forget(self, command_id: str, waiting: "asyncio.Future[CommandRecord]") -> None:
        others = self._settlements.get(command_id)
        if others is not None and waiting in others:
            others.remove(waiting)
            if not others:
                del self._settlements[command_id]

    def _publish(self, records: Sequence[CommandRecord]) -> None:
        if not records:
            return
        revision = self.feed.token.revision + 1
        if not self.feed.is_known:  # a quarter of what a command costs would be spent on watchers that never came
            self.feed.skip(revision)
            return
        items = [FeedItem(revision, record.command_id, change_bytes(record), None) for record in records]
        self.feed.publish(revision, items)


def _delivery(delivery: Delivery[None]) -> bytes:
    changes = (item.data for item in delivery.items)
    return watch_bytes(changes, delivery.token, num_conflated=delivery.num_conflated)
