"""What the client processes of a round do: command, watch, raise emergencies, be a policy, read the audit log.

One event loop each. Every role goes on until its deadline, whatever it meets; a fault of the daemon's own ends it.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass

from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import vocabulary_pb2 as words

from tests.robustness.rounds.events import AuditRead, AuditVerified, Notes
from tests.robustness.rounds.recording import RecordingClient, check
from tests.robustness.rounds.watching import Reader

_BLUEPRINTS = ("residual_linear", "residual_mlp")
_SITES = ("0", "4")
_BATCH = (2, 24)
_AUDIT_PAGE = 200
_NUM_TRIES = 40
"""Times that one request is sent before its client gives it up; with its pauses longer than any disturbance."""
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Post:
    """Where and as whom one process works."""

    name: str
    addresses: tuple[str, ...]
    credentials: Credentials
    notes: Notes
    source: random.Random
    deadline_s: float

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline_s

    def client(self) -> RecordingClient:
        """A new client on one of the ways to the daemon."""
        return RecordingClient(self.source.choice(self.addresses), self.credentials, self.notes, self.source)


async def command(post: Post) -> None:
    """Send commands one by one, in batches and on streams, and ask what became of them."""
    desk = _Desk(post)
    acts, weights = zip(*desk.acts, strict=True)
    while not post.is_over:
        async with post.client() as client:
            for _ in range(post.source.randint(5, 40)):
                if not post.is_over:
                    await _survive(post.source.choices(acts, weights)[0](client))
                    await asyncio.sleep(post.source.uniform(0.0, 0.05))


async def watch(post: Post) -> None:
    """Five readers on three connections."""
    async with post.client() as one, post.client() as two, post.client() as three:
        await asyncio.gather(
            Reader(one, f"{post.name}a", every=True).read_state(post.deadline_s),
            Reader(two, f"{post.name}b", every=True).read_state(post.deadline_s),
            Reader(three, f"{post.name}c", every=False).read_state(post.deadline_s),
            Reader(one, f"{post.name}d", every=True).read_commands(post.deadline_s),
            Reader(three, f"{post.name}e", every=True).read_commands(post.deadline_s),
        )


async def raise_emergencies(post: Post) -> None:
    """Raise one after the other, and clear it soon."""
    numbers = itertools.count(1)
    async with post.client() as client:
        while not post.is_over:
            level = post.source.randint(words.EMERGENCY_LEVEL_NOTICE, words.EMERGENCY_LEVEL_HALT)
            name = f"{post.name}-emergency-{next(numbers)}"
            emergency_id = await _until_answered(post, _raise(client, level, name))
            await asyncio.sleep(post.source.uniform(0.05, 0.4))
            if emergency_id:
                await _until_answered(post, _clear(client, emergency_id, f"{name}-clear"))
            await asyncio.sleep(post.source.uniform(0.3, 1.5))


async def be_a_policy(post: Post) -> None:
    """Hold sessions, one after the other, and decide."""
    desk = _Desk(post)
    while not post.is_over:
        async with post.client() as client:
            await _survive(_hold_session(post, client, desk))
        await asyncio.sleep(0.1)


async def audit(post: Post) -> None:
    """Read the audit log and have it verified."""
    while not post.is_over:
        async with post.client() as client:
            await _survive(_read_audit(client))
        await asyncio.sleep(post.source.uniform(0.1, 0.6))


ROLES: Mapping[str, Callable[[Post], Coroutine[None, None, None]]] = {
    "command": command,
    "watch": watch,
    "emergency": raise_emergencies,
    "policy": be_a_policy,
    "audit": audit,
}


class _Desk:
    """Makes commands and sends them in each of the ways."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._source = post.source
        self._numbers = itertools.count(1)
        self._open: list[str] = []
        self.acts: list[tuple[Callable[[RecordingClient], Awaitable[None]], int]] = [
            (self._one, 10),
            (self._batch, 6),
            (self._stream, 4),
            (self._cancel, 2),
            (self._look, 8),
            (RecordingClient.replay_one, 6),
        ]

    def message(self) -> pb.AdaptationCommand:
        """A command that this run can mostly carry out."""
        number = next(self._numbers)
        name = f"{self._post.name}-{number}"
        message = pb.AdaptationCommand(request_id=name, reason=name)
        what = self._source.random()
        if what < 0.1:
            message.seed_operation.operation = words.SEED_OPERATION_GERMINATE
            message.seed_operation.site = self._source.choice(_SITES)
            message.seed_operation.blueprint_id = self._source.choice(_BLUEPRINTS)
        elif what < 0.2:
            message.seed_operation.operation = words.SEED_OPERATION_CULL
            message.target_seed_id = str(self._source.randint(1, 12))
        elif what < 0.25:
            pauses = self._source.random() < 0.5
            message.run_control.action = pb.RUN_ACTION_PAUSE if pauses else pb.RUN_ACTION_RESUME
        elif what < 0.27:
            message.checkpoint.note = name
        elif what < 0.3:
            message.circuit_breaker.name = "isolation"
            message.circuit_breaker.desired_state = words.CIRCUIT_BREAKER_STATE_CLOSED
        else:
            message.optimizer_adjustment.optimizer_id = "host"
            message.optimizer_adjustment.action = pb.OPTIMIZER_ACTION_SET_HYPERPARAMETERS
            message.optimizer_adjustment.hyperparameters["lr"] = self._source.uniform(0.001, 0.02)
        return message

    async def _one(self, client: RecordingClient) -> None:
        message = self.message()

        async def send(asked_s: float) -> None:
            accepted = await client.submit(message)
            client.note_accepted("single", [message.request_id], [accepted.command_id], asked_s)
            self._open.append(accepted.command_id)

        await _until_answered(self._post, send)

    async def _batch(self, client: RecordingClient) -> None:
        messages = [self.message() for _ in range(self._source.randint(*_BATCH))]

        async def send(asked_s: float) -> None:
            answer = await client.submit_batch(messages)
            ids = [accepted.command_id for accepted in answer.commands]
            client.note_accepted("batch", [message.request_id for message in messages], ids, asked_s)
            self._open.extend(ids)

        await _until_answered(self._post, send)

    async def _stream(self, client: RecordingClient) -> None:
        batches = [[self.message() for _ in range(self._source.randint(1, 8))] for _ in range(6)]

        async def send(asked_s: float) -> None:
            async with client.command_stream(max_in_flight=3) as stream:
                receipts = await asyncio.gather(*(stream.send(batch) for batch in batches))
            for receipt in itertools.chain.from_iterable(receipts):
                if receipt.command_id:
                    client.note_accepted("stream", [receipt.request_id], [receipt.command_id], asked_s)
                    self._open.append(receipt.command_id)

        await _until_answered(self._post, send)

    async def _cancel(self, client: RecordingClient) -> None:
        if self._open:
            await client.cancel(self._source.choice(self._open), "no longer wanted")

    async def _look(self, client: RecordingClient) -> None:
        if self._open:
            command_id = self._open.pop(self._source.randrange(len(self._open)))
            client.note_outcome(await client.command(command_id, wait_s=0.5))


