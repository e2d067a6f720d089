"""Decides after each failure of one call whether it is tried again, and when.

Any thread, without I/O: it returns seconds to wait and leaves the waiting to the caller. gRPC's own retries are off,
since they would send the same nonce again; here every attempt is signed anew, with the same request_id.
"""

from collections.abc import Callable

from esper.client.errors import LeylineError, Unreachable
from esper.client.signing import Signer

_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 2.0
_KEY_REFUSED = ("KEY_NOT_ACTIVE", "SIGNATURE_INVALID")
"""What a daemon says of a key that is revoked, expired, or not in its ring."""


def backoff_s(num_failures: int) -> float:
    """Seconds to wait after the n-th failure in a row, from 1: doubles up to a limit."""
    return min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** (min(num_failures, 16) - 1))


class Attempts:
    """The attempts of one call until its deadline.

    A refusal for a stale epoch or clock is answered by signing again, once each; so is one for the key, if its file
    holds another by now. A refusal that names a time to wait is waited for. A signed call whose connection broke is
    sent again, because nobody knows whether it arrived and its request_id makes that harmless; a read fails at once. A
    call to which the daemon may take minutes is tried again no longer than any other: a daemon that has gone is told of
    in seconds.
    """

    def __init__(
        self,
        *,
        signer: Signer | None,
        timeout_s: float,
        monotonic: Callable[[], float],
        retry_s: float | None = None,
    ) -> None:
        """`timeout_s` is the time of all attempts; none begins later than `retry_s` after the first failure."""
        self._signer = signer
        self._monotonic = monotonic
        self._deadline_s = monotonic() + timeout_s
        self._retry_s = timeout_s if retry_s is None else retry_s
        self._last_try_s: float | None = None
        self._adopted: set[str] = set()
        self._key_id = "" if signer is None else signer.key_id
        """The key that signs the attempts."""
        self._num_cuts = 0

    def remaining_s(self) -> float:
        """Seconds left until the deadline, never negative."""
        return max(0.0, self._deadline_s - self._monotonic())

    def after(self, error: LeylineError) -> float:
        """Seconds to wait before the next attempt. Raises `error` when there is to be none."""
        wait_s = self._wait_s(error)
        now_s = self._monotonic()
        if self._last_try_s is None:
            self._last_try_s = now_s + self._retry_s
        if wait_s is None or now_s + wait_s >= min(self._deadline_s, self._last_try_s):
            raise error
        return wait_s

    def _wait_s(self, error: LeylineError) -> float | None:
        # A daemon that leaves ends the calls that it is still answering: gRPC's word for that has no reason of ours.
        if isinstance(error, Unreachable) or error.status == error.reason == "CANCELLED":
            self._num_cuts += 1
            return None if self._signer is None else backoff_s(self._num_cuts)
        if error.reason not in self._adopted and self._can_sign_better(error):
            self._adopted.add(error.reason)
            return 0.0
        if error.status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", ""):
            return error.retry_after_s
        return None

    def _can_sign_better(self, error: LeylineError) -> bool:
        if self._signer is None:
            return False
        if error.reason not in _KEY_REFUSED:
            return self._signer.adopt(error)
        has_another = self._signer.exchange_key(self._key_id)
        self._key_id = self._signer.key_id
        return has_another
