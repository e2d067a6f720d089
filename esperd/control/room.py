"""How much of the memory calls in progress may hold: what a caller has sent stays until its call is answered.

Event loop only, on the path of every call. Pacing makes calls wait, which protects training and costs memory for each
that waits; this bounds it. Knows nothing of what a call is about.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from esperd.leyline.errors import EsperdError

MAX_BYTES = 128 << 20
"""Of all requests in progress together. When it is reached, those that are not small are refused."""
SMALL_BYTES = 16 << 10
"""Up to here a request is small. No emergency is larger, so large requests of others never keep one out."""
MAX_CALLS = 4096
"""Calls and streams in progress, each of which costs gRPC some 10 KiB; an emergency is let in beyond them."""
READS_SHARE = 0.75
"""Part of these that may be unsigned: readers who wait for long, of whom anybody may be one, keep no signer out."""
RETRY_S = 1.0


class Room:
    """What calls in progress hold."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_calls: int = MAX_CALLS) -> None:
        self._max_bytes = max_bytes
        self._max_calls = max_calls
        self.num_bytes = 0
        self.num_calls = 0
        self.num_reads = 0

    @contextmanager
    def hold(self, num_bytes: int, *, is_signed: bool, is_urgent: bool) -> Iterator[None]:
        """Keep room for a request until its call ends.

        Raises EsperdError PACED_OUT at once: one that waited for its refusal would hold what there is no room for.
        """
        is_too_large = num_bytes > SMALL_BYTES and self.num_bytes + num_bytes > self._max_bytes
        are_too_many = not is_signed and self.num_reads >= READS_SHARE * self._max_calls
        if is_too_large or are_too_many or (self.num_calls >= self._max_calls and not (is_signed and is_urgent)):
            raise EsperdError("PACED_OUT", retry_after_s=RETRY_S)
        self.num_bytes += num_bytes
        self.num_calls += 1
        self.num_reads += not is_signed
        try:
            yield
        finally:
            self.num_bytes -= num_bytes
            self.num_calls -= 1
            self.num_reads -= not is_signed
