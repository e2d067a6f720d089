"""The published vectors: the verifier, the SDK's signer and openssl agree on every byte."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from esper.client.signing import signing_input
from esper.leyline.v1.command_pb2 import AdaptationCommand

from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.secret import Secret
from esperd.leyline.verify import RequestRefused, Verifier, mac
from esperd.leyline.vocabulary import Permission
from tests.make_signing_vectors import TARGET, document

VECTORS: list[dict[str, Any]] = json.loads(TARGET.read_text())["vectors"]
NAMES = [vector["name"] for vector in VECTORS]
GENUINE = [vector for vector in VECTORS if vector["expected"] in ("OK", "EPOCH_STALE", "TIMESTAMP_OUT_OF_WINDOW")]


def part(vector: dict[str, Any], name: str) -> bytes:
    """One field of a vector as bytes."""
    return bytes.fromhex(vector[f"{name}_hex"])


def judge(vector: dict[str, Any]) -> str:
    """What the daemon's verifier says."""
    context = vector["context"]
    key = Key(vector["key_id"], "p", frozenset({Permission.COMMAND}), Secret(part(vector, "key")))
    verifier = Verifier(
        keyring=KeyRing([key]),
        audience=context["audience"],
        epoch=bytes.fromhex(context["epoch_hex"]),
        wall_clock=lambda: context["now_unix_s"],
        monotonic=lambda: 7.0,
    )
    try:
        verifier.verify(
            method=context["method"],
            header=part(vector, "header"),
            payload=part(vector, "payload"),
            signature=part(vector, "signature"),
            peer="peer",
            permission=Permission.COMMAND,
        )
    except RequestRefused as refused:
        return refused.reason
    return "OK"


def test_file_is_the_one_that_the_generator_makes() -> None:
    """The vectors are deterministic."""
    assert TARGET.read_text() == document()


def test_there_are_enough_and_most_are_negative() -> None:
    """At least 40, each with a name of its own, most of them refused, every reason up to the nonce among them."""
    assert len(VECTORS) >= 40
    assert len(set(NAMES)) == len(NAMES)
    assert sum(vector["expected"] != "OK" for vector in VECTORS) > len(VECTORS) // 2
    assert {vector["expected"] for vector in VECTORS} == {
        "OK",
        "ENVELOPE_TOO_LARGE",
        "SIGNATURE_MISSING",
        "ENVELOPE_MALFORMED",
        "SIGNATURE_INVALID",
        "AUDIENCE_MISMATCH",
        "METHOD_MISMATCH",
        "EPOCH_STALE",
        "TIMESTAMP_OUT_OF_WINDOW",
    }


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_verifier(vector: dict[str, Any]) -> None:
    """The daemon gives exactly the stated reason."""
    assert judge(vector) == vector["expected"]


@pytest.mark.parametrize("vector", GENUINE, ids=[vector["name"] for vector in GENUINE])
def test_signers_make_the_signature(vector: dict[str, Any]) -> None:
    """Daemon and SDK frame and sign to the very bytes of the vector."""
    header, payload = part(vector, "header"), part(vector, "payload")
    assert mac(part(vector, "key"), header, payload) == part(vector, "signature")
    head = header.hex()
    assert signing_input(header, payload).hex() == (
        b"ESPER-LEYLINE-REQUEST-V1\x00".hex() + f"{len(header):016x}{head}{len(payload):016x}{payload.hex()}"
    )


def test_payload_is_a_command() -> None:
    """The plain vector carries a real message of the contract."""
    assert AdaptationCommand.FromString(part(VECTORS[0], "payload")).request_id == "req1"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_makes_the_signature() -> None:
    """`openssl dgst -mac HMAC` over the signing input gives the signature, or differs where it is invalid."""
    for vector in VECTORS:
        if vector["expected"] not in ("OK", "SIGNATURE_INVALID", "EPOCH_STALE", "METHOD_MISMATCH"):
            continue
        made = subprocess.run(
            ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{vector['key_hex']}", "-binary"],
            input=signing_input(part(vector, "header"), part(vector, "payload")),
            capture_output=True,
            check=True,
        ).stdout
        assert (made == part(vector, "signature")) == (vector["expected"] != "SIGNATURE_INVALID"), vector["name"]
