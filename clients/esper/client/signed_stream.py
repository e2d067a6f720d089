"""A bidirectional stream whose every message up is a signed envelope; the ground of the two streams built on it.

One event loop. Errors come out as LeylineError. Knows nothing of what the payloads mean.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic

import grpc
import grpc.aio
from google.protobuf.message import Message

from esper.client.attempts import Attempts
from esper.client.calls import AnswerT, Call
from esper.client.errors import LeylineError, decode_rpc_error, local_error
from esper.client.signing import Signer

_GOODBYE_S = 2.0
"""How long the daemon has to end the stream after the client has; then the stream is cut."""


class SignedStream(Generic[AnswerT]):
    """One stream; `open` before the first `send`, `close` at the end."""

    def __init__(
        self,
        call: Call[AnswerT],
        *,
        signer: Signer,
        meet: Callable[[], Awaitable[None]],
        start: Callable[[], Any],
        lost: Callable[[LeylineError], object],
        attempts: Callable[[], Attempts],
        address: str,
    ) -> None:
        """`start` opens the stream, `lost` is told of each of its errors before another try."""
        self._call = call
        self._signer = signer
        self._meet = meet
        self._start = start
        self._lost = lost
        self._new_attempts = attempts
        self._address = address
        self._stream: Any = None
        # The daemon numbers messages as they come, so signing and writing are one step.
        self._writing = asyncio.Lock()

    def attempts(self) -> Attempts:
        """A fresh count of attempts, for one message."""
        return self._new_attempts()

    async def open(self) -> None:
        """Learn who the daemon is, then start the stream."""
        await self._meet()
        self._stream = self._start()

    async def open_with(self, payload: Message) -> AnswerT:
        """Start the stream, send its opening and return the first answer; tried again as a unary call would be."""
        attempts = self._new_attempts()
        while True:
            await self.open()
            try:
                async with asyncio.timeout(attempts.remaining_s()):
                    await self.send(payload)
                    first = await self.receive()
                if first is None:
                    raise self._broken("the daemon ended the stream at once")
                return first
            except TimeoutError:
                self._stream.cancel()
                raise self._broken("no answer in time") from None
            except LeylineError as error:
                self._stream.cancel()
                await asyncio.sleep(attempts.after(error))
            except BaseException:
                self._stream.cancel()
                raise

    async def send(self, payload: Message, sent: Callable[[], None] = lambda: None) -> None:
        """Sign and send one message; `sent` is called before any later message can be written."""
        body = payload.SerializeToString()
        async with self._writing:
            request = self._call.request_type(envelope=self._signer.sign(self._call.method, body))
            sent()
            try:
                await self._stream.write(request)
            except grpc.aio.AioRpcError as error:
                raise self._decoded(error) from error
            except asyncio.InvalidStateError as error:
                raise self._broken("the stream has ended") from error

    async def receive(self) -> AnswerT | None:
        """The next message of the daemon, None when it has ended the stream."""
        try:
            answer = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise self._decoded(error) from error
        return None if answer is grpc.aio.EOF else answer

    async def close(self, reader: asyncio.Task[None]) -> None:
        """End the stream in order: say so, let the reader see the daemon's end, then cut what is left."""
        try:
            if not self._stream.done():
                await self._stream.done_writing()
                await asyncio.wait([reader], timeout=_GOODBYE_S)
        except grpc.aio.AioRpcError:
            pass  # It was broken already; the reader has the error.
        finally:
            self._stream.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def timed_out(self, timeout_s: float) -> LeylineError:
        """The error of an answer that has not come in time."""
        return self._broken(f"no answer within {timeout_s:g} s")

    def ended(self) -> LeylineError:
        """The error of an answer that cannot come any more."""
        return self._broken("the daemon ended the stream")

    def _decoded(self, error: grpc.aio.AioRpcError) -> LeylineError:
        decoded = decode_rpc_error(error, self._address)
        self._lost(decoded)
        return decoded

    def _broken(self, detail: str) -> LeylineError:
        return local_error("DAEMON_UNREACHABLE", address=self._address, detail=detail)


def settle(answer: asyncio.Future[Any]) -> None:
    """Give up a future; an error that it holds counts as seen, since the caller has met it already."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
