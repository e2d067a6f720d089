"""What a feed carries and what it can answer: items, tokens, deliveries and the ways a subscription ends.

Frozen values and exceptions only; used on the event loop. Knows nothing of the values it carries.
"""

import enum
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from esperd.leyline.errors import EsperdError

ItemT = TypeVar("ItemT")

EPOCH_NUM_BYTES = 16
REVISION_NUM_BYTES = 8


class FeedPolicy(enum.Enum):
    """What a subscriber that falls behind gets."""

    EVERY = "every"
    """Every change, or an end with `SlowConsumer`."""
    LATEST = "latest"
    """The newest change of each key, with a count of those it replaced."""


class TokenInvalid(EsperdError):
    """The resume token was never given out by this feed."""

    def __init__(self) -> None:
        super().__init__("RESUME_TOKEN_INVALID")


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A place in a feed: the feed's epoch and the last revision seen."""

    epoch: bytes
    revision: int

    def encode(self) -> bytes:
        """The token as opaque bytes: the epoch, then the revision as a big-endian u64."""
        return self.epoch + self.revision.to_bytes(REVISION_NUM_BYTES, "big")

    @classmethod
    def decode(cls, data: bytes) -> "ResumeToken":
        """Read what `encode` wrote.

        Raises:
            TokenInvalid: the bytes have another length than a token.
        """
        if len(data) != EPOCH_NUM_BYTES + REVISION_NUM_BYTES:
            raise TokenInvalid
        return cls(data[:EPOCH_NUM_BYTES], int.from_bytes(data[EPOCH_NUM_BYTES:], "big"))


@dataclass(frozen=True, slots=True)
class FeedItem(Generic[ItemT]):
    """One change, serialised once; the same bytes object goes to every subscriber."""

    revision: int
    key: str
    """What it is about, e.g. `seed:3`; LATEST keeps the newest item of each key."""
    data: bytes
    value: ItemT


@dataclass(frozen=True, slots=True)
class Revision(Generic[ItemT]):
    """All changes of one revision."""

    number: int
    items: tuple[FeedItem[ItemT], ...]
    num_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bytes", sum(len(item.data) for item in self.items))


@dataclass(frozen=True, slots=True)
class Delivery(Generic[ItemT]):
    """What a subscriber gets at once: the items, and the token that covers everything up to and with them."""

    token: ResumeToken
    items: tuple[FeedItem[ItemT], ...]
    """In the order of their revisions; empty in a bookmark, which only says that nothing up to its token is missing."""
    num_conflated: int = 0
    """Changes that LATEST replaced by newer ones of their key since the last delivery."""


class Compacted(EsperdError):
    """The history does not reach back to the token; take a snapshot, or resume from `floor` or later."""

    def __init__(self, floor: ResumeToken) -> None:
        super().__init__("REVISION_COMPACTED", floor=floor.revision)
        self.floor = floor


class SlowConsumer(EsperdError):
    """The subscriber let more changes wait than its limits allow; it may resume from `last_delivered`."""

    def __init__(self, last_delivered: ResumeToken) -> None:
        super().__init__("SLOW_CONSUMER", revision=last_delivered.revision)
        self.last_delivered = last_delivered


class FeedClosed(Exception):
    """The feed ended the subscription, for instance while the daemon drains; resume from `token`."""

    def __init__(self, reason: str, token: ResumeToken) -> None:
        super().__init__(f"the feed was closed: {reason}")
        self.reason = reason
        self.token = token
