"""Slows down a peer whose signatures keep failing: a bucket of failures that refills over a minute.

One thread (the event loop); the clock is passed in. Knows peers only by name. Design 01, Order of checks.
"""

_OVERFLOW = "(peers beyond the table)"


class FailureThrottle:
    """At most `per_minute` failures of one peer at once, refilled evenly; a success neither costs nor refunds.

    The table is bounded: past `max_peers` the newcomers share one bucket, so that a flood of invented names is slowed
    instead of remembered.
    """

    def __init__(self, per_minute: int = 20, max_peers: int = 4096) -> None:
        self._capacity = float(per_minute)
        self._per_s = per_minute / 60.0
        self._max_peers = max_peers
        self._failures: dict[str, tuple[float, float]] = {}
        """Peer: (failures that stand, when they were counted); ordered by the latest failure."""

    def wait_s(self, peer: str, monotonic_s: float) -> float:
        """How long the peer must wait before its next try; 0 when it need not."""
        failures = self._failures
        if not failures:
            return 0.0
        standing = self._standing(peer if peer in failures else self._row_of(peer), monotonic_s)
        return max(0.0, (standing + 1.0 - self._capacity) / self._per_s)

    def knows(self, peer: str) -> bool:
        """Whether the peer has a bucket of its own."""
        return peer in self._failures

    def record_failure(self, peer: str, monotonic_s: float) -> None:
        """Count one failure of the peer."""
        self._forget_refilled(monotonic_s)
        row = self._row_of(peer)
        standing = self._standing(row, monotonic_s) + 1.0
        self._failures.pop(row, None)
        self._failures[row] = (standing, monotonic_s)

    def _row_of(self, peer: str) -> str:
        if peer in self._failures or len(self._failures) < self._max_peers:
            return peer
        return _OVERFLOW

    def _standing(self, row: str, monotonic_s: float) -> float:
        failures, counted_s = self._failures.get(row, (0.0, monotonic_s))
        return max(0.0, failures - (monotonic_s - counted_s) * self._per_s)

    def _forget_refilled(self, monotonic_s: float) -> None:
        while self._failures:
            oldest = next(iter(self._failures))
            # A bucket that is full again says nothing; the first in order had its failure longest ago.
            if monotonic_s - self._failures[oldest][1] < self._capacity / self._per_s:
                return
            del self._failures[oldest]
