"""A proxy between a client and a daemon's socket, which cuts every connection when it is told to.

One event loop. It knows nothing of what it carries.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

_CHUNK_BYTES = 64 * 1024


class Proxy:
    """The open connections."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.num_accepted = 0

    def cut(self) -> None:
        """Break every connection, without a word to either side."""
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        self.num_accepted += 1
        try:
            behind_reader, behind_writer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.transport.abort()
            return
        both = {writer, behind_writer}
        self._writers |= both
        try:
            await asyncio.gather(_carry(reader, behind_writer), _carry(behind_reader, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy(listen: Path, target: Path) -> AsyncIterator[Proxy]:
    """A proxy that listens at one socket and carries to the other."""
    carrier = Proxy(target)
    server = await asyncio.start_unix_server(carrier.accept, str(listen))
    try:
        yield carrier
    finally:
        server.close()
        carrier.cut()
        await server.wait_closed()
