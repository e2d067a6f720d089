"""The gate: verifies signed messages, says who they are from, and leaves their rows in the audit trail.

Event loop only. Every signed message passes here, whether it comes alone or on a stream.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from esper.leyline.v1 import envelope_pb2

from esperd.control.audit import AuditTrail
from esperd.control.call import Call
from esperd.control.connections import Connections
from esperd.control.rates import Rates
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import RequestRefused, Verified, Verifier
from esperd.oona.records import ACCEPTED, AuditEntry

LEFT = "its caller left before the answer; what it asked for may have been done"


class Gate:
    """Lets genuine messages through."""

    def __init__(
        self,
        verifier: Verifier,
        trail: AuditTrail,
        connections: Connections,
        rates: Rates,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._trail = trail
        self._connections = connections
        self._rates = rates
        self._clock = clock

    def verify(self, policy: MethodPolicy, envelope: envelope_pb2.SignedEnvelope, call: Call) -> Verified:
        """Checks 1 to 10 of the design, then the principal's rate; refusals go into the trail.

        Raises:
            RequestRefused: it is not genuine, or not allowed; its true cause is in the trail.
            EsperdError: RATE_LIMITED.
        """
        try:
            if policy.unix_only and not call.is_unix:
                raise RequestRefused("UNIX_SOCKET_ONLY", "came over TCP", method=policy.method)
            verified = self._verifier.verify(
                method=policy.method,
                header=envelope.header,
                payload=envelope.payload,
                signature=envelope.signature,
                peer=call.peer,
                permission=policy.permission,
            )
        except RequestRefused as refusal:
            # Of a request that nobody signed the payload says nothing, and hashing a megabyte for it is work.
            self._trail.refused(
                AuditEntry(
                    refusal.principal,
                    refusal.key_id,
                    call.peer,
                    policy.method,
                    hashlib.sha256(envelope.payload).digest() if refusal.principal else b"",
                    refusal.reason,
                    refusal.audit_cause,
                    self._clock(),
                )
            )
            raise
        self._connections.note_signer(verified.key_id, verified.principal, call.stream)
        try:
            self._rates.take(policy.method, verified.principal)
        except EsperdError as refusal:
            self.note(policy, verified, call, refusal)
            raise
        return verified

    @contextmanager
    def noting(self, policy: MethodPolicy, verified: Verified, call: Call) -> Iterator[None]:
        """Write how a genuine request is answered here, also when it is not: its caller may leave before that."""
        try:
            yield
        except EsperdError as refusal:
            self.note(policy, verified, call, refusal)
            raise
        except asyncio.CancelledError:
            self.note(policy, verified, call, detail=LEFT)
            raise
        except Exception as fault:
            self.note(policy, verified, call, EsperdError("INTERNAL", detail=type(fault).__name__))
            raise
        self.note(policy, verified, call)

    @contextmanager
    def noting_refusal(self, policy: MethodPolicy, verified: Verified, call: Call) -> Iterator[None]:
        """Write why a genuine message of many is refused; that the others were taken is one row, at their end."""
        try:
            yield
        except EsperdError as refusal:
            self.note(policy, verified, call, refusal)
            raise

    def note(
        self,
        policy: MethodPolicy,
        verified: Verified,
        call: Call,
        refusal: EsperdError | None = None,
        *,
        detail: str = "",
    ) -> None:
        """Write how a genuine request was answered; `detail` is what else there is to say of one that was accepted."""
        if not policy.audited:
            return
        decision, detail = (ACCEPTED, detail) if refusal is None else (refusal.reason, refusal.message)
        entry = AuditEntry(
            verified.principal,
            verified.key_id,
            call.peer,
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
