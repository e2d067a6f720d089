"""What is done to the connections while the clients work; `nemesis.py` does the same to the daemon."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.robustness.rounds.fault_proxy import FaultProxy

_EVERY_S = (0.3, 2.0)
_DELAY_S = (0.02, 0.4)
SLOW_BYTES_PER_S = 1024


class NetworkNemesis:
    """Disturbs proxies at random moments; `end` lets everything pass again."""

    def __init__(self, proxies: Sequence[FaultProxy], source: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._proxies = proxies
        self._source = source
        self._next_s = time.monotonic() + source.uniform(*_EVERY_S)
        self._choices: list[Callable[[FaultProxy], None]] = [
            self._cut,
            self._delay,
            self._throttle,
            self._half_close,
            self._play_again,
            self._calm,
        ]

    def maybe(self) -> None:
        """Disturb if it is time."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self._source.uniform(*_EVERY_S)
        self._source.choice(self._choices)(self._source.choice(self._proxies))

    def end(self) -> None:
        """No more of it."""
        for proxy in self._proxies:
            proxy.calm()

    def _cut(self, proxy: FaultProxy) -> None:
        self.done["cut"] += 1
        proxy.cut()

    def _delay(self, proxy: FaultProxy) -> None:
        self.done["delay"] += 1
        proxy.delay_s = self._source.uniform(*_DELAY_S)

    def _throttle(self, proxy: FaultProxy) -> None:
        self.done["throttle"] += 1
        proxy.bytes_per_s = SLOW_BYTES_PER_S

    def _half_close(self, proxy: FaultProxy) -> None:
        self.done["half-close"] += 1
        proxy.half_close(towards_daemon=self._source.random() < 0.5)

    def _play_again(self, proxy: FaultProxy) -> None:
        self.done["connections played again"] += 1
        proxy.play_again()

    def _calm(self, proxy: FaultProxy) -> None:
        self.done["calm"] += 1
        proxy.calm()
