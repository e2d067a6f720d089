"""One call from outside, as its handler sees it, and what a handler is.

Event loop only. Handlers get parsed messages and raise errors of the catalogue; bytes and gRPC contexts stay in
`entrance.py`.
"""

import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from esperd.control.connections import OpenStream
from esperd.leyline.peers import is_unix
from esperd.leyline.verify import Verified


class Shape(enum.Enum):
    """How many messages go which way."""

    UNARY = "one request, one answer"
    STREAM = "one request, many answers"
    UPLOAD = "many messages, one answer"
    SESSION = "messages both ways"


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and what was proven about it."""

    method: str
    peer: str
    verified: Verified | None = None
    """Set for a unary method that is signed; messages of an upload or a session are verified one by one."""
    stream: OpenStream | None = None
    """Set for streams, uploads and sessions."""

    @property
    def is_unix(self) -> bool:
        """Whether it came over a Unix socket."""
        return is_unix(self.peer)

    @property
    def signer(self) -> Verified:
        """The proven caller of a signed method."""
        assert self.verified is not None  # the entrance verifies before it calls
        return self.verified


Send = Callable[[bytes], Awaitable[None]]
"""Writes one serialised message to the caller."""
Receive = Callable[[], Awaitable[Any]]
"""Waits for the caller's next message, parsed; None at the end of its stream."""

UnaryHandler = Callable[[Call, Any], Awaitable[Message]]
StreamHandler = Callable[[Call, Any, Send], Awaitable[None]]
UploadHandler = Callable[[Call, Receive], Awaitable[Message]]
SessionHandler = Callable[[Call, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and what serves it."""

    method: str
    """The full name, `/esper.leyline.v1.StateService/GetSeed`."""
    shape: Shape
    request: type[Message]
    handler: UnaryHandler | StreamHandler | UploadHandler | SessionHandler


class Service(Protocol):
    """Something that serves methods."""

    def routes(self) -> Iterable[Route]:
        """What it serves."""
