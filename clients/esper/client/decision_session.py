"""A policy's session: it holds a lease, gets state packets to decide on, and answers them with signed decisions.

One event loop. A policy that is slower than the packets sees only the newest one; training never waits for it.

    async with client.decision_session(LEASE_MODE_STEER, "mine", "1") as session:
        async for request in session:
            await session.decide(request.decision_id, choose(request.packet))
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from esper.client import plans
from esper.client.attempts import Attempts
from esper.client.errors import LeylineError, from_command_error
from esper.client.signed_stream import SignedStream, settle
from esper.leyline.v1.command_pb2 import AdaptationCommand, Command
from esper.leyline.v1.policy_service_pb2 import (
    DecisionReceipt,
    DecisionRequest,
    DecisionStreamResponse,
    PolicyDecision,
    SessionOpened,
    SessionOpening,
)


class DecisionSession:
    """An open session; an async context manager and an async iterator of DecisionRequest.

    The iteration ends when the daemon drains and raises LeylineError when the session is lost; open a new one then.
    """

    def __init__(
        self,
        stream: SignedStream[DecisionStreamResponse],
        opening: SessionOpening,
        *,
        new_id: Callable[[], str],
    ) -> None:
        self._stream = stream
        self._opening = opening
        self._new_id = new_id
        self.opened = SessionOpened()
        """The lease's id, the mode that was granted, and the run; set once the session is entered."""
        self.draining = False
        """Whether the daemon said that it is shutting down."""
        self.num_skipped = 0
        """Requests that a newer one replaced before they were read."""
        self._newest: DecisionRequest | None = None
        self._outcomes: list[Command] = []
        self._receipts: dict[str, asyncio.Future[DecisionReceipt]] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._error: LeylineError | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the session. Raises LeylineError LEASE_TAKEN when another policy steers."""
        first = await self._stream.open_with(self._opening)
        self.opened = first.opened
        self._reader = asyncio.create_task(self._read(), name="decision-session-reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            await self._stream.close(self._reader)

    def __aiter__(self) -> AsyncIterator[DecisionRequest]:
        return self

    async def __anext__(self) -> DecisionRequest:
        while self._newest is None:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        request, self._newest = self._newest, None
        return request

    async def decide(
        self, decision_id: str, commands: Iterable[AdaptationCommand] = (), rationale: str = ""
    ) -> DecisionReceipt:
        """Answer a request; no commands means wait. Empty request_ids are filled in.

        Returns the receipt, with `error` set when the decision was refused, for instance as stale.
        """
        decision = PolicyDecision(
            decision_id=decision_id,
            commands=[plans.identified(command, self._new_id) for command in commands],
            rationale=rationale,
        )
        attempts = self._stream.attempts()
        while True:
            receipt = await self._exchange(decision, attempts.remaining_s())
            if not receipt.HasField("error") or not _helps_to_sign_again(receipt, attempts):
                return receipt

    def take_outcomes(self) -> list[Command]:
        """The session's commands that have got their outcome since the last time this was asked."""
        taken, self._outcomes = self._outcomes, []
        return taken

    async def _exchange(self, decision: PolicyDecision, timeout_s: float) -> DecisionReceipt:
        if self._ended:
            raise self._error or self._stream.ended()
        receipt: asyncio.Future[DecisionReceipt] = asyncio.get_running_loop().create_future()
        self._receipts[decision.decision_id] = receipt
        try:
            async with asyncio.timeout(timeout_s):
                await self._stream.send(decision)
                return await receipt
        except TimeoutError:
            raise self._stream.timed_out(timeout_s) from None
        finally:
            self._receipts.pop(decision.decision_id, None)
            settle(receipt)

    async def _read(self) -> None:
        try:
            while (message := await self._stream.receive()) is not None:
                self._take(message)
        except LeylineError as error:
            self._error = None if self.draining else error
        finally:
            self._ended = True
            self._news.set()
            for receipt in self._receipts.values():
                if not receipt.done():
                    receipt.set_exception(self._error or self._stream.ended())

    def _take(self, message: DecisionStreamResponse) -> None:
        content = message.WhichOneof("content")
        if content == "request":
            self.num_skipped += self._newest is not None
            self._newest = message.request
            self._news.set()
        elif content == "receipt":
            receipt = self._receipts.get(message.receipt.decision_id)
            if receipt is not None and not receipt.done():
                receipt.set_result(message.receipt)
        elif content == "outcome":
            self._outcomes.append(message.outcome.command)
        elif content == "draining":
            self.draining = True


def _helps_to_sign_again(receipt: DecisionReceipt, attempts: Attempts) -> bool:
    try:
        return attempts.after(from_command_error(receipt.error)) == 0.0
    except LeylineError:
        return False
