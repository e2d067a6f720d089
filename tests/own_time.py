"""A clock for threads on a machine that other programs use: it stands still while they have the processors."""

import os
import time


class OwnTime:
    """Milliseconds of the calling thread, without those in which it could run and other programs had the processors.

    What it waits for the interpreter, a lock or a disk is in. One thread only.
    """

    def __init__(self) -> None:
        self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def __call__(self) -> float:
        _, waited_ns, _ = os.pread(self._schedule, 100, 0).split()
        return time.perf_counter() * 1e3 - int(waited_ns) / 1e6

    def close(self) -> None:
        """Tell no more."""
        os.close(self._schedule)
