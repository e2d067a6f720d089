"""The one way in: every call from outside is paced, verified, audited, answered, and its errors translated, here.

Event loop only. Messages come and go as bytes; handlers see parsed requests and raise errors of the catalogue. Knows
nothing of what any method does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

import grpc
import structlog
from esper.leyline.v1 import envelope_pb2
from google.protobuf.message import DecodeError, Message

from esperd.control.audit import AuditTrail
from esperd.control.call import Call, Route, SessionHandler, Shape, StreamHandler, UnaryHandler
from esperd.control.errors import DETAILS_KEY, InvalidRequest, Violation, code_of, status_of
from esperd.control.pacing import MESSAGE_UNITS, CallMeter, Pacer
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import RequestRefused, Verified, Verifier
from esperd.leyline.vocabulary import Permission
from esperd.oona.records import AuditEntry

MessageT = TypeVar("MessageT", bound=Message)
AnswerT = TypeVar("AnswerT", bytes, None)
Context = Any
"""grpc.aio.ServicerContext; its stubs know no bytes."""


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """Parse a message. Raises InvalidRequest when the bytes are none of its kind."""
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise InvalidRequest([Violation("payload", f"is not a serialized {name}")]) from None


class Gate:
    """Verifies signed messages and leaves their rows in the audit trail."""

    def __init__(self, verifier: Verifier, trail: AuditTrail, clock: Callable[[], float]) -> None:
        self._verifier = verifier
        self._trail = trail
        self._clock = clock

    def verify(self, policy: MethodPolicy, envelope: envelope_pb2.SignedEnvelope, peer: str) -> Verified:
        """Checks 1 to 10 of the design. Raises RequestRefused, and writes its true cause into the trail."""
        try:
            return self._verifier.verify(
                method=policy.method,
                header=envelope.header,
                payload=envelope.payload,
                signature=envelope.signature,
                peer=peer,
                permission=policy.permission,
            )
        except RequestRefused as refusal:
            # Of a request that nobody signed the payload says nothing, and hashing a megabyte for it is work.
            self._trail.refused(
                AuditEntry(
                    "", refusal.key_id, peer, policy.method, b"", refusal.reason, refusal.audit_cause, self._clock()
                )
            )
            raise

    def note(self, policy: MethodPolicy, verified: Verified, peer: str, refusal: EsperdError | None = None) -> None:
        """Write how a genuine request was answered."""
        if not policy.audited:
            return
        decision, detail = ("OK", "") if refusal is None else (refusal.reason, refusal.message)
        entry = AuditEntry(
            verified.principal,
            verified.key_id,
            peer,
            policy.method,
            verified.payload_sha256,
            decision,
            detail,
            self._clock(),
        )
        if refusal is None:
            self._trail.accepted(entry)
        else:
            self._trail.refused(entry)


class Entrance(grpc.GenericRpcHandler):
    """Gives gRPC a handler for every method, known or not."""

    def __init__(
        self,
        *,
        routes: Iterable[Route],
        policies: Mapping[str, MethodPolicy],
        gate: Gate,
        pacer: Pacer,
        urgent_pacer: Pacer,
        meter: CallMeter,
        max_streams: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`urgent_pacer` slows what is refused or only looked at on the emergency lane; `pacer` everything else."""
        self._policies = policies
        self._gate = gate
        self._pacer = pacer
        self._urgent_pacer = urgent_pacer
        self._meter = meter
        self._max_streams = max_streams
        self._log = log
        self.num_streams = 0
        self._handlers = {route.method: self._handler(route) for route in routes}
        self._unknown: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._refuse_unknown)

    @property
    def methods(self) -> tuple[str, ...]:
        """Full names of what is served."""
        return tuple(self._handlers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of a method."""
        return self._handlers.get(handler_call_details.method, self._unknown)

    def _handler(self, route: Route) -> "grpc.RpcMethodHandler[Any, Any]":
        # Methods of other contracts (health, reflection) are plain reads.
        policy = self._policies.get(route.method, _plain_read(route.method))
        match route.shape:
            case Shape.UNARY:
                return grpc.unary_unary_rpc_method_handler(cast(Any, partial(self._serve_unary, route, policy)))
            case Shape.STREAM:
                return grpc.unary_stream_rpc_method_handler(cast(Any, partial(self._serve_stream, route, policy)))
            case Shape.SESSION:
                return grpc.stream_stream_rpc_method_handler(cast(Any, partial(self._serve_session, route, policy)))

    # Unary calls

    async def _serve_unary(self, route: Route, policy: MethodPolicy, data: bytes, context: Context) -> bytes:
        answer = self._answer(route, policy, data, context.peer())
        return await self._translated(context, route.method, answer)

    async def _answer(self, route: Route, policy: MethodPolicy, data: bytes, peer: str) -> bytes:
        handler = cast(UnaryHandler, route.handler)
        if not policy.signed:
            await (self._urgent_pacer if policy.urgent else self._pacer).admit()
            response = await handler(Call(route.method, peer), parse(route.request, data))
            return response.SerializeToString()
        if policy.urgent:
            self._meter.count(1.0)
        else:
            await self._pacer.admit()
        verified = await self._verified(route, policy, data, peer)
        try:
            response = await handler(Call(route.method, peer, verified), verified.payload)
        except EsperdError as refusal:
            self._gate.note(policy, verified, peer, refusal)
            raise
        self._gate.note(policy, verified, peer)
        return response.SerializeToString()

    async def _verified(self, route: Route, policy: MethodPolicy, data: bytes, peer: str) -> Verified:
        try:
            return self._gate.verify(policy, parse(cast(Any, route.request), data).envelope, peer)
        except EsperdError:
            # The emergency lane is exempt from pacing for those who may use it, not for those who may not.
            if policy.urgent:
                await self._urgent_pacer.admit()
            raise

    # Streams and sessions

    async def _serve_stream(self, route: Route, policy: MethodPolicy, data: bytes, context: Context) -> None:
        handler = cast(StreamHandler, route.handler)

        async def serve() -> None:
            await self._pacer.admit()
            request = parse(route.request, data)
            with _Place(self):
                await handler(Call(route.method, context.peer()), request, partial(self._send, context))

        await self._translated(context, policy.method, serve())

    async def _serve_session(self, route: Route, policy: MethodPolicy, _: object, context: Context) -> None:
        handler = cast(SessionHandler, route.handler)

        async def receive() -> Message | None:
            data = await context.read()
            if data is grpc.aio.EOF:
                return None
            await self._pacer.admit(MESSAGE_UNITS, in_bunch=False)
            return parse(route.request, data)

        async def serve() -> None:
            await self._pacer.admit()
            with _Place(self):
                await handler(Call(route.method, context.peer()), receive, partial(self._send, context))

        await self._translated(context, policy.method, serve())

    async def _send(self, context: Context, data: bytes) -> None:
        self._meter.count(MESSAGE_UNITS)
        await context.write(data)

    async def _refuse_unknown(self, _: object, context: Context) -> None:
        await self._pacer.admit()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this daemon has no such method")

    # Errors

    async def _translated(self, context: Context, method: str, work: Awaitable[AnswerT]) -> AnswerT:
        """Run a handler; what it raises leaves as a status. A cancelled call stays cancelled."""
        try:
            return await work
        except asyncio.CancelledError:
            raise
        except EsperdError as error:
            refusal = error
        except Exception as fault:
            if context.cancelled() or context.done():
                raise asyncio.CancelledError from fault  # the caller left while an answer was being written
            self._log.exception("a call failed", method=method)
            refusal = EsperdError("INTERNAL", detail=type(fault).__name__)
        status = status_of(refusal)
        await context.abort(code_of(refusal), status.message, ((DETAILS_KEY, status.SerializeToString()),))
        raise AssertionError("abort raises")


class _Place:
    """One of the bounded number of open streams."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    def __enter__(self) -> None:
        limit = self._entrance._max_streams
        if self._entrance.num_streams >= limit:
            raise EsperdError("TOO_MANY_STREAMS", limit=limit)
        self._entrance.num_streams += 1

    def __exit__(self, *_: object) -> None:
        self._entrance.num_streams -= 1


def _plain_read(method: str) -> MethodPolicy:
    return MethodPolicy(method, Permission.OBSERVE, signed=False, audited=False, urgent=False)
