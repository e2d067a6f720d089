"""Decides whether a signed request is genuine, fresh, unused and permitted: checks 1 to 10 of design 01.

One thread (the event loop), without I/O: the clocks are passed in, the key ring is a value that a reload replaces.
What the caller learns stays vague until its signature is proven; the true cause travels beside it, for the audit log.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from esper.leyline.v1.envelope_pb2 import SignedHeader
from google.protobuf.message import DecodeError

from esperd.leyline.errors import EsperdError
from esperd.leyline.keyring import MAX_NAME_CHARS, Key, KeyRing, KeyState
from esperd.leyline.nonces import NonceCapacity, NonceReplayed, NonceStore
from esperd.leyline.peers import is_unix
from esperd.leyline.throttle import FailureThrottle
from esperd.leyline.vocabulary import Permission

DOMAIN = b"ESPER-LEYLINE-REQUEST-V1\x00"
"""Begins every signing input, so that no MAC of another protocol fits."""
MAX_HEADER_BYTES = 1024
MAX_PAYLOAD_BYTES = 1 << 20
MIN_NONCE_BYTES = 16
MAX_NONCE_BYTES = 32
FRESHNESS_S = 60.0

_DUMMY_SECRET = bytes(range(32))
"""An unknown key costs the same MAC as a known one; what it equals is never accepted."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A request that passed, with the very bytes that were signed."""

    key_id: str
    principal: str
    payload: bytes
    payload_sha256: bytes


class RequestRefused(EsperdError):
    """A signed request that did not pass."""

    def __init__(self, reason: str, audit_cause: str, key_id: str = "", **metadata: object) -> None:
        super().__init__(reason, **metadata)
        self.audit_cause = audit_cause
        """The true cause, for the audit log and never for the caller."""
        self.key_id = key_id
        """The key id as claimed; only proven when the cause is a later one than the signature."""
        self.principal = str(metadata.get("principal", ""))
        """Who it was, when nothing but the permission was wanting; a request that may be a replay proves nobody."""


class Verifier:
    """Checks signed requests for one start of the daemon."""

    def __init__(
        self,
        *,
        keyring: KeyRing | None,
        audience: str,
        epoch: bytes,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        nonces: NonceStore | None = None,
        throttle: FailureThrottle | None = None,
    ) -> None:
        self._keyring = keyring
        self._audience = audience
        self._epoch = epoch
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._nonces = NonceStore() if nonces is None else nonces
        self._throttle = FailureThrottle() if throttle is None else throttle

    @property
    def keyring(self) -> KeyRing | None:
        """The ring in force; None means that no signed request can be accepted."""
        return self._keyring

    def replace_keyring(self, keyring: KeyRing | None) -> None:
        """Use another ring from the next request on; nonces and failures stay remembered."""
        self._keyring = keyring

    def verify(
        self, *, method: str, header: bytes, payload: bytes, signature: bytes, peer: str, permission: Permission
    ) -> Verified:
        """Check one request. `method` is the full name of the method that was called, `peer` the transport's name.

        Raises RequestRefused with the reason of the first check that fails, in the order of the design's table. Its
        metadata holds `retry_after_s` where waiting helps, `epoch` (hex) on EPOCH_STALE, and `server_time` (Unix
        seconds) on TIMESTAMP_OUT_OF_WINDOW.
        """
        _check_size(header, payload)
        now_s = self._monotonic()
        parsed = _parse(header)
        bucket = _bucket(peer, parsed)
        wait_s = self._throttle.wait_s(bucket, now_s)
        if wait_s > 0.0 and not self._is_shared(peer, bucket):
            raise _throttled(bucket, wait_s)
        if self._keyring is None:
            raise RequestRefused("NO_KEYRING", "no key ring is loaded", _claimed(parsed))
        try:
            if not header or not signature:
                raise RequestRefused("SIGNATURE_MISSING", "no header" if not header else "no signature")
            fields = _well_formed(parsed)
            key = self._authenticate(self._keyring, fields, header, payload, signature)
        except RequestRefused as refusal:
            if wait_s > 0.0:
                raise _throttled(bucket, wait_s) from refusal
            self._throttle.record_failure(bucket, now_s)
            raise
        return self._admit(key, fields, method, payload, permission, now_s)

    def _is_shared(self, peer: str, bucket: str) -> bool:
        """Whether others fill the bucket too: anybody on a Unix socket, and everybody once there are too many peers."""
        return is_unix(peer) or not self._throttle.knows(bucket)

    def _authenticate(
        self, ring: KeyRing, fields: SignedHeader, header: bytes, payload: bytes, signature: bytes
    ) -> Key:
        key = ring.find(fields.key_id)
        secret = _DUMMY_SECRET if key is None else key.secret.reveal()
        genuine = hmac.compare_digest(mac(secret, header, payload), signature)
        if key is None:
            raise RequestRefused("SIGNATURE_INVALID", "unknown key", _claimed(fields))
        if not genuine:
            raise RequestRefused("SIGNATURE_INVALID", "wrong signature", key.key_id)
        return key

    def _admit(
        self, key: Key, fields: SignedHeader, method: str, payload: bytes, permission: Permission, now_s: float
    ) -> Verified:
        wall_s = self._wall_clock()
        state = key.state(wall_s)
        if state is not KeyState.ACTIVE and state is not KeyState.RETIRING:
            raise RequestRefused("KEY_NOT_ACTIVE", f"key is {state}", key.key_id, state=state)
        self._check_address(fields, method)
        issue_s = fields.issue_time.seconds + fields.issue_time.nanos * 1e-9
        self._check_fresh(key, issue_s, wall_s, now_s)
        self._claim_nonce(key, fields.nonce, issue_s, now_s)
        if not key.allows(permission):
            needed = permission.name.lower()
            raise RequestRefused(
                "PERMISSION_REQUIRED", f"lacks {needed}", key.key_id, principal=key.principal, permission=needed
            )
        digest = hashlib.sha256(payload).digest()
        return Verified(key.key_id, key.principal, payload, digest)

    def _check_address(self, fields: SignedHeader, method: str) -> None:
        if fields.audience != self._audience:
            raise RequestRefused(
                "AUDIENCE_MISMATCH",
                "signed for another daemon",
                fields.key_id,
                got=fields.audience,
                audience=self._audience,
            )
        if fields.method != method:
            raise RequestRefused(
                "METHOD_MISMATCH", "signed for another method", fields.key_id, got=fields.method, method=method
            )
        if fields.epoch != self._epoch:
            raise RequestRefused("EPOCH_STALE", "signed for another start", fields.key_id, epoch=self._epoch.hex())

    def _check_fresh(self, key: Key, issue_s: float, wall_s: float, now_s: float) -> None:
        self._nonces.expire(now_s)
        if abs(wall_s - issue_s) > FRESHNESS_S:
            cause = f"issued {issue_s - wall_s:+.3f} s from now"
        elif issue_s <= self._nonces.watermark_unix_s:
            cause = "issued at or before the newest forgotten nonce"
        else:
            return
        raise RequestRefused(
            "TIMESTAMP_OUT_OF_WINDOW", cause, key.key_id, window_s=f"{FRESHNESS_S:.0f}", server_time=f"{wall_s:.6f}"
        )

    def _claim_nonce(self, key: Key, nonce: bytes, issue_s: float, now_s: float) -> None:
        try:
            self._nonces.claim(key.key_id, nonce, issue_s, now_s)
        except NonceReplayed:
            raise RequestRefused("NONCE_REPLAYED", "nonce used before", key.key_id) from None
        except NonceCapacity as full:
            raise RequestRefused(
                "NONCE_CAPACITY",
                f"nonce store full ({full.scope})",
                key.key_id,
                retry_after_s=f"{full.retry_after_s:.3f}",
            ) from None


