"""Signed envelopes: whatever the bytes, a request passes only if the signature is right, and is refused by the book."""

import hashlib
import hmac
import itertools
import json
from typing import Any

from esper.client.signing import signing_input
from esper.leyline.v1.command_service_pb2 import SubmitCommandRequest
from esper.leyline.v1.envelope_pb2 import SignedEnvelope, SignedHeader
from google.protobuf.message import DecodeError

from esperd.control.errors import status_of
from esperd.leyline.errors import CATALOGUE
from esperd.leyline.keyring import MAX_NAME_CHARS, Key, KeyRing
from esperd.leyline.nonces import NonceStore
from esperd.leyline.secret import Secret
from esperd.leyline.verify import RequestRefused, Verified, Verifier
from esperd.leyline.vocabulary import Permission
from tests.fuzz.target import Target, outcome
from tests.make_signing_vectors import AUDIENCE, EPOCH, KEY, METHOD, NOW, TARGET

MAX_STATUS_BYTES = 8192
"""A status travels as a header, of which clients take 8 KiB."""
MAX_NONCES = 50
INPUTS_PER_START = 1000
CAUSES = {name for name in CATALOGUE if CATALOGUE[name].code.startswith("E-AUTH")}


class Door:
    """A verifier with one key, and the envelopes that it has let in."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._begin()

    def _begin(self) -> None:
        """A new start of the daemon, at the time of the vectors: later all of them would be too old to pass."""
        self._accepted: set[bytes] = set()
        self._nonces = NonceStore(per_key=MAX_NONCES, total=MAX_NONCES)
        self._verifier = Verifier(
            keyring=KeyRing([Key("policy-2026a", "p", frozenset({Permission.COMMAND}), Secret(KEY))]),
            audience=AUDIENCE,
            epoch=EPOCH,
            wall_clock=lambda: float(NOW),
            monotonic=lambda: next(self._numbers) * 0.01,
            nonces=self._nonces,
        )

    def one_input(self, data: bytes) -> None:
        """The first byte says what the rest is: a whole request, its parts, or a header that a real key signs."""
        if next(self._numbers) % INPUTS_PER_START == 0:
            self._begin()
        kind, rest = data[:1], data[1:]
        if kind == b"s":
            self._send(SignedEnvelope(header=rest, payload=b"x", signature=_signature(rest, b"x")))
        elif kind == b"p":
            cut, body = rest[0] if rest else 0, rest[1:]
            self._send(SignedEnvelope(header=body[:cut], payload=body[cut:-32], signature=body[-32:]))
        else:
            try:
                self._send(SubmitCommandRequest.FromString(rest).envelope)
            except DecodeError:
                return

    def _send(self, envelope: SignedEnvelope) -> None:
        peer = f"ipv4:198.51.100.{next(self._numbers) % 5000}:1"
        verified, refused = outcome(lambda: self._verify(envelope, peer))
        if verified is not None:
            header = SignedHeader.FromString(envelope.header)
            assert hmac.compare_digest(_signature(envelope.header, envelope.payload), envelope.signature)
            assert (header.audience, header.epoch, header.method) == (AUDIENCE, EPOCH, METHOD)
            assert abs(header.issue_time.seconds - NOW) <= 61
            assert verified.payload_sha256 == hashlib.sha256(envelope.payload).digest()
            assert envelope.header not in self._accepted, "accepted twice"
            self._accepted.add(envelope.header)
        else:
            assert isinstance(refused, RequestRefused)
            assert refused.reason in CAUSES, refused.reason
            assert len(status_of(refused).SerializeToString()) < MAX_STATUS_BYTES
            assert refused.key_id.isprintable()
            assert len(refused.key_id) <= MAX_NAME_CHARS
        assert len(self._nonces) <= MAX_NONCES

    def _verify(self, envelope: SignedEnvelope, peer: str) -> Verified:
        return self._verifier.verify(
            method=METHOD,
            header=envelope.header,
            payload=envelope.payload,
            signature=envelope.signature,
            peer=peer,
            permission=Permission.COMMAND,
        )


def _signature(header: bytes, payload: bytes) -> bytes:
    return hmac.digest(KEY, signing_input(header, payload), "sha256")


def _seeds() -> list[bytes]:
    vectors: list[dict[str, Any]] = json.loads(TARGET.read_text())["vectors"]
    seeds = []
    for vector in vectors:
        header, payload, signature = (
            bytes.fromhex(vector[f"{part}_hex"]) for part in ("header", "payload", "signature")
        )
        if len(header) + len(payload) > 2000:
            continue
        envelope = SignedEnvelope(header=header, payload=payload, signature=signature)
        seeds.append(b"r" + SubmitCommandRequest(envelope=envelope).SerializeToString())
        seeds.append(b"s" + header)
        if len(header) < 256:
            seeds.append(b"p" + bytes([len(header)]) + header + payload + signature)
    return seeds


TARGETS = {
    "envelope": Target(Door().one_input, _seeds(), ("policy-2026a", AUDIENCE, METHOD)),
}
