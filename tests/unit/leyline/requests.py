"""Signed requests and verifiers for the tests of the rules, with clocks that a test moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from esper.leyline.v1.envelope_pb2 import SignedHeader

from esperd.leyline.keyring import Key, KeyRing, KeyState
from esperd.leyline.nonces import NonceStore
from esperd.leyline.secret import Secret
from esperd.leyline.throttle import FailureThrottle
from esperd.leyline.verify import Verified, Verifier, mac
from esperd.leyline.vocabulary import Permission

METHOD = "/esper.leyline.v1.CommandService/SubmitCommand"
AUDIENCE = "esperd-1"
EPOCH = bytes(range(16))
SECRET = bytes(range(32))
START_UNIX_S = 1_767_225_600.0
PEER = "ipv4:127.0.0.1:5"


def make_key(key_id: str = "policy-1", secret: bytes = SECRET, **facts: Any) -> Key:
    """An active key with the permission `command`."""
    given: dict[str, Any] = {"permissions": frozenset({Permission.COMMAND}), **facts}
    return Key(key_id=key_id, principal=f"principal of {key_id}", secret=Secret(secret), **given)


@dataclass
class Clocks:
    """A wall clock that may be stepped, and a monotonic one that only goes on."""

    wall_s: float = START_UNIX_S
    monotonic_s: float = 1000.0

    def pass_time(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.wall_s += seconds
        self.monotonic_s += seconds


@dataclass
class Envelope:
    """The three parts of a SignedEnvelope."""

    header: bytes
    payload: bytes
    signature: bytes


@dataclass(frozen=True)
class Parts:
    """The classes that a desk is made of; the model of the verifier puts mutants of them in their place."""

    verifier: type[Verifier] = Verifier
    nonces: type[NonceStore] = NonceStore
    mac: Callable[[bytes, bytes, bytes], bytes] = mac


@dataclass
class Desk:
    """A verifier with its clocks, and a signer beside it."""

    keys: list[Key] | None = field(default_factory=lambda: [make_key()])
    epoch: bytes = EPOCH
    clocks: Clocks = field(default_factory=Clocks)
    per_key: int = 4096
    total: int = 65_536
    num_signed: int = 0
    parts: Parts = Parts()

    def __post_init__(self) -> None:
        self.nonces = self.parts.nonces(self.per_key, self.total)
        self.verifier = self.parts.verifier(
            keyring=None if self.keys is None else KeyRing(self.keys),
            audience=AUDIENCE,
            epoch=self.epoch,
            wall_clock=lambda: self.clocks.wall_s,
            monotonic=lambda: self.clocks.monotonic_s,
            nonces=self.nonces,
            throttle=FailureThrottle(),
        )

    def sign(self, payload: bytes = b"payload", key: Key | None = None, **changes: Any) -> Envelope:
        """An envelope that passes, except for the header fields that are changed."""
        key = make_key() if key is None else key
        self.num_signed += 1
        header = SignedHeader(
            key_id=key.key_id,
            audience=AUDIENCE,
            epoch=self.epoch,
            method=METHOD,
            nonce=self.num_signed.to_bytes(16, "big"),
        )
        issue_s = float(changes.pop("issue_unix_s", self.clocks.wall_s))
        # Apart, since nanoseconds since 1970 are more than a float holds.
        header.issue_time.seconds, header.issue_time.nanos = int(issue_s // 1), int(issue_s % 1 * 1e9)
        for name, value in changes.items():
            setattr(header, name, value)
        body = header.SerializeToString()
        return Envelope(body, payload, self.parts.mac(key.secret.reveal(), body, payload))

    def verify(
        self,
        envelope: Envelope,
        *,
        method: str = METHOD,
        peer: str = PEER,
        permission: Permission = Permission.COMMAND,
    ) -> Verified:
        """Let the verifier judge it."""
        return self.verifier.verify(
            method=method,
            header=envelope.header,
            payload=envelope.payload,
            signature=envelope.signature,
            peer=peer,
            permission=permission,
        )


REVOKED = KeyState.REVOKED
RETIRING = KeyState.RETIRING
