"""What is done to a daemon while it works: killed, terminated, stopped for seconds, crashed, denied its disk."""

import errno
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.robustness.crashing_daemon import Crash
from tests.robustness.matrix import FAILPOINTS
from tests.robustness.performance import Performance

EVERY_S = (0.4, 2.0)
"""Least and most time between two disturbances."""
_STOP_S = (1.0, 5.0)
_FULL_S = (0.2, 2.0)
_BALLAST_PIECE = bytes(1 << 16)
_DISK_PLACES = ("journal.before_fsync", "checkpoint.writing", "checkpoint.before_manifest", "checkpoint.before_rename")


class Nemesis:
    """Disturbs one performance at random moments; `end` puts everything right again."""

    def __init__(
        self,
        performance: Performance,
        source: random.Random,
        disk: Path | None,
        every_s: tuple[float, float] = EVERY_S,
    ) -> None:
        """`disk` is a small file system that may be filled; `every_s` bounds the time between two disturbances."""
        self.done: Counter[str] = Counter()
        self._performance = performance
        self._source = source
        self._disk = disk
        self._every_s = every_s
        self._next_s = time.monotonic() + source.uniform(*every_s)
        self._timers: list[threading.Timer] = []
        self._is_over = False

    def maybe(self) -> None:
        """Disturb if it is time."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self._source.uniform(*self._every_s)
        choices: list[Callable[[], None]] = [self._kill] * 4 + [self._stop, self._terminate]
        if self._disk is not None:
            choices += [self._fill] * 2
        self._source.choice(choices)()
        if self._source.random() < 0.6:
            self._performance.crashes.append(self._next_crash())

    def end(self) -> None:
        """No more of it: the disk has room, and the next start is left alone."""
        self._is_over = True
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._performance.crashes.clear()
        self._free()
        # The newest start may still have a failpoint before it, which would be met at the run's last state.
        self._signal(signal.SIGKILL)

    # Disturbances

    def _kill(self) -> None:
        self.done["SIGKILL"] += 1
        self._later(self._source.uniform(0.0, 0.05), lambda: self._signal(signal.SIGKILL))

    def _terminate(self) -> None:
        self.done["SIGTERM"] += 1
        self._later(self._source.uniform(0.0, 0.05), lambda: self._signal(signal.SIGTERM))

    def _stop(self) -> None:
        self.done["SIGSTOP"] += 1
        self._signal(signal.SIGSTOP)
        self._later(self._source.uniform(*_STOP_S), lambda: self._signal(signal.SIGCONT))

    def _fill(self) -> None:
        self.done["disk full"] += 1
        assert self._disk is not None
        with suppress(OSError), (self._disk / "ballast").open("ab", buffering=0) as ballast:
            while ballast.write(_BALLAST_PIECE):
                pass
        self._later(self._source.uniform(*_FULL_S), self._free)

    def _free(self) -> None:
        if self._disk is not None:
            (self._disk / "ballast").unlink(missing_ok=True)

    def _next_crash(self) -> Crash:
        """What happens to the next start by itself: an end at some pass of some place, or errors of the disk there."""
        source = self._source
        if source.random() < 0.5:
            self.done["failpoint crash"] += 1
            return Crash(source.choice(FAILPOINTS), hit=source.randint(1, 20), action=source.choice(("exit", "kill")))
        self.done["failpoint error"] += 1
        action = source.choice(("enospc", "eio"))
        return Crash(source.choice(_DISK_PLACES), hit=source.randint(1, 30), action=action, times=source.randint(1, 20))

    # How

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        self._timers.append(timer)
        timer.start()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self._performance.process.pid, number)
        except OSError as error:
            if error.errno != errno.ESRCH:  # it has ended meanwhile
                raise
