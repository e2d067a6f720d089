"""A proxy between clients and the daemon that disturbs their connections: late, cut, slow, half-closed, played again.

A thread of its own with an event loop; its methods may be called from any other thread. It passes on bytes and knows
nothing of what they mean. `unix:PATH` and `HOST:PORT` on both sides.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

_CHUNK_BYTES = 16 * 1024
_KEPT_BYTES = 1 << 20
"""Of what a client sent, how much is kept to be played again."""
_KEPT_CONNECTIONS = 8
_REPLAY_S = 0.5
"""How long a replayed connection is left to answer."""


class _Pair:
    """One connection of a client, and the one to the daemon that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, daemon: asyncio.StreamWriter) -> None:
        self.client = client
        self.daemon = daemon
        self.sent = bytearray()
        self.was_cut_short = False
        """Whether what is kept of its bytes is not all of them."""
        self._ended: list[asyncio.StreamWriter] = []

    def note(self, data: bytes) -> None:
        if len(self.sent) + len(data) > _KEPT_BYTES:
            self.was_cut_short = True
        if not self.was_cut_short:
            self.sent += data

    def cut(self) -> None:
        for writer in (self.client, self.daemon):
            writer.transport.abort()

    def takes(self, writer: asyncio.StreamWriter) -> bool:
        return writer not in self._ended and not writer.transport.is_closing()

    def end(self, writer: asyncio.StreamWriter) -> None:
        """Say on one side that there is no more to send; the other way stays open."""
        if self.takes(writer):
            self._ended.append(writer)
            with contextlib.suppress(OSError):
                writer.write_eof()


class FaultProxy:
    """A running proxy; `close` must be called."""

    def __init__(self, listen: str, daemon: str) -> None:
        """Listen at once; a daemon that is not there cuts each connection as it comes."""
        self._listen = listen
        self._daemon = daemon
        self.delay_s = 0.0
        """How late each chunk is passed on, in both directions."""
        self.bytes_per_s = 0
        """How many bytes pass in a second in each direction of a connection; 0 for no limit."""
        self.address = ""
        """Where it listens."""
        self._pairs: list[_Pair] = []
        self._past: deque[bytes] = deque(maxlen=_KEPT_CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._thread.start()
        self._call(self._start())

    def close(self) -> None:
        """Cut everything and end the thread."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Disturbances

    def cut(self) -> None:
        """Cut every connection, as a cable would be."""
        self._soon(lambda: self._each(_Pair.cut))

    def half_close(self, towards_daemon: bool) -> None:
        """Say on every connection that one side has no more to send, and go on passing what the other side sends."""
        self._soon(lambda: self._each(lambda pair: pair.end(pair.daemon if towards_daemon else pair.client)))

    def play_again(self) -> None:
        """Send the daemon once more, over new connections, what clients have sent it over earlier ones."""
        self._soon(self._play_again)

    def calm(self) -> None:
        """No delay and no limit."""
        self.delay_s, self.bytes_per_s = 0.0, 0

    # On the loop

    async def _start(self) -> None:
        if self._listen.startswith("unix:"):
            self._server: asyncio.Server = await asyncio.start_unix_server(self._accept, self._listen[5:])
            self.address = self._listen
        else:
            host, _, port = self._listen.rpartition(":")
            self._server = await asyncio.start_server(self._accept, host, int(port))
            self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        for pair in list(self._pairs):
            pair.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what the cuts have called runs before the loop ends

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            daemon_reader, daemon = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, daemon)
        self._pairs.append(pair)
        try:
            await asyncio.gather(
                self._pass(pair, reader, daemon, pair.note), self._pass(pair, daemon_reader, writer, lambda _: None)
            )
        finally:
            self._pairs.remove(pair)
            if pair.sent and not pair.was_cut_short:
                self._past.append(bytes(pair.sent))
            pair.cut()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._daemon.startswith("unix:"):
            return await asyncio.open_unix_connection(self._daemon[5:])
        host, _, port = self._daemon.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pass(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        note: Callable[[bytes], None],
    ) -> None:
        """Bytes of one direction, until its end, which is passed on too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(self._chunk_bytes()):
                note(data)
                await asyncio.sleep(self._late_s(len(data)))
                if not pair.takes(writer):
                    return
                writer.write(data)
                await writer.drain()
            pair.end(writer)

    def _each(self, work: Callable[[_Pair], None]) -> None:
        for pair in list(self._pairs):
            work(pair)

    def _chunk_bytes(self) -> int:
        return max(64, self.bytes_per_s // 10) if self.bytes_per_s else _CHUNK_BYTES

    def _late_s(self, num_bytes: int) -> float:
        return self.delay_s + (num_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)

    def _play_again(self) -> None:
        past = [*self._past, *(bytes(pair.sent) for pair in self._pairs if not pair.was_cut_short)]
        for sent in past:
            self._keep(self._replay(sent))

    async def _replay(self, sent: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await self._connect()
            try:
                async with asyncio.timeout(_REPLAY_S):
                    writer.write(sent)
                    while await reader.read(_CHUNK_BYTES):
                        pass
            finally:
                writer.transport.abort()

    # From other threads

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _soon(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)
