"""Calls of every method, on a whole control plane: whatever is asked, the answer is a message or a stated refusal.

The plane is the one of the integration tests. Calls go straight to its entrance, so that bytes and not the network set
the pace. It is begun anew now and then: what a daemon rightly remembers of each command would look like a leak.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import atheris
import grpc
import structlog
from esper.client import calls
from esper.client.credentials import Credentials
from esper.client.signing import sign
from esper.leyline.v1 import (
    command_pb2,
    command_service_pb2,
    policy_service_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from esperd.config.settings import ControlSettings
from esperd.control.errors import DETAILS_KEY
from esperd.control.recorded_commands import to_command
from esperd.leyline.errors import CATALOGUE, DOMAIN
from esperd.leyline.keyring import KeyRing
from esperd.leyline.method_policy import read_method_policies, services
from esperd.leyline.vocabulary import Permission
from tests.fuzz.target import Target
from tests.integration.control.stage import Theatre, open_stage

INPUTS_PER_START = 5000
PATIENCE_S = 0.03
"""A call that is still open then waits for something that will not come here, and is cancelled as by its caller."""
MAX_STATUS_BYTES = 8192
SECRET = bytes(range(1, 33))
RING = (
    f'[[keys]]\nid = "fuzz-1"\nprincipal = "fuzz"\nsecret = "{SECRET.hex()}"\n'
    f"permissions = {[item.name.lower() for item in Permission if item]}\n"
).replace("'", '"')
CREDENTIALS = Credentials("fuzz-1", "fuzz", SECRET)
POLICIES = read_method_policies()
METHODS = {f"/{service.full_name}/{method.name}": method for service in services() for method in service.methods}
READS = sorted(name for name, policy in POLICIES.items() if not policy.signed)
SIGNED = sorted(name for name, policy in POLICIES.items() if policy.signed)
PAYLOADS = {call.method: call.payload_type for call in calls.CALLS if call.payload_type is not None}
"""The message that the envelope of a signed method carries."""


class Aborted(Exception):
    """A call has ended with a status."""


class Caller:
    """The other end of a call, in place of gRPC's context."""

    def __init__(self, messages: Sequence[bytes] = ()) -> None:
        self._messages = list(messages)
        self.status: tuple[grpc.StatusCode, str, Any] | None = None
        self.answers: list[bytes] = []
        self.answered = asyncio.Event()

    def peer(self) -> str:
        return "unix:"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    async def read(self) -> Any:
        if self._messages:
            return self._messages.pop(0)
        return grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        self.answers.append(data)
        self.answered.set()

    async def abort(self, code: grpc.StatusCode, message: str, metadata: Any = ()) -> None:
        self.status = (code, message, metadata)
        raise Aborted


