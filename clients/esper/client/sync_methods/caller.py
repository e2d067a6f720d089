"""How the sync client carries out calls and watches: attempts, signatures, resuming.

Any one thread at a time. Knows nothing of what a call means; the files beside it do.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.message import Message

from esper.client import plans
from esper.client.calls import AnswerT, Call
from esper.client.connection import Connection
from esper.client.cursor import Cursor
from esper.client.errors import LeylineError, decode_rpc_error
from esper.client.plans import Plan
from esper.client.watches import Watch
from esper.leyline.v1 import server_service_pb2 as server_pb


class Caller(Connection):
    """A connection that can carry out what the methods of each service ask."""

    _library = grpc

    def __enter__(self) -> Self:
        self._dial()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for channel in self._take_channels():
            channel.close()

    def server_info(self) -> server_pb.GetServerInfoResponse:
        """Who the daemon is: id, epoch, clock, versions, capabilities, limits."""
        info = self._carry_out(plans.server_info())
        self._signer.learn(info)
        return info

    def _carry_out(self, plan: Plan[AnswerT], timeout_s: float | None = None) -> AnswerT:
        attempts = self._attempts_of(plan, timeout_s)
        if plan.call.signed:
            self._meet()
        payload = plan.message.SerializeToString()
        while True:
            request, channel = self._request(plan, payload), self._open_channel
            try:
                return self._attempt(plan.call, request, attempts.remaining_s())
            except LeylineError as error:
                if not self._redial(error, channel):
                    time.sleep(attempts.after(error))

    def _attempt(self, call: Call[AnswerT], request: Message, timeout_s: float) -> AnswerT:
        try:
            answer: AnswerT = self._stub("unary_unary", call)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise decode_rpc_error(error, self.address) from error
        return answer

    def _meet(self) -> None:
        """Learn who the daemon is before the first signature."""
        self._signer.require_key()
        if not self._signer.knows_server:
            self.server_info()

    def _watch(self, watch: Watch[AnswerT], resume_token: bytes, reconnect_s: float) -> Iterator[AnswerT]:
        cursor = Cursor(resume_token=resume_token, reconnect_s=reconnect_s, monotonic=self._monotonic)
        while True:
            stream = self._stub("unary_stream", watch.call)(watch.opening(cursor.resume_token))
            try:
                for response in stream:
                    cursor.saw(response)
                    yield response
                wait_s = cursor.after_end()
            except grpc.RpcError as error:
                cut = decode_rpc_error(error, self.address)
                wait_s = 0.0 if self._redial(cut) else cursor.after_error(cut)
            finally:
                stream.cancel()
            if wait_s is None:
                return
            time.sleep(wait_s)
