"""Signs requests: HMAC-SHA256 over the exact bytes of a header and a payload (design 01, Signed requests).

Any thread, without I/O; time and nonces are passed in. `sign` is the whole scheme; a `Signer` adds what a client
learns of its daemon, and adopts the epoch or the clock that a refusal reports.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, local_error
from esper.leyline.v1.envelope_pb2 import SignedEnvelope, SignedHeader
from esper.leyline.v1.kernel_pb2 import KernelSignature
from esper.leyline.v1.server_service_pb2 import GetServerInfoResponse

DOMAIN = b"ESPER-LEYLINE-REQUEST-V1\x00"
MANIFEST_DOMAIN = b"esper.leyline.v1.KernelManifest\x00"
NONCE_BYTES = 16


def sign(
    credentials: Credentials, *, audience: str, epoch: bytes, method: str, payload: bytes, now: float, nonce: bytes
) -> SignedEnvelope:
    """Sign one attempt to call `method` (its full name, `/package.Service/Method`).

    `payload` is the serialized message and is sent as it is; `now` is Unix time in seconds; `nonce` is 16 to 32 random
    bytes, new for every attempt.
    """
    header = SignedHeader(key_id=credentials.key_id, audience=audience, epoch=epoch, method=method, nonce=nonce)
    header.issue_time.FromNanoseconds(int(now * 1e9))
    header_bytes = header.SerializeToString()
    signature = hmac.digest(credentials.secret, signing_input(header_bytes, payload), "sha256")
    return SignedEnvelope(header=header_bytes, payload=payload, signature=signature)


def signing_input(header: bytes, payload: bytes) -> bytes:
    """The bytes under the MAC: the domain, then header and payload, each after its length in 8 bytes, big-endian."""
    return b"".join((DOMAIN, len(header).to_bytes(8, "big"), header, len(payload).to_bytes(8, "big"), payload))


def sign_manifest(credentials: Credentials, manifest: bytes) -> KernelSignature:
    """The signature of a kernel's manifest: HMAC-SHA256 over a domain and the manifest's exact bytes."""
    return KernelSignature(
        key_id=credentials.key_id, hmac=hmac.digest(credentials.secret, MANIFEST_DOMAIN + manifest, "sha256")
    )


@dataclass(slots=True)
class _Server:
    server_id: str
    epoch: bytes


class Signer:
    """Signs for one client, with what it has learnt of its daemon."""

    def __init__(
        self,
        credentials: Credentials | None,
        *,
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._credentials = credentials
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._server: _Server | None = None
        self._clock_offset_s = 0.0

    @property
    def knows_server(self) -> bool:
        """Whether the daemon's id and epoch are known."""
        return self._server is not None

    @property
    def key_id(self) -> str:
        """The key that signs; empty without credentials."""
        return "" if self._credentials is None else self._credentials.key_id

    def require_key(self) -> None:
        """Raise LeylineError NO_KEY when there is nothing to sign with."""
        if self._credentials is None:
            raise local_error("NO_KEY")

    def learn(self, info: GetServerInfoResponse) -> None:
        """Take over who the daemon is."""
        self._server = _Server(info.server_id, info.epoch)

    def adopt(self, refusal: LeylineError) -> bool:
        """Take over the epoch or the clock that a refusal reports. False when it reports none."""
        try:
            if refusal.reason == "EPOCH_STALE" and self._server is not None:
                self._server.epoch = bytes.fromhex(refusal.metadata["epoch"])
            elif refusal.reason == "TIMESTAMP_OUT_OF_WINDOW":
                self._clock_offset_s = float(refusal.metadata["server_time"]) - self._wall_clock()
            else:
                return False
        except (KeyError, ValueError):
            return False
        return True

    def exchange_key(self, refused_key_id: str) -> bool:
        """Whether there is another key than the refused one: its file is read again, as it may hold the successor."""
        if self._credentials is None or self._credentials.path is None:
            return False
        if self._credentials.key_id == refused_key_id:
            try:
                self._credentials = Credentials.load(self._credentials.path)
            except LeylineError:
                return False  # what was refused is the better thing to tell
        return self._credentials.key_id != refused_key_id

    def sign(self, method: str, payload: bytes) -> SignedEnvelope:
        """Sign one attempt with a fresh nonce and time. Raises LeylineError NO_KEY without credentials."""
        if self._credentials is None:
            raise local_error("NO_KEY")
        if self._server is None:
            raise RuntimeError("the daemon's id is not known yet; call learn first")
        return sign(
            self._credentials,
            audience=self._server.server_id,
            epoch=self._server.epoch,
            method=method,
            payload=payload,
            now=self._wall_clock() + self._clock_offset_s,
            nonce=self._random_bytes(NONCE_BYTES),
        )

    def sign_manifest(self, manifest: bytes) -> KernelSignature:
        """The signature of a kernel's manifest. Raises LeylineError NO_KEY without credentials."""
        if self._credentials is None:
            raise local_error("NO_KEY")
        return sign_manifest(self._credentials, manifest)

    def new_id(self) -> str:
        """A fresh id for a request or a report."""
        return self._random_bytes(16).hex()
