"""A client that notes down what it asks and what it is answered; otherwise the ordinary one of the SDK.

One event loop. Keeps some of the envelopes that were accepted, so that they can be sent once more.
"""

import hashlib
import random
import time
from collections.abc import Sequence
from typing import Any

import grpc.aio
from esper.client.aio import AsyncClient
from esper.client.calls import AnswerT, Call
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable, decode_rpc_error
from esper.client.signing import Signer
from esper.leyline.v1.command_pb2 import Command
from esper.leyline.v1.envelope_pb2 import SignedEnvelope
from google.protobuf.message import Message

from tests.robustness.rounds.events import Accepted, Attempt, Notes, Outcome, Replayed

_KEPT = 256
_CALL_S = 3.0


class RecordingSigner(Signer):
    """Notes down every envelope."""

    notes: Notes

    def sign(self, method: str, payload: bytes) -> SignedEnvelope:
        """Sign one attempt, and note that there was one."""
        self.notes.write(Attempt(method, hashlib.sha256(payload).hexdigest()))
        return super().sign(method, payload)


class RecordingClient(AsyncClient):
    """One client of a round."""

    def __init__(self, address: str, credentials: Credentials, notes: Notes, source: random.Random) -> None:
        super().__init__(address, credentials, timeout_s=_CALL_S)
        self.notes = notes
        self.source = source
        signer = RecordingSigner(credentials, wall_clock=time.time, random_bytes=random.SystemRandom().randbytes)
        signer.notes = notes
        self._signer = signer
        self._spent: list[tuple[Call[Any], Message]] = []

    async def _attempt(self, call: Call[AnswerT], request: Message, timeout_s: float) -> AnswerT:
        answer = await super()._attempt(call, request, timeout_s)
        if call.signed:
            self._spent.append((call, request))
            if len(self._spent) > _KEPT:
                self._spent.pop(self.source.randrange(_KEPT))
        return answer

    async def replay_one(self) -> None:
        """Send an envelope once more that had been accepted, of this start of the daemon or of an earlier one."""
        if not self._spent:
            return
        call, request = self.source.choice(self._spent)
        try:
            await self._stub("unary_unary", call)(request, timeout=_CALL_S)
            answer = "ACCEPTED"
        except grpc.aio.AioRpcError as error:
            refusal = decode_rpc_error(error, self.address)
            answer = "" if isinstance(refusal, Unreachable) else refusal.reason
        self.notes.write(Replayed(call.method, answer))

    def note_accepted(
        self, way: str, request_ids: Sequence[str], command_ids: Sequence[str], asked_s: float, *, durable: bool = True
    ) -> None:
        """Note an answer that says yes."""
        now_s = time.monotonic()
        self.notes.write(Accepted(way, tuple(request_ids), tuple(command_ids), asked_s, now_s, durable))

    def note_outcome(self, command: Command) -> None:
        """Note what the client was told of a command."""
        if command.state > 1:
            self.notes.write(Outcome(command.command_id, command.state, command.global_step))


def check(error: LeylineError) -> None:
    """A refusal is the daemon's right; a fault of its own is not."""
    assert not {error.status, error.reason} & {"INTERNAL", "UNKNOWN"}, error
