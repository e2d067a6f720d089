"""Commands at high rates: signed batches up one stream, receipts down it, matched in order.

One event loop. Batches are pipelined: `send` may be called again before the receipts of the last batch are there.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from esper.client import plans
from esper.client.errors import LeylineError, from_command_error
from esper.client.signed_stream import SignedStream, settle
from esper.leyline.v1.command_pb2 import AdaptationCommand
from esper.leyline.v1.command_service_pb2 import CommandBatch, CommandReceipt, CommandStreamResponse

_Answer = asyncio.Future[CommandStreamResponse]


class CommandStream:
    """An open CommandStream; an async context manager. At most `max_in_flight` batches wait for receipts at once."""

    def __init__(
        self, stream: SignedStream[CommandStreamResponse], *, new_id: Callable[[], str], max_in_flight: int
    ) -> None:
        self._stream = stream
        self._new_id = new_id
        self._room = asyncio.Semaphore(max_in_flight)
        self._waiting: dict[int, _Answer] = {}
        self._num_sent = 0
        self._end: LeylineError | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._stream.open()
        self._reader = asyncio.create_task(self._read(), name="command-stream-reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            await self._stream.close(self._reader)

    async def send(self, commands: Iterable[AdaptationCommand]) -> list[CommandReceipt]:
        """Send one batch of at most 256 commands and return its receipts, one per command, in order.

        A command that was refused has its error in its receipt. Raises LeylineError when the whole batch was refused,
        Unreachable or DRAINING when the stream ended: then send the same request_ids again over a new one.
        """
        batch = plans.batch(commands, self._new_id)
        async with self._room:
            attempts = self._stream.attempts()
            while True:
                response = await self._exchange(batch, attempts.remaining_s())
                if not response.HasField("error"):
                    return list(response.receipts)
                await asyncio.sleep(attempts.after(from_command_error(response.error)))

    async def _exchange(self, batch: CommandBatch, timeout_s: float) -> CommandStreamResponse:
        answer: _Answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._stream.send(batch, lambda: self._expect(answer))
                return await answer
        except TimeoutError:
            raise self._stream.timed_out(timeout_s) from None
        finally:
            settle(answer)

    def _expect(self, answer: _Answer) -> None:
        if self._end is not None:
            raise self._end
        self._num_sent += 1
        self._waiting[self._num_sent] = answer

    async def _read(self) -> None:
        end = self._stream.ended()
        try:
            while (response := await self._stream.receive()) is not None:
                answer = self._waiting.pop(response.batch_number, None)
                if answer is not None and not answer.done():
                    answer.set_result(response)
        except LeylineError as error:
            end = error
        finally:
            self._end = end
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(end)
            self._waiting.clear()
