"""The one way in: every call from outside is paced, verified, audited, answered, and its errors translated, here.

Event loop only. Messages come and go as bytes; handlers see parsed requests and raise errors of the catalogue. Knows
nothing of what any method does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import Message

from esperd.control.call import (
    Call,
    Receive,
    Route,
    Send,
    SessionHandler,
    Shape,
    StreamHandler,
    UnaryHandler,
    UploadHandler,
)
from esperd.control.connections import Connections, OpenStream
from esperd.control.errors import DETAILS_KEY, code_of, status_of
from esperd.control.gate import Gate
from esperd.control.pacing import MESSAGE_UNITS, CallMeter, Pacer
from esperd.control.peer import peer_of, source_of
from esperd.control.rates import OPENING, Rates
from esperd.control.room import Room
from esperd.control.validation import decode, parse
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import Verified
from esperd.leyline.vocabulary import Permission

Context = Any
"""grpc.aio.ServicerContext; its stubs know no bytes."""
UnaryServer = Callable[[bytes, Context], Awaitable[bytes]]


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
        connections: Connections,
        rates: Rates,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`urgent_pacer` slows what is refused or only looked at on the emergency lane; `pacer` everything else."""
        self._policies = policies
        self._gate = gate
        self._pacer = pacer
        self._urgent_pacer = urgent_pacer
        self._meter = meter
        self._connections = connections
        self._rates = rates
        self._log = log
        self._room = Room()
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
                serve = self._signed(route, policy) if policy.signed else self._read(route, policy)
                return grpc.unary_unary_rpc_method_handler(cast(Any, serve))
            case Shape.STREAM:
                return grpc.unary_stream_rpc_method_handler(cast(Any, partial(self._serve_stream, route, policy)))
            case Shape.UPLOAD:
                return grpc.stream_unary_rpc_method_handler(cast(Any, partial(self._serve_upload, route, policy)))
            case Shape.SESSION:
                return grpc.stream_stream_rpc_method_handler(cast(Any, partial(self._serve_session, route, policy)))

    def _peer(self, context: Context) -> str:
        """The name of the caller, noted."""
        peer = peer_of(context)
        self._connections.note_call(peer)
        return peer

    # Unary calls. One coroutine each, and no partial: gRPC looks a handler over anew for every call, and every layer of
    # coroutines is paid for by training (tests/bench/control).

    def _read(self, route: Route, policy: MethodPolicy) -> UnaryServer:
        handler, request = cast(UnaryHandler, route.handler), route.request
        pacer = self._urgent_pacer if policy.urgent else self._pacer

        async def serve(data: bytes, context: Context) -> bytes:
            try:
                call = Call(route.method, self._peer(context))
                with self._room.hold(len(data), is_signed=False, is_urgent=policy.urgent):
                    await pacer.admit()
                    self._rates.take(route.method, source_of(call.peer))
                    return (await handler(call, parse(request, data))).SerializeToString()
            except Exception as fault:  # noqa: BLE001 - leaves as a status
                return await self._abort(context, route.method, fault)

        return serve

    def _signed(self, route: Route, policy: MethodPolicy) -> UnaryServer:
        handler = cast(UnaryHandler, route.handler)

        async def serve(data: bytes, context: Context) -> bytes:
            try:
                peer = self._peer(context)
                with self._room.hold(len(data), is_signed=True, is_urgent=policy.urgent):
                    if policy.urgent:
                        self._meter.count(1.0)
                    else:
                        await self._pacer.admit()
                    verified = await self._verified(route, policy, data, Call(route.method, peer))
                    call = Call(route.method, peer, verified)
                    with self._gate.noting(policy, verified, call):
                        return (await handler(call, verified.payload)).SerializeToString()
            except Exception as fault:  # noqa: BLE001 - leaves as a status
                return await self._abort(context, route.method, fault)

        return serve

    async def _verified(self, route: Route, policy: MethodPolicy, data: bytes, call: Call) -> Verified:
        try:
            return self._gate.verify(policy, decode(cast(Any, route.request), data).envelope, call)
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
            peer = self._peer(context)
            self._rates.take(route.method, source_of(peer))
            request = parse(route.request, data)
            with self._connections.open_stream(route.method, peer) as stream:
                await handler(Call(route.method, peer, None, stream), request, partial(self._send, context, stream))

        await self._translated(context, policy, serve(), len(data))

    async def _serve_session(self, route: Route, policy: MethodPolicy, _: object, context: Context) -> None:
        await self._serve_messages(route, policy, context, cast(SessionHandler, route.handler))

    async def _serve_upload(self, route: Route, policy: MethodPolicy, _: object, context: Context) -> bytes:
        handler = cast(UploadHandler, route.handler)
        answers: list[bytes] = []

        async def serve(call: Call, receive: Receive, _: Send) -> None:
            answers.append((await handler(call, receive)).SerializeToString())

        await self._serve_messages(route, policy, context, serve)
        return answers[0]

    async def _serve_messages(
        self, route: Route, policy: MethodPolicy, context: Context, handle: SessionHandler
    ) -> None:
        """Serve what comes message by message."""

        async def receive(stream: OpenStream) -> Message | None:
            data = await context.read()
            if data is grpc.aio.EOF:
                return None
            stream.num_received += 1
            await self._pacer.admit(MESSAGE_UNITS, in_bunch=False)
            return decode(route.request, data)  # an envelope; the gate looks at it

        async def serve() -> None:
            await self._pacer.admit()
            peer = self._peer(context)
            self._rates.take(OPENING, source_of(peer))
            with self._connections.open_stream(route.method, peer, is_signed=policy.signed) as stream:
                send = partial(self._send, context, stream)
                await handle(Call(route.method, peer, None, stream), partial(receive, stream), send)

        await self._translated(context, policy, serve())

    async def _send(self, context: Context, stream: OpenStream, data: bytes) -> None:
        self._meter.count(MESSAGE_UNITS)
        stream.num_sent += 1
        try:
            await context.write(data)
        except grpc.aio.InternalError as fault:
            # The connection broke under the message; gRPC cancels the call a moment later, and it counts as that.
            raise asyncio.CancelledError from fault

    async def _refuse_unknown(self, _: object, context: Context) -> None:
        await self._pacer.admit()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this daemon has no such method")

    # Errors

    async def _translated(
        self, context: Context, policy: MethodPolicy, work: Coroutine[Any, Any, None], num_bytes: int = 0
    ) -> None:
        """Run a handler, if there is room for it; what it raises leaves as a status."""
        try:
            with closing(work), self._room.hold(num_bytes, is_signed=policy.signed, is_urgent=policy.urgent):
                await work
        except Exception as fault:  # noqa: BLE001 - leaves as a status
            await self._abort(context, policy.method, fault)

    async def _abort(self, context: Context, method: str, fault: Exception) -> NoReturn:
        """End a call with the status of what its handler raised; a cancellation is no Exception and passes by."""
        if isinstance(fault, EsperdError):
            refusal = fault
        elif context.cancelled() or context.done():
            raise asyncio.CancelledError from fault  # the caller left while an answer was being written
        else:
            self._log.error("a call failed", method=method, exc_info=fault)
            refusal = EsperdError("INTERNAL", detail=type(fault).__name__)
        status = status_of(refusal)
        await context.abort(code_of(refusal), status.message, ((DETAILS_KEY, status.SerializeToString()),))
        raise AssertionError("abort raises")


def _plain_read(method: str) -> MethodPolicy:
    return MethodPolicy(method, Permission.OBSERVE, signed=False, audited=False, urgent=False)
