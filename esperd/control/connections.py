"""Who is connected: every open stream, who signed on it, and every peer that has called of late.

Event loop only. A stream is ended from outside by cancelling its task with the error that its caller is to read. Knows
nothing of what a stream carries.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from esperd.leyline.errors import EsperdError
from esperd.leyline.peers import is_unix

MAX_PEERS = 256
"""Peers that are remembered; those that have been silent for longest are forgotten first."""
SESSIONS_SHARE = 0.25
"""Part of the streams that is kept for signed sessions: readers, who prove nothing, do not keep a policy out."""


@dataclass(slots=True, eq=False)
class OpenStream:
    """One stream that is open."""

    number: int
    method: str
    peer: str
    opened_unix_s: float
    task: "asyncio.Task[object]"
    is_signed: bool = False
    """Whether its messages are signed."""
    principal: str = ""
    """Who has signed on it; empty while nobody has."""
    key_id: str = ""
    num_sent: int = 0
    num_received: int = 0
    refusal: EsperdError | None = None
    """Why it was ended from outside."""

    def end(self, refusal: EsperdError) -> None:
        """End it: its caller reads the refusal."""
        if self.refusal is None:
            self.refusal = refusal
            self.task.cancel()


@dataclass(slots=True)
class Peer:
    """One peer, by the transport's name for it."""

    name: str
    num_calls: int = 0
    last_call_unix_s: float = 0.0


@dataclass(slots=True)
class KeyUse:
    """What one key has done in this start of the daemon."""

    num_requests: int = 0
    last_used_unix_s: float = 0.0


@dataclass(slots=True)
class Connections:
    """The open streams, the peers and the use of keys."""

    clock: Callable[[], float]
    """Gives Unix seconds."""
    max_streams: int
    """A reload may change it; streams that are open stay."""
    _streams: dict[int, OpenStream] = field(default_factory=dict)
    _peers: OrderedDict[str, Peer] = field(default_factory=OrderedDict)
    _uses: dict[str, KeyUse] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def num_streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    @property
    def streams(self) -> tuple[OpenStream, ...]:
        """Open streams, oldest first."""
        return tuple(self._streams.values())

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Peers, those that called last first."""
        return tuple(reversed(self._peers.values()))

    def use_of(self, key_id: str) -> KeyUse:
        """What a key has done; nothing so far for one that was never used."""
        return self._uses.get(key_id, KeyUse())

    def note_call(self, peer: str) -> None:
        """A call has come."""
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = Peer(peer)
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(peer)
        known.num_calls += 1
        known.last_call_unix_s = self.clock()

    def note_signer(self, key_id: str, principal: str, stream: OpenStream | None) -> None:
        """A genuine request has come, on a stream or by itself. Only ids of the key ring arrive here."""
        use = self._uses.setdefault(key_id, KeyUse())
        use.num_requests += 1
        use.last_used_unix_s = self.clock()
        if stream is not None:
            stream.principal, stream.key_id = principal, key_id

    @contextmanager
    def open_stream(self, method: str, peer: str, *, is_signed: bool = False) -> Iterator[OpenStream]:
        """One of the bounded number of open streams. Raises EsperdError TOO_MANY_STREAMS."""
        self._make_room(is_signed)
        task = asyncio.current_task()
        assert task is not None  # a handler runs in a task
        stream = OpenStream(next(self._numbers), method, peer, self.clock(), task, is_signed)
        self._streams[stream.number] = stream
        try:
            yield stream
        except asyncio.CancelledError:
            if stream.refusal is None:
                raise
            # Not the caller who left: the daemon ended it, and says why. The task goes on, to answer.
            task.uncancel()
            raise stream.refusal from None
        finally:
            del self._streams[stream.number]

    def _make_room(self, is_signed: bool) -> None:
        """See that one more may be opened; when all are taken, a session on which nobody has signed yet gives way."""
        if not is_signed:
            num_readers = sum(not stream.is_signed for stream in self._streams.values())
            if num_readers >= self.max_streams - int(self.max_streams * SESSIONS_SHARE):
                raise self._too_many()
        if len(self._streams) < self.max_streams:
            return
        unproven = (one for one in self.streams if one.is_signed and not one.principal and one.refusal is None)
        oldest = next(unproven, None) if is_signed else None
        if oldest is None:
            raise self._too_many()
        oldest.end(self._too_many())

    def _too_many(self) -> EsperdError:
        return EsperdError("TOO_MANY_STREAMS", limit=self.max_streams)

    def end_streams(self, refusal_of: Callable[[OpenStream], EsperdError | None]) -> int:
        """End the streams for which there is a refusal; over TCP, all others of the same connection too.

        Over TCP a peer's name is one connection's; over a Unix socket all peers have the same one, so there only what
        a key has signed on is known to be its own. Returns how many were ended.
        """
        ended = {stream: refusal for stream in self.streams if (refusal := refusal_of(stream)) is not None}
        by_peer = {stream.peer: refusal for stream, refusal in ended.items() if not is_unix(stream.peer)}
        for stream in self.streams:
            refusal = ended.get(stream) or by_peer.get(stream.peer)
            if refusal is not None:
                ended[stream] = refusal
                stream.end(refusal)
        return len(ended)
