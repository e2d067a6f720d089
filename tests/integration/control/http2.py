"""Just enough of HTTP/2 to be a badly behaved client: raw frames over a socket (RFC 9113)."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
ENHANCE_YOUR_CALM = 11


_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the server."""

    kind: int
    flags: int
    payload: bytes

    @property
    def settings(self) -> dict[int, int]:
        """The content of a SETTINGS frame."""
        return dict(struct.unpack(">HI", self.payload[at : at + 6]) for at in range(0, len(self.payload), 6))

    @property
    def error(self) -> tuple[int, str]:
        """Code and words of a GOAWAY frame."""
        return int.from_bytes(self.payload[4:8], "big"), self.payload[8:].decode()


class RawConnection:
    """One connection, after the client's preface."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        """Write a frame."""
        self._writer.write(
            struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
        )

    def ping(self, number: int) -> None:
        """Write a PING."""
        self.send(PING, struct.pack(">Q", number))

    def call_without_reading(self, method: str) -> None:
        """Open a stream with an empty request on it, and leave no room for a single byte of the answer."""
        self.send(SETTINGS, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0))
        fields = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "x"))
        block = b"".join(
            _field(*field) for field in (*fields, ("te", "trailers"), ("content-type", "application/grpc"))
        )
        self.send(_HEADERS, block, _END_HEADERS, stream=1)
        self.send(_DATA, bytes(5), _END_STREAM, stream=1)

    async def receive(self) -> Frame | None:
        """The next frame; None when the server has closed the connection."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(head[3], head[4], payload)

    async def until(self, kind: int, flags: int = 0) -> Frame | None:
        """The next frame of a kind, or None at the end; SETTINGS are acknowledged on the way."""
        while (frame := await self.receive()) is not None:
            if frame.kind == SETTINGS and not frame.flags:
                self.send(SETTINGS, flags=ACK)
            if (frame.kind, frame.flags) == (kind, flags):
                return frame
        return None


def _field(name: str, value: str) -> bytes:
    """A header in the plainest way that HPACK has: a literal that is not indexed."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


@contextlib.asynccontextmanager
async def raw_connection(place: int | Path, *, greets: bool = True) -> AsyncIterator[RawConnection]:
    """Connect to a port of this machine or a socket; unless it `greets`, the client says nothing at all."""
    if isinstance(place, int):
        reader, writer = await asyncio.open_connection("127.0.0.1", place)
    else:
        reader, writer = await asyncio.open_unix_connection(place)
    connection = RawConnection(reader, writer)
    if greets:
        writer.write(PREFACE)
        connection.send(SETTINGS)
    try:
        yield connection
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