class Plane:
    """A control plane that is called without a network."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count()
        self._stage: Theatre | None = None
        self._left = contextlib.AsyncExitStack()
        self._ring = KeyRing.from_text(RING)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def call(self, method: str, messages: Sequence[bytes]) -> None:
        """One call with these messages, signed if the method wants it; only stated refusals are allowed."""
        self._loop.run_until_complete(self._call(method, messages))

    def close(self) -> None:
        """Leave no thread behind: the fuzzer would wait for it instead of telling its finding."""
        self._loop.run_until_complete(self._left.aclose())

    async def _call(self, method: str, messages: Sequence[bytes]) -> None:
        stage = await self._current()
        stage.verifier.replace_keyring(self._ring)  # whatever the last input revoked or reloaded
        if POLICIES[method].signed:
            messages = [_enveloped(stage, method, payload) for payload in messages]
        handler = stage.server.parts.entrance.service(_Details(method))  # type: ignore[arg-type]
        caller = Caller(messages)
        await self._served(handler, caller, messages[0] if messages else b"")
        if caller.status is not None:
            check_status(method, caller)
        answer = GetMessageClass(METHODS[method].output_type)
        for data in caller.answers:
            await self._can_be_carried_out_later(stage, answer.FromString(data))

    async def _can_be_carried_out_later(self, stage: Theatre, answer: Any) -> None:
        """What was accepted is in the journal, and the next start of the daemon can read it again."""
        match answer:
            case command_service_pb2.SubmitCommandResponse():
                accepted = [answer.command.command_id]
            case command_service_pb2.SubmitCommandsResponse():
                accepted = [command.command_id for command in answer.commands]
            case command_service_pb2.CommandStreamResponse():
                accepted = [receipt.command_id for receipt in answer.receipts]
            case _:
                return
        for command_id in filter(None, accepted):
            record = await stage.journal.get_command(command_id)
            assert record is not None, "accepted, and not in the journal"
            assert to_command(record).command_id == command_id

    async def _served(self, handler: Any, caller: Caller, request: bytes) -> None:
        """Let the handler work until it ends, or a stream has answered, or it waits for too long."""
        unary = handler.unary_unary or handler.unary_stream
        work = unary(request, caller) if unary else (handler.stream_stream or handler.stream_unary)(None, caller)
        task = asyncio.ensure_future(work)
        first = asyncio.ensure_future(caller.answered.wait())
        await asyncio.wait((task, first), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Aborted):
            answer = await task
            if isinstance(answer, bytes):
                caller.answers.append(answer)

    async def _current(self) -> Theatre:
        if next(self._numbers) % INPUTS_PER_START == 0 or self._stage is None:
            await self._left.aclose()
            directory = Path(self._left.enter_context(tempfile.TemporaryDirectory()))
            # Half a second from one look at the clock to the next, so that no rate is reached.
            leaps = itertools.count()
            plane = open_stage(directory, control=CONTROL, ring=RING, monotonic=lambda: next(leaps) * 0.5)
            self._stage = await self._left.enter_async_context(plane)
        return self._stage


CONTROL = ControlSettings(listen=("127.0.0.1:0",))


class _Details:
    """What gRPC knows of a call before it is served."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def check_status(method: str, caller: Caller) -> None:
    """A refusal is one of the catalogue, whole, small enough for a header, and no fault of the daemon's own."""
    assert caller.status is not None
    code, message, metadata = caller.status
    packed = dict(metadata)[DETAILS_KEY]
    status = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == DOMAIN
    assert info.reason in CATALOGUE, info.reason
    assert info.reason != "INTERNAL", f"{method}: {message}"
    assert CATALOGUE[info.reason].status == code.name
    assert status.message == message
    assert len(packed) < MAX_STATUS_BYTES, f"{method}: a status of {len(packed)} bytes"


def _enveloped(stage: Theatre, method: str, payload: bytes) -> bytes:
    envelope = sign(
        CREDENTIALS,
        audience=stage.identity.server_id,
        epoch=stage.identity.epoch,
        method=method,
        payload=payload,
        now=time.time(),
        nonce=secrets.token_bytes(16),
    )
    request: Any = GetMessageClass(METHODS[method].input_type)
    return bytes(request(envelope=envelope).SerializeToString())


@cache
def plane() -> Plane:
    """The plane that all targets of this process share."""
    return Plane()


# Messages out of bytes: fields are filled as their types want, so that most of the input reaches the rules behind them.


def message_of(kind: type[Message], data: bytes) -> bytes:
    """A message of a type: the input itself, or, when it begins with an even byte, one that it describes."""
    if not data or data[0] % 2:
        return data[1:]
    message = kind()
    _fill(message, atheris.FuzzedDataProvider(data[1:]), 4)
    return message.SerializeToString()