def _raise(client: RecordingClient, level: int, name: str) -> Callable[[float], Awaitable[str]]:
    async def send(asked_s: float) -> str:
        answer = await client.raise_emergency(level, name, request_id=name)  # type: ignore[arg-type]  # of the enum
        client.note_accepted("emergency", [name], [], asked_s, durable=answer.durable)
        return answer.emergency.emergency_id

    return send


def _clear(client: RecordingClient, emergency_id: str, name: str) -> Callable[[float], Awaitable[None]]:
    async def send(asked_s: float) -> None:
        answer = await client.clear_emergency(emergency_id, name, request_id=name)
        client.note_accepted("clear", [name], [], asked_s, durable=answer.durable)

    return send


async def _hold_session(post: Post, client: RecordingClient, desk: _Desk) -> None:
    mode = post.source.choice((words.LEASE_MODE_STEER, words.LEASE_MODE_ADVISE))
    async with client.decision_session(mode, post.name, "1", packet_every_steps=20) as session:
        leave_s = min(post.deadline_s, time.monotonic() + post.source.uniform(1.0, 6.0))
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + leave_s - time.monotonic()):
            async for request in session:
                messages = [desk.message() for _ in range(post.source.randint(0, 3))]
                asked_s = time.monotonic()
                receipt = await session.decide(request.decision_id, messages)
                for one in receipt.commands:
                    if one.command_id:
                        client.note_accepted("decision", [one.request.request_id], [one.command_id], asked_s)
                for one in session.take_outcomes():
                    client.note_outcome(one)


async def _read_audit(client: RecordingClient) -> None:
    page = await client.audit_entries(page_size=_AUDIT_PAGE)
    client.notes.write(AuditRead({str(row.number): row.row_hash.hex() for row in page.entries}))
    found = await client.verify_audit_log()
    client.notes.write(AuditVerified(found.intact, found.num_entries, found.head_hash.hex()))


async def _survive(work: Awaitable[None]) -> None:
    """What the daemon refuses, and that it is away, is no matter; a fault of its own is."""
    try:
        await work
    except TimeoutError:
        return
    except LeylineError as error:
        check(error)


async def _until_answered(post: Post, send: Callable[[float], Awaitable[str | None]]) -> str | None:
    """Send the same request again and again until the daemon has said yes or no."""
    asked_s = time.monotonic()
    for _ in range(_NUM_TRIES):
        try:
            return await send(asked_s)
        except LeylineError as error:
            check(error)
            may_pass = isinstance(error, Unreachable) or error.status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
            if not may_pass and error.reason not in ("EMERGENCY_UNACKNOWLEDGED", "CANCELLED"):
                return None
            await asyncio.sleep(error.retry_after_s or _PAUSE_S)
        if post.is_over:
            return None
    return None
