"""Stops compiling for a while when nothing succeeds: then the fault is the machine's, not a blueprint's.

The compiler's process; pure, the clock is passed in. Without it a full disk or a broken C++ compiler would give up one
wish after the other.
"""

from collections.abc import Callable

FAILURES_TO_OPEN = 5
"""In a row, of different wishes or of the same."""
FIRST_PAUSE_S = 60.0
MAX_PAUSE_S = 900.0


class Breaker:
    """Closed while compiling works; open for a time after failures in a row; then one attempt decides."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._num_failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until_s: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether it holds everything back, one probing attempt left out."""
        return self._open_until_s is not None

    def wait_s(self) -> float:
        """Seconds until something may be begun, 0 when it may now, infinity while a probing attempt runs."""
        if self._open_until_s is None:
            return 0.0
        if self._is_probing:
            return float("inf")
        return max(0.0, self._open_until_s - self._monotonic())

    def began(self) -> None:
        """Something was begun: while open it is the attempt that decides."""
        self._is_probing = self.is_open

    def succeeded(self) -> None:
        """Compiling works."""
        self._num_failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until_s = None
        self._is_probing = False

    def failed(self) -> bool:
        """An attempt failed. Returns whether that has opened it, or keeps it open."""
        self._num_failures += 1
        if self._num_failures < FAILURES_TO_OPEN:
            return False
        if self._open_until_s is not None:
            self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2)
        self._open_until_s = self._monotonic() + self._pause_s
        self._is_probing = False
        return True

    def interrupted(self) -> None:
        """An attempt ended without saying anything about the machine."""
        self._is_probing = False
