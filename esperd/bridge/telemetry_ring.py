"""The way up for numbers: a ring of samples that drops its oldest, and counts what it dropped.

Written by the training thread (a length check and a deque append a sample, no lock, no wake-up), read by the event loop
at its own pace. Losing samples is allowed; losing count of them is not.
"""

from collections import deque

from esperd.leyline.metrics import Sample


class TelemetryRing:
    """Bounded ring of samples: every sample emitted is either taken once or counted as dropped once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._samples: deque[Sample] = deque()
        self._num_dropped = 0
        self._num_reported = 0

    @property
    def num_waiting(self) -> int:
        """Samples that wait to be taken."""
        return len(self._samples)

    def emit(self, sample: Sample) -> None:
        """Training side: add one sample, dropping the oldest when full."""
        samples = self._samples
        samples.append(sample)
        if len(samples) > self.capacity:
            try:
                samples.popleft()
            except IndexError:
                return  # the reader emptied the ring between the two lines: nothing was dropped
            self._num_dropped += 1

    def take(self, max_samples: int = 1 << 30) -> tuple[list[Sample], int]:
        """Event loop side: up to `max_samples` of the oldest samples, and how many were dropped since the last take."""
        samples = self._samples
        taken: list[Sample] = []
        for _ in range(min(max_samples, len(samples))):
            try:
                taken.append(samples.popleft())
            except IndexError:
                break  # the writer dropped the oldest meanwhile, and counted it
        num_dropped = self._num_dropped
        newly_dropped = num_dropped - self._num_reported
        self._num_reported = num_dropped
        return taken, newly_dropped
