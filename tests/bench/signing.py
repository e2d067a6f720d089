"""What the ten checks of a signed request cost; `python -m tests.bench.signing`.

Each row is the whole of `Verifier.verify` for one payload size, and its ratio to the two hashes (MAC and payload) that
no verifier can do without, measured in turn in the same run.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Sequence
from functools import partial

from esper.client.credentials import Credentials
from esper.client.signing import sign, signing_input
from esper.leyline.v1.envelope_pb2 import SignedEnvelope

from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.nonces import NonceStore
from esperd.leyline.secret import Secret
from esperd.leyline.verify import Verifier
from esperd.leyline.vocabulary import Permission
from tests.bench.report import AT_MOST, Row, arguments, median_row, publish

METHOD = "/esper.leyline.v1.CommandService/SubmitCommand"
EPOCH = bytes(16)
CREDENTIALS = Credentials("policy-1", "policy", bytes(range(32)))
SIZES = {200: 6.0, 4096: None, 65_536: None}
"""Payload bytes: goal in microseconds."""


def measure(num_bytes: int, num_rounds: int, num_requests: int) -> tuple[list[float], list[float]]:
    """Microseconds of a verification and of its bare hashes, one of each for every round."""
    verified, bare = [], []
    for _ in range(num_rounds):
        envelopes = [_signed(os.urandom(num_bytes)) for _ in range(num_requests)]
        verifier = _verifier(num_requests)
        verified.append(_mean_us(partial(_verify, verifier), envelopes))
        bare.append(_mean_us(_hash_only, envelopes))
    return verified, bare


def _mean_us(work: Callable[[SignedEnvelope], object], envelopes: Sequence[SignedEnvelope]) -> float:
    begun = time.perf_counter()
    for envelope in envelopes:
        work(envelope)
    return (time.perf_counter() - begun) / len(envelopes) * 1e6


def _verify(verifier: Verifier, envelope: SignedEnvelope) -> object:
    return verifier.verify(
        method=METHOD,
        header=envelope.header,
        payload=envelope.payload,
        signature=envelope.signature,
        peer="unix:",
        permission=Permission.COMMAND,
    )


def _hash_only(envelope: SignedEnvelope) -> object:
    made = hmac.digest(CREDENTIALS.secret, signing_input(envelope.header, envelope.payload), "sha256")
    return made, hashlib.sha256(envelope.payload).digest()


def _signed(payload: bytes) -> SignedEnvelope:
    return sign(
        CREDENTIALS,
        audience="esperd-1",
        epoch=EPOCH,
        method=METHOD,
        payload=payload,
        now=time.time(),
        nonce=os.urandom(16),
    )


def _verifier(num_requests: int) -> Verifier:
    key = Key(CREDENTIALS.key_id, CREDENTIALS.principal, frozenset({Permission.COMMAND}), Secret(CREDENTIALS.secret))
    return Verifier(
        keyring=KeyRing([key]),
        audience="esperd-1",
        epoch=EPOCH,
        wall_clock=time.time,
        monotonic=time.monotonic,
        nonces=NonceStore(per_key=num_requests, total=num_requests),
    )


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    rows: list[Row] = []
    for num_bytes, goal in SIZES.items():
        num_requests = 2000 if num_bytes < 10_000 else 200
        verified, bare = measure(num_bytes, 5 if options.quick else 25, num_requests)
        ratios = [whole / part for whole, part in zip(verified, bare, strict=True)]
        rows.append(median_row(f"verify.{num_bytes}_bytes", verified, "us", goal, AT_MOST))
        rows.append(median_row(f"verify.{num_bytes}_bytes.over_bare_hashes", ratios, "x"))
    publish(rows, as_json=options.json)


if __name__ == "__main__":
    main()
