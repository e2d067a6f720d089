"""Remembers which nonces have been used, so that no signed request is accepted twice.

One thread (the event loop). Bounded and fail-closed: a live nonce is never forgotten to make room. Expiry runs on the
monotonic clock; an eviction watermark keeps a stepped wall clock from reopening a replay. Clocks are passed in.
Design 01, Freshness.
"""

from collections import deque
from dataclasses import dataclass, field


class NonceReplayed(Exception):
    """The nonce has been used with this key."""


class NonceCapacity(Exception):
    """The store is full, for one key (`scope` is `key`) or in all (`total`), for another `retry_after_s`."""

    def __init__(self, scope: str, retry_after_s: float) -> None:
        self.scope = scope
        self.retry_after_s = retry_after_s
        super().__init__(scope)


@dataclass(slots=True)
class _Seen:
    """The live nonces of one key, oldest first: (expiry on the monotonic clock, nonce, issue time)."""

    key_id: str
    nonces: set[bytes] = field(default_factory=set)
    order: deque[tuple[float, bytes, float]] = field(default_factory=deque)


NONCES_PER_KEY = 65_536
"""Over five minutes that is 218 signed messages a second from one key (200 bytes each): a policy that answers twenty
packets a second stays far below, 4,096 would stop it after three minutes. Batches carry higher rates."""

NONCES_IN_ALL = 262_144


class NonceStore:
    """Nonces for `retention_s` after their acceptance, at most `per_key` of one key and `total` in all.

    Every retention is equally long, so the order of acceptance is the order of expiry and each insertion expires what
    is due in amortised constant time.
    """

    def __init__(self, per_key: int = NONCES_PER_KEY, total: int = NONCES_IN_ALL, retention_s: float = 300.0) -> None:
        self._per_key = per_key
        self._total = total
        self._retention_s = retention_s
        self._keys: dict[str, _Seen] = {}
        self._order: deque[_Seen] = deque()
        self._watermark_unix_s = float("-inf")

    def __len__(self) -> int:
        return len(self._order)

    @property
    def watermark_unix_s(self) -> float:
        """The newest issue time among the nonces that expired; nothing at or before it may be accepted any more."""
        return self._watermark_unix_s

    def expire(self, monotonic_s: float) -> None:
        """Forget what is older than the retention and raise the watermark over it."""
        order = self._order
        while order and order[0].order[0][0] <= monotonic_s:
            seen = order.popleft()
            _, nonce, issue_unix_s = seen.order.popleft()
            seen.nonces.discard(nonce)
            if issue_unix_s > self._watermark_unix_s:
                self._watermark_unix_s = issue_unix_s
            if not seen.order:
                del self._keys[seen.key_id]

    def claim(self, key_id: str, nonce: bytes, issue_unix_s: float, monotonic_s: float) -> None:
        """Use up a nonce. Call `expire` first and compare the watermark.

        Raises NonceReplayed when it has been used, NonceCapacity when there is no room for it.
        """
        seen = self._keys.get(key_id)
        if seen is not None:
            if nonce in seen.nonces:
                raise NonceReplayed
            if len(seen.order) >= self._per_key:
                raise NonceCapacity("key", seen.order[0][0] - monotonic_s)
        if len(self._order) >= self._total:
            raise NonceCapacity("total", self._order[0].order[0][0] - monotonic_s)
        if seen is None:
            seen = self._keys[key_id] = _Seen(key_id)
        seen.nonces.add(nonce)
        seen.order.append((monotonic_s + self._retention_s, nonce, issue_unix_s))
        self._order.append(seen)
