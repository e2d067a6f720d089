"""Makes protos/vectors/signing.json, the test vectors of signed requests; `python -m tests.make_signing_vectors`.

Everything is fixed, so the file is the same everywhere; a test compares it. Header bytes are written out by hand here,
independently of the signer and the verifier that are tested with them. Each vector has the key, the three parts of the
envelope, the context of its verification, and the reason that a verifier must give, or OK.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "protos" / "vectors" / "signing.json"

DOMAIN = b"ESPER-LEYLINE-REQUEST-V1\x00"
KEY = bytes(range(32))
OTHER_KEY = bytes(range(64, 96))
LONG_KEY = bytes(range(100, 164))
EPOCH = bytes.fromhex("00112233445566778899aabbccddeeff")
METHOD = "/esper.leyline.v1.CommandService/SubmitCommand"
AUDIENCE = "esperd-6f1c2a8e"
NOW = 1_767_225_600
NONCE = bytes(range(0xA0, 0xB0))
PAYLOAD = bytes.fromhex("420472657131")  # AdaptationCommand.request_id = "req1"


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def timestamp(seconds: int, nanos: int = 0) -> bytes:
    """A google.protobuf.Timestamp."""
    body = (b"\x08" + varint(seconds & (1 << 64) - 1) if seconds else b"") + (b"\x10" + varint(nanos) if nanos else b"")
    return text(5, body)


def header(
    key_id: str = "policy-2026a",
    audience: str = AUDIENCE,
    epoch: bytes = EPOCH,
    method: str = METHOD,
    issue_time: bytes | None = None,
    nonce: bytes = NONCE,
    extra: bytes = b"",
) -> bytes:
    """A SignedHeader, fields in the order of their numbers; empty fields are left out, as in proto3."""
    fields = [(1, key_id.encode()), (2, audience.encode()), (3, epoch), (4, method.encode())]
    front = b"".join(text(number, value) for number, value in fields if value)
    time = timestamp(NOW) if issue_time is None else issue_time
    return front + time + (text(6, nonce) if nonce else b"") + extra


def framed(head: bytes, payload: bytes, domain: bytes = DOMAIN) -> bytes:
    """The signing input."""
    return domain + len(head).to_bytes(8, "big") + head + len(payload).to_bytes(8, "big") + payload


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, written out as RFC 2104 defines it."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


@dataclass(frozen=True)
class Vector:
    """One vector; `signature` follows from key, header and payload unless it is given."""

    name: str
    expected: str = "OK"
    header: bytes = field(default_factory=header)
    payload: bytes = PAYLOAD
    key: bytes = KEY
    signature: bytes | None = None
    context: dict[str, object] = field(default_factory=dict)

    def entry(self) -> dict[str, object]:
        """The vector as it is written."""
        signature = mac(self.key, framed(self.header, self.payload)) if self.signature is None else self.signature
        own: dict[str, object] = {"audience": AUDIENCE, "epoch_hex": EPOCH.hex(), "method": METHOD, "now_unix_s": NOW}
        return {
            "name": self.name,
            "expected": self.expected,
            "key_id": "policy-2026a",
            "key_hex": self.key.hex(),
            "header_hex": self.header.hex(),
            "payload_hex": self.payload.hex(),
            "signature_hex": signature.hex(),
            "context": own | self.context,
        }


def vectors() -> list[Vector]:
    """Every vector."""
    return [*_good(), *_tampered(), *_wrong_input(), *_malformed(), *_mismatched(), *_stale()]


def _good() -> list[Vector]:
    other = "/esper.leyline.v1.EmergencyService/RaiseEmergency"
    return [
        Vector("plain"),
        Vector("empty payload", payload=b""),
        Vector("payload of 4096 bytes", payload=bytes(range(256)) * 16),
        Vector("key of 64 bytes", key=LONG_KEY),
        Vector("nonce of 32 bytes", header=header(nonce=bytes(range(32)))),
        Vector("another method", header=header(method=other), context={"method": other}),
        Vector("issued 60 s ago", header=header(issue_time=timestamp(NOW - 60))),
        Vector("issued 60 s ahead", header=header(issue_time=timestamp(NOW + 60))),
        Vector("issued with nanoseconds", header=header(issue_time=timestamp(NOW - 1, 999_999_999))),
        Vector("unknown header field is signed and ignored", header=header(extra=text(99, b"later"))),
        Vector("method twice, the last one counts", header=text(4, b"/wrong") + header()),
        Vector("fields out of order", header=text(6, NONCE) + header(nonce=b"")),
        Vector("signed payload with an unknown field", payload=PAYLOAD + text(999, b"x")),
    ]


def _tampered() -> list[Vector]:
    """A genuine envelope, changed after it was signed."""
    genuine = mac(KEY, framed(header(), PAYLOAD))
    flipped = bytes([genuine[0] ^ 1]) + genuine[1:]
    last = genuine[:-1] + bytes([genuine[-1] ^ 0x80])
    base = Vector("", "SIGNATURE_INVALID", signature=genuine)
    return [
        replace(base, name="payload changed", payload=PAYLOAD[:-1] + b"2"),
        replace(base, name="payload with a trailing byte", payload=PAYLOAD + b"\x00"),
        replace(base, name="payload cut short", payload=PAYLOAD[:-1]),
        replace(base, name="payload removed", payload=b""),
        replace(base, name="key id changed", header=header(key_id="policy-2026b")),
        replace(base, name="audience changed", header=header(audience="esperd-other")),
        replace(base, name="epoch changed", header=header(epoch=bytes(16))),
        replace(base, name="method changed", header=header(method=METHOD + "s")),
        replace(base, name="issue time changed", header=header(issue_time=timestamp(NOW + 1))),
        replace(base, name="nonce changed", header=header(nonce=NONCE[::-1])),
        replace(base, name="header with a trailing field", header=header(extra=text(99, b"x"))),
        replace(base, name="header field twice", header=header(extra=text(4, METHOD.encode()))),
        replace(base, name="signature truncated to 31 bytes", signature=genuine[:31]),
        replace(base, name="signature truncated to 16 bytes", signature=genuine[:16]),
        replace(base, name="signature with a trailing byte", signature=genuine + b"\x00"),
        replace(base, name="signature with its first bit flipped", signature=flipped),
        replace(base, name="signature with its last bit flipped", signature=last),
        replace(base, name="signature of zeros", signature=bytes(32)),
        replace(base, name="signature in hexadecimal", signature=genuine.hex().encode()),
    ]


def _wrong_input() -> list[Vector]:
    """Signed with the right key or the right bytes, but not both."""
    head = header()
    swapped = DOMAIN + len(PAYLOAD).to_bytes(8, "big") + head + len(head).to_bytes(8, "big") + PAYLOAD
    little = DOMAIN + len(head).to_bytes(8, "little") + head + len(PAYLOAD).to_bytes(8, "little") + PAYLOAD
    short = DOMAIN + len(head).to_bytes(4, "big") + head + len(PAYLOAD).to_bytes(4, "big") + PAYLOAD
    inputs = {
        "signed without the zero byte of the domain": framed(head, PAYLOAD, DOMAIN[:-1]),
        "signed for another domain": framed(head, PAYLOAD, b"ESPER-LEYLINE-KERNEL-V1\x00"),
        "signed without a domain": framed(head, PAYLOAD, b""),
        "signed without lengths": DOMAIN + head + PAYLOAD,
        "signed with swapped lengths": swapped,
        "signed with little-endian lengths": little,
        "signed with lengths of 4 bytes": short,
        "signed payload before header": framed(PAYLOAD, head),
        "signed payload only": framed(b"", PAYLOAD),
    }
    sha1 = hmac.digest(KEY, framed(head, PAYLOAD), "sha1")
    return [
        *(Vector(name, "SIGNATURE_INVALID", signature=mac(KEY, message)) for name, message in inputs.items()),
        Vector("signed with another key", "SIGNATURE_INVALID", signature=mac(OTHER_KEY, framed(head, PAYLOAD))),
        Vector("signed with SHA-1", "SIGNATURE_INVALID", signature=sha1.ljust(32, b"\0")),
    ]


def _malformed() -> list[Vector]:
    malformed = "ENVELOPE_MALFORMED"
    return [
        Vector("no signature", "SIGNATURE_MISSING", signature=b""),
        Vector("no header", "SIGNATURE_MISSING", header=b""),
        Vector("everything empty", "SIGNATURE_MISSING", header=b"", payload=b"", signature=b""),
        Vector("header is not protobuf", malformed, header=b"\xff\xff\xff\xff"),
        Vector("header cut short", malformed, header=header()[:-1]),
        Vector("nonce missing", malformed, header=header(nonce=b"")),
        Vector("nonce of 15 bytes", malformed, header=header(nonce=NONCE[:15])),
        Vector("nonce of 33 bytes", malformed, header=header(nonce=bytes(range(33)))),
        Vector("key id missing", malformed, header=header(key_id="")),
        Vector("issue time missing", malformed, header=header(issue_time=b"")),
        Vector("issue time with 2000000000 ns", malformed, header=header(issue_time=timestamp(NOW, 2_000_000_000))),
        Vector("header of 1025 bytes", "ENVELOPE_TOO_LARGE", header=header().ljust(1025, b"\0")),
    ]


def _mismatched() -> list[Vector]:
    return [
        Vector("signed for another daemon", "AUDIENCE_MISMATCH", header=header(audience="esperd-other")),
        Vector("audience missing", "AUDIENCE_MISMATCH", header=header(audience="")),
        Vector("signed for another method", "METHOD_MISMATCH", context={"method": METHOD + "s"}),
        Vector("method without its slash", "METHOD_MISMATCH", header=header(method=METHOD[1:])),
        Vector("method twice, the wrong one last", "METHOD_MISMATCH", header=header(extra=text(4, b"/wrong"))),
        Vector("epoch of an earlier start", "EPOCH_STALE", header=header(epoch=EPOCH[::-1])),
        Vector("epoch missing", "EPOCH_STALE", header=header(epoch=b"")),
        Vector("epoch cut short", "EPOCH_STALE", header=header(epoch=EPOCH[:8])),
    ]


def _stale() -> list[Vector]:
    window = "TIMESTAMP_OUT_OF_WINDOW"
    return [
        Vector("issued 61 s ago", window, header=header(issue_time=timestamp(NOW - 61))),
        Vector("issued 61 s ahead", window, header=header(issue_time=timestamp(NOW + 61))),
        Vector("issued 60.001 s ahead", window, header=header(issue_time=timestamp(NOW + 60, 1_000_000))),
        Vector("issued in 1970", window, header=header(issue_time=timestamp(0))),
        Vector("issued before 1970", window, header=header(issue_time=timestamp(-1))),
        Vector("issued in the far future", window, header=header(issue_time=timestamp(1 << 62))),
    ]


def document() -> str:
    """The whole file."""
    about = (
        "Test vectors of signed requests (esper/leyline/v1/envelope.proto). expected is OK or the reason of the first "
        "check that fails, for a verifier that knows exactly one active key: key_id with key_hex."
    )
    entries = [vector.entry() for vector in vectors()]
    return json.dumps({"about": about, "domain_hex": DOMAIN.hex(), "vectors": entries}, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document())
