"""A verifier that forgets nothing: design 01's checks 5 to 10 stated plainly, for the real one to stand against.

It keeps every claim ever made and looks through all of them each time, so that it has no watermark to get wrong, no
deque to pop, and no table to bound. Times are what the test's clocks say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from esperd.leyline.keyring import Key, KeyState
from esperd.leyline.vocabulary import Permission
from tests.unit.leyline.requests import Clocks, Envelope

FRESHNESS_S = 60.0
RETENTION_S = 300.0
OPEN_STATES = (KeyState.ACTIVE, KeyState.RETIRING)


@dataclass(frozen=True)
class Sent:
    """One genuine envelope as its signer made it."""

    envelope: Envelope
    key_id: str
    nonce: bytes
    issue_unix_s: float
    epoch: bytes


@dataclass(frozen=True)
class Claim:
    """A nonce that was used up."""

    key_id: str
    nonce: bytes
    issue_unix_s: float
    expires_s: float
    """On the monotonic clock."""


@dataclass
class PerfectMemory:
    """What the verifier must answer in one start of the daemon."""

    clocks: Clocks
    epoch: bytes
    per_key: int
    total: int
    claims: list[Claim] = field(default_factory=list)

    def answer(self, sent: Sent, ring: Mapping[str, Key], permission: Permission) -> str:
        """The reason that a genuine envelope must be refused with, empty if it must pass. Remembers what it used up."""
        reason = self._before_the_nonce(sent, ring) or self._nonce(sent)
        if reason:
            return reason
        expires_s = self.clocks.monotonic_s + RETENTION_S
        self.claims.append(Claim(sent.key_id, sent.nonce, sent.issue_unix_s, expires_s))
        allowed = {Permission.OBSERVE, *ring[sent.key_id].permissions}  # who may sign at all may look
        return "" if permission in allowed else "PERMISSION_REQUIRED"

    def room_in_s(self, key_id: str) -> float:
        """After how many seconds one more nonce of this key has room; 0 when it has."""
        of_key = [claim for claim in self.live() if claim.key_id == key_id]
        full = of_key if len(of_key) >= self.per_key else self.live() if len(self.live()) >= self.total else []
        return min((claim.expires_s for claim in full), default=self.clocks.monotonic_s) - self.clocks.monotonic_s

    def live(self) -> list[Claim]:
        """The claims that are still remembered by a store with the stated retention."""
        return [claim for claim in self.claims if claim.expires_s > self.clocks.monotonic_s]

    def newest_forgotten_unix_s(self) -> float:
        """The newest issue time among the claims that are over; minus infinity if none is."""
        over = (claim.issue_unix_s for claim in self.claims if claim.expires_s <= self.clocks.monotonic_s)
        return max(over, default=float("-inf"))

    def _before_the_nonce(self, sent: Sent, ring: Mapping[str, Key]) -> str:
        if sent.key_id not in ring:
            return "SIGNATURE_INVALID"
        if ring[sent.key_id].state(self.clocks.wall_s) not in OPEN_STATES:
            return "KEY_NOT_ACTIVE"
        if sent.epoch != self.epoch:
            return "EPOCH_STALE"
        is_fresh = abs(self.clocks.wall_s - sent.issue_unix_s) <= FRESHNESS_S
        if not is_fresh or sent.issue_unix_s <= self.newest_forgotten_unix_s():
            return "TIMESTAMP_OUT_OF_WINDOW"
        return ""

    def _nonce(self, sent: Sent) -> str:
        if any((claim.key_id, claim.nonce) == (sent.key_id, sent.nonce) for claim in self.live()):
            return "NONCE_REPLAYED"
        return "NONCE_CAPACITY" if self.room_in_s(sent.key_id) > 0 else ""
