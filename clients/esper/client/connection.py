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
from esper.client.channel import OPTIONS, TLS_PREFIX, target
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.client.plans import Plan
from esper.client.signing import Signer
from esper.client.tls import Signature, TlsFiles, tls_invalid


class Connection:
    """The state of one client.

    `address` is `unix:PATH`, `tls:HOST:PORT` or `HOST:PORT`; reads need no credentials. `tls` are the files for a
    `tls:` address, instead of those that the credentials name. `timeout_s` is the time of one call with all its
    attempts; the clocks and the source of nonces are for tests.
    """

    _library: Any
    """`grpc` or `grpc.aio`, whose channels are made."""

    def __init__(
        self,
        address: str,
        credentials: Credentials | None = None,
        *,
        tls: TlsFiles | None = None,
        timeout_s: float = 10.0,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.address = address
        self._target = target(address)
        self._tls = _tls_for(address, tls or (None if credentials is None else credentials.tls))
        self._dialled_with: Signature = ()
        self._left_channels: list[Any] = []
        """Channels that were dialled with files of before; calls may still be under way on them."""
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

    def _chunk_request(self, call: Call[Any], payload: Message) -> Message:
        """One message of a stream up, signed as it is sent."""
        return call.request_type(envelope=self._signer.sign(call.method, payload.SerializeToString()))

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

    def _dial(self) -> None:
        """Make the channel. Raises LeylineError CLIENT_TLS_INVALID."""
        if self._tls is None:
            self._open_channel = self._library.insecure_channel(self._target, options=OPTIONS)
            return
        self._dialled_with = self._tls.signature()
        self._open_channel = self._library.secure_channel(self._target, self._tls.read(), options=OPTIONS)

    def _redial(self, error: LeylineError, used: Any = None) -> bool:
        """After an error on the channel `used`: whether there is another one, which may do better.

        One is dialled when the TLS files have changed since the last one was.
        """
        if not isinstance(error, Unreachable) or self._tls is None or self._open_channel is None:
            return False
        if used is not None and used is not self._open_channel:
            return True
        if self._tls.signature() == self._dialled_with:
            return False
        left = self._open_channel
        try:
            self._dial()
        except LeylineError:
            return False  # they are being written just now
        self._left_channels.append(left)
        self._stubs.clear()
        return True

    def _take_channels(self) -> list[Any]:
        """Every channel, to be closed; the client counts as closed from now on."""
        channels = [*self._left_channels, self._open_channel]
        self._left_channels, self._open_channel = [], None
        self._stubs.clear()
        return channels


def _tls_for(address: str, files: TlsFiles | None) -> TlsFiles | None:
    if not address.startswith(TLS_PREFIX):
        return None
    if files is None:
        raise tls_invalid(f"{address} needs a CA, a certificate and its private key")
    return files
