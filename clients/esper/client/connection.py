"""What the async and the sync client have in common: the channel's stubs, the signer, the count of attempts.

One client's own thread; makes no call itself. The channel is of either kind, since both build stubs the same way.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from esper.client import plans
from esper.client.attempts import Attempts
from esper.client.calls import Call
from esper.client.channel import target
from esper.client.credentials import Credentials
from esper.client.plans import Plan
from esper.client.signing import Signer


class Connection:
    """The state of one client.

    `address` is `unix:PATH` or `HOST:PORT`; reads need no credentials. `timeout_s` is the time of one call with all
    its attempts; the clocks and the source of nonces are for tests.
    """

    def __init__(
        self,
        address: str,
        credentials: Credentials | None = None,
        *,
        timeout_s: float = 10.0,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.address = address
        self._target = target(address)
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._signer = Signer(credentials, wall_clock=wall_clock, random_bytes=random_bytes)
        self._open_channel: Any = None
        self._stubs: dict[str, Any] = {}

    def _attempts(self, call: Call[Any], timeout_s: float | None = None, waits_s: float = 0.0) -> Attempts:
        own_s = self._timeout_s if timeout_s is None else timeout_s
        return Attempts(
            signer=self._signer if call.signed else None,
            timeout_s=own_s + waits_s,
            monotonic=self._monotonic,
            retry_s=own_s,
        )

    def _attempts_of(self, plan: Plan[Any], timeout_s: float | None) -> Attempts:
        return self._attempts(plan.call, timeout_s, plan.waits_s)

    def _request(self, plan: Plan[Any], payload: bytes) -> Message:
        """The request of one attempt: signed anew each time, or the read as it is."""
        if not plan.call.signed:
            return plan.message
        return plan.call.request_type(envelope=self._signer.sign(plan.call.method, payload))

    def _patience(self, timeout_s: float | None) -> Attempts:
        """The time to wait for an outcome. As in a signed call, a cut is no reason to give up."""
        limit_s = plans.OUTCOME_S if timeout_s is None else timeout_s
        return Attempts(signer=self._signer, timeout_s=limit_s, monotonic=self._monotonic)

    def _stub(self, shape: str, call: Call[Any]) -> Any:
        """The channel's callable of a method; `shape` is `unary_unary` and so on."""
        if self._open_channel is None:
            raise RuntimeError("the client is not open; use it as a context manager")
        if call.method not in self._stubs:
            self._stubs[call.method] = getattr(self._open_channel, shape)(
                call.method,
                request_serializer=call.request_type.SerializeToString,
                response_deserializer=call.answer_type.FromString,
            )
        return self._stubs[call.method]

    def _take_channel(self) -> Any:
        """The open channel, to be closed; the client counts as closed from now on."""
        channel, self._open_channel = self._open_channel, None
        self._stubs.clear()
        return channel