def _fill(message: Any, source: Any, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if source.remaining_bytes() and source.ConsumeBool():
            _set(message, field, source, depth)


def _set(message: Any, field: FieldDescriptor, source: Any, depth: int) -> None:
    target = getattr(message, field.name)
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        value = field.message_type.fields_by_name["value"]
        for _ in range(source.ConsumeIntInRange(0, 3)):
            name = source.ConsumeUnicodeNoSurrogates(6)
            with contextlib.suppress(TypeError):  # a map of messages is filled in place
                target[name] = _value(value, source)
    elif field.is_repeated:
        for _ in range(source.ConsumeIntInRange(0, 3)):
            if field.message_type is not None:
                _fill(target.add(), source, depth - 1) if depth else None
            else:
                target.append(_value(field, source))
    elif field.message_type is not None:
        target.SetInParent()
        if depth:
            _fill(target, source, depth - 1)
    else:
        setattr(message, field.name, _value(field, source))


def _value(field: FieldDescriptor, source: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return source.ConsumeBytes(source.ConsumeIntInRange(0, 40))
        case FieldDescriptor.CPPTYPE_STRING:
            known = source.PickValueInList(list(WORDS))
            if source.ConsumeBool():
                return known
            return source.ConsumeUnicodeNoSurrogates(source.ConsumeIntInRange(0, 200))
        case FieldDescriptor.CPPTYPE_BOOL:
            return source.ConsumeBool()
        case FieldDescriptor.CPPTYPE_ENUM | FieldDescriptor.CPPTYPE_INT32:
            return source.PickValueInList([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 99, -1, 2**31 - 1])
        case FieldDescriptor.CPPTYPE_UINT32:
            return source.PickValueInList([0, 1, 5, 1000, 60_000, 2**31, 2**32 - 1])
        case FieldDescriptor.CPPTYPE_INT64:
            return source.PickValueInList([0, 1, -1, int(time.time()) + 60, 2**40, 2**63 - 1, -(2**63)])
        case FieldDescriptor.CPPTYPE_UINT64:
            return source.PickValueInList([0, 1, 5, 100, 101, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1])
    return source.ConsumeFloat()


WORDS = (
    *("", "1", "2", "0", "01", "999999999999999999", "host", "all", "seed:1", "block.1", "block.2", "bottleneck"),
    *("isolation", "lr", "allow", "run-1", "request-1", "info", "debug", "none", "loss", "train.loss", "é" * 100, "\0"),
    *("fuzz", "OK", "d-1", "e-1", calls.SUBMIT_COMMAND.method, "esperd-test", "\x1b[2J", "x" * 129),
)


def one_payload(data: bytes) -> None:
    """A signed call: which method, then its payload; sessions get up to three, of which a policy's first opens it."""
    method = SIGNED[data[0] % len(SIGNED)] if data else SIGNED[0]
    kinds = [PAYLOADS[method]] * 3
    if method == calls.DECISION_STREAM.method:
        kinds[0] = policy_service_pb2.SessionOpening
    parts = data[1:].split(b"|||", 2) if METHODS[method].client_streaming else [data[1:]]
    plane().call(method, [message_of(kind, part) for kind, part in zip(kinds, parts, strict=False)])


def one_filter(data: bytes) -> None:
    """A read: which method, then its request."""
    method = READS[data[0] % len(READS)] if data else READS[0]
    plane().call(method, [message_of(GetMessageClass(METHODS[method].input_type), data[1:])])


TOKENS = [
    (name, field.name)
    for name in READS
    for field in METHODS[name].input_type.fields
    if field.name in ("page_token", "resume_token")
]


def one_token(data: bytes) -> None:
    """A list or a watch that goes on from a token."""
    method, name = TOKENS[data[0] % len(TOKENS)] if data else TOKENS[0]
    request: Any = GetMessageClass(METHODS[method].input_type)()
    token = data[1:]
    setattr(request, name, token if name == "resume_token" else token.decode("utf-8", "replace"))
    plane().call(method, [request.SerializeToString()])


def _payload_seeds() -> list[bytes]:
    seeds = [bytes([number, 0]) + bytes(range(64)) for number in range(len(SIGNED))]
    command = command_pb2.AdaptationCommand(
        request_id="request-1",
        reason="a test",
        seed_operation=command_pb2.CommandSeedOperation(operation=1, site="block.1", blueprint_id="bottleneck"),
    )
    batch = command_service_pb2.CommandBatch(commands=[command, command])
    for name, message in (("SubmitCommand", command), ("SubmitCommands", batch), ("CommandStream", batch)):
        number = next(number for number, method in enumerate(SIGNED) if method.endswith(f"/{name}"))
        seeds.append(bytes([number, 1]) + message.SerializeToString())
    opening = policy_service_pb2.SessionOpening(mode=1, policy_name="fuzz").SerializeToString()  # type: ignore[arg-type]
    decision = policy_service_pb2.PolicyDecision(decision_id="d-1", commands=[command]).SerializeToString()
    seeds.append(bytes([SIGNED.index(calls.DECISION_STREAM.method), 1]) + opening + b"|||\x01" + decision)
    return seeds


def _token_seeds() -> list[bytes]:
    state, page = secrets.token_bytes(16) + (5).to_bytes(8, "big"), b"Y29tbWFuZHM6NQ=="
    return [bytes([number]) + token for number in range(len(TOKENS)) for token in (state, page, bytes(24), b"")]


def on_plane(one_input: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The same, with the plane closed when something is found."""

    def guarded(data: bytes) -> None:
        try:
            one_input(data)
        except BaseException:
            plane().close()
            raise

    return guarded


TARGETS = {
    "payloads": Target(on_plane(one_payload), _payload_seeds(), WORDS),
    "filters": Target(
        on_plane(one_filter), [bytes([number, 0]) + bytes(range(64)) for number in range(len(READS))], WORDS
    ),
    "tokens": Target(on_plane(one_token), _token_seeds(), max_bytes=64),
}
