"""How the async client carries out calls and watches: attempts, signatures, resuming.

One event loop. Knows nothing of what a call means; the files beside it do.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from esper.client import plans
from esper.client.calls import AnswerT, Call
from esper.client.connection import Connection
from esper.client.cursor import Cursor
from esper.client.errors import LeylineError, decode_rpc_error
from esper.client.plans import Plan
from esper.client.signed_stream import SignedStream
from esper.client.watches import Watch
from esper.leyline.v1 import server_service_pb2 as server_pb


class AsyncCaller(Connection):
    """A connection that can carry out what the methods of each service ask."""

    _library = grpc.aio

    async def __aenter__(self) -> Self:
        self._dial()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for channel in self._take_channels():
            await channel.close()

    async def server_info(self) -> server_pb.GetServerInfoResponse:
        """Who the daemon is: id, epoch, clock, versions, capabilities, limits."""
        info = await self._carry_out(plans.server_info())
        self._signer.learn(info)
        return info

    async def _carry_out(self, plan: Plan[AnswerT], timeout_s: float | None = None) -> AnswerT:
        attempts = self._attempts_of(plan, timeout_s)
        if plan.call.signed:
            await self._meet()
        payload = plan.message.SerializeToString()
        while True:
            request, channel = self._request(plan, payload), self._open_channel
            try:
                return await self._attempt(plan.call, request, attempts.remaining_s())
            except LeylineError as error:
                if not self._redial(error, channel):
                    await asyncio.sleep(attempts.after(error))

    async def _attempt(self, call: Call[AnswerT], request: Message, timeout_s: float) -> AnswerT:
        try:
            answer: AnswerT = await self._stub("unary_unary", call)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise decode_rpc_error(error, self.address) from error
        return answer

    async def _meet(self) -> None:
        """Learn who the daemon is before the first signature."""
        self._signer.require_key()
        if not self._signer.knows_server:
            await self.server_info()

    async def _watch(self, watch: Watch[AnswerT], resume_token: bytes, reconnect_s: float) -> AsyncIterator[AnswerT]:
        cursor = Cursor(resume_token=resume_token, reconnect_s=reconnect_s, monotonic=self._monotonic)
        while True:
            stream = self._stub("unary_stream", watch.call)(watch.opening(cursor.resume_token))
            try:
                async for response in stream:
                    cursor.saw(response)
                    yield response
                wait_s = cursor.after_end()
            except grpc.aio.AioRpcError as error:
                cut = decode_rpc_error(error, self.address)
                wait_s = 0.0 if self._redial(cut) else cursor.after_error(cut)
            finally:
                stream.cancel()
            if wait_s is None:
                return
            await asyncio.sleep(wait_s)

    def _signed_stream(self, call: Call[AnswerT]) -> SignedStream[AnswerT]:
        return SignedStream(
            call,
            signer=self._signer,
            meet=self._meet,
            start=lambda: self._stub("stream_stream", call)(),
            lost=self._redial,
            attempts=lambda: self._attempts(call),
            address=self.address,
        )
