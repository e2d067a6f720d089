"""Where a watch stands, and whether and when it is taken up again after a cut.

Any thread, without I/O. The daemon gives a resume token with every message; the next opening carries the last one, so
that nothing is missed and nothing comes twice. Telemetry has no token and simply goes on.
"""

from collections.abc import Callable

from esper.client.attempts import backoff_s
from esper.client.errors import LeylineError, Unreachable

_RESUMABLE = {"SLOW_CONSUMER", "DRAINING"}


class Cursor:
    """One watch across its connections.

    `reconnect_s` is how long it tries to come back after a cut; with 0 it ends at the first cut. The first opening is
    not tried again: a daemon that never answered is reported at once.
    """

    def __init__(self, *, resume_token: bytes, reconnect_s: float, monotonic: Callable[[], float]) -> None:
        self.resume_token = resume_token
        """Resume after this."""
        self._reconnect_s = reconnect_s
        self._monotonic = monotonic
        self._num_cuts = 0
        self._last_message_s: float | None = None

    def saw(self, response: object) -> None:
        """Note a message of the stream."""
        self.resume_token = getattr(response, "resume_token", b"") or self.resume_token
        self._num_cuts = 0
        self._last_message_s = self._monotonic()

    def after_end(self) -> float | None:
        """Seconds until the stream is opened again after the daemon ended it; None when the watch is over."""
        return self._wait_s()

    def after_error(self, error: LeylineError) -> float:
        """Seconds until the stream is opened again after an error. Raises `error` when the watch is over."""
        resumable = isinstance(error, Unreachable) or error.reason in _RESUMABLE or error.retry_after_s is not None
        wait_s = self._wait_s() if resumable else None
        if wait_s is None:
            raise error
        return max(wait_s, error.retry_after_s or 0.0)

    def _wait_s(self) -> float | None:
        if self._last_message_s is None:
            return None
        self._num_cuts += 1
        wait_s = backoff_s(self._num_cuts)
        silent_s = self._monotonic() - self._last_message_s
        return wait_s if silent_s + wait_s < self._reconnect_s else None