def mac(secret: bytes, header: bytes, payload: bytes) -> bytes:
    """The 32 bytes of HMAC-SHA256 over the signing input of design 01."""
    framed = b"".join(
        (DOMAIN, len(header).to_bytes(8, "big"), header, len(payload).to_bytes(8, "big"), payload),
    )
    return hmac.digest(secret, framed, "sha256")


def _check_size(header: bytes, payload: bytes) -> None:
    if len(header) > MAX_HEADER_BYTES:
        _raise_too_large("header", len(header), MAX_HEADER_BYTES)
    if len(payload) > MAX_PAYLOAD_BYTES:
        _raise_too_large("payload", len(payload), MAX_PAYLOAD_BYTES)


def _raise_too_large(part: str, size: int, limit: int) -> None:
    raise RequestRefused("ENVELOPE_TOO_LARGE", f"{part} of {size} bytes", part=part, size=size, limit=limit)


def _parse(header: bytes) -> SignedHeader | None:
    try:
        return SignedHeader.FromString(header)
    except DecodeError:
        return None


def _claimed(parsed: SignedHeader | None) -> str:
    """The key id that a request states, fit for a log: nobody has vouched for it."""
    if parsed is None:
        return ""
    key_id = parsed.key_id
    return key_id if len(key_id) <= MAX_NAME_CHARS and key_id.isprintable() else "(not a key id)"


def _bucket(peer: str, parsed: SignedHeader | None) -> str:
    # Every client of a Unix socket has the same peer name. One bucket for all of them would let one misconfigured
    # client lock the others out, emergencies included; so there the claimed key has the bucket. Anybody may claim a
    # key, so its bucket slows only those who cannot prove it: who merely names it does not lock its holder out.
    return f"{peer} {_claimed(parsed)}" if is_unix(peer) else peer


def _throttled(bucket: str, wait_s: float) -> RequestRefused:
    return RequestRefused("AUTH_THROTTLED", f"throttled: {bucket}", retry_after_s=f"{wait_s:.3f}")


def _well_formed(parsed: SignedHeader | None) -> SignedHeader:
    if parsed is None:
        problem = "it is not a SignedHeader"
    elif not MIN_NONCE_BYTES <= len(parsed.nonce) <= MAX_NONCE_BYTES:
        problem = f"the nonce has {len(parsed.nonce)} bytes"
    elif not parsed.key_id:
        problem = "it names no key"
    elif not parsed.HasField("issue_time") or not 0 <= parsed.issue_time.nanos < 1_000_000_000:
        problem = "it has no valid issue time"
    else:
        return parsed
    raise RequestRefused("ENVELOPE_MALFORMED", problem, _claimed(parsed), detail=problem)
