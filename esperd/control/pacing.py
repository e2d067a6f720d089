"""Admission control in the currency that matters: the share of training time that calls from outside may take.

Event loop only; clocks come in. Both threads share one interpreter, so the processor time that the loop spends on calls
is taken from training (research/ceilings.md, The price of sharing one interpreter). `CallMeter` learns what a call
costs, `Pacer` is a token bucket of seconds: calls wait for their seconds, in order, and nothing is dropped in silence.
"""

import math
from collections.abc import Awaitable, Callable

from esperd.leyline.errors import EsperdError

FIRST_COST_S = 150e-6
"""What a unary call cost on the machine of the research file; until the meter has measured this one."""
CHEAPEST_COST_S = 20e-6
DEAREST_COST_S = 5e-3
MESSAGE_UNITS = 0.4
"""A message on an open stream, relative to a unary call (40 to 67 us against 85 to 140 us)."""
COMMAND_UNITS = 0.1
"""One command inside a batch, relative to a unary call."""
HANDOVER_FACTOR = 2.0
"""Training time lost for each second of the loop's processor time: besides running, each call makes the training thread
wait for the interpreter. 1,000 calls a second cost 15 % of training with steps of 3.4 ms and 34 % with steps of 0.22 ms
(research/ceilings.md) at 10 to 14 % of processor time: a factor between 1.3 and 3."""
BUNCH_S = 0.05
"""While training, calls are let in together, so often: one call alone finds every cache cold and costs three times as
much as one of many (1.0 against 0.3 ms), and many share a commit of the journal. One that comes alone does not wait."""
_SMOOTHING = 0.3
_MIN_UNITS = 10.0
"""A window with fewer calls says more about everything else than about calls."""


class CallMeter:
    """Learns what one call costs, in seconds of the loop thread's processor time."""

    def __init__(self, cpu_clock: Callable[[], float], first_cost_s: float = FIRST_COST_S) -> None:
        """`cpu_clock` gives the processor seconds of the loop's thread (`time.thread_time`)."""
        self._cpu_clock = cpu_clock
        self.unit_cost_s = first_cost_s
        self._units = 0.0
        self._own_s = 0.0
        self._window_began_s: float | None = None

    @property
    def price_s(self) -> float:
        """Seconds of training that one call takes."""
        return self.unit_cost_s * HANDOVER_FACTOR

    def count(self, units: float) -> None:
        """Note calls that were answered, in units of a unary call."""
        self._units += units

    def own_work(self, work: Callable[[], None]) -> None:
        """Run work that no caller asked for, and keep its cost apart from that of the calls."""
        began_s = self._cpu_clock()
        try:
            work()
        finally:
            self._own_s += self._cpu_clock() - began_s

    def close_window(self) -> None:
        """End a window of measurement and learn from it; called at each tick of the loop."""
        now_s = self._cpu_clock()
        if self._window_began_s is not None and self._units >= _MIN_UNITS:
            spent_s = max(0.0, now_s - self._window_began_s - self._own_s)
            measured_s = min(max(spent_s / self._units, CHEAPEST_COST_S), DEAREST_COST_S)
            self.unit_cost_s += _SMOOTHING * (measured_s - self.unit_cost_s)
        self._window_began_s = now_s
        self._units = self._own_s = 0.0


class Pacer:
    """A token bucket whose tokens are seconds of training time."""

    def __init__(
        self,
        *,
        share: float,
        meter: CallMeter,
        is_training: Callable[[], bool],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        max_waiting: int,
        burst_s: float = 0.05,
        refusal_delay_s: float = 1.0,
    ) -> None:
        """Make a pacer.

        Args:
            share: seconds of calls per second of wall time, while training.
            meter: says what a call costs.
            is_training: whether there is anything to protect; calls pass freely while there is not.
            monotonic: seconds that never go back.
            sleep: waits so many seconds.
            max_waiting: calls that may wait at once; more are refused.
            burst_s: seconds of calls that pass at once after a quiet time.
            refusal_delay_s: a refusal waits so long at least, since refusing costs as much as answering.
        """
        self._share = share
        self._meter = meter
        self._is_training = is_training
        self._monotonic = monotonic
        self._sleep = sleep
        self._max_waiting = max_waiting
        self._burst_s = burst_s
        self._refusal_delay_s = refusal_delay_s
        self._balance_s = burst_s
        self._filled_at_s = monotonic()
        self._bunch_until_s = -math.inf
        """Until then calls join the next bunch."""
        self.num_waiting = 0
        self.num_refusing = 0
        self.num_delayed = 0
        """Calls that had to wait, since the start."""
        self.num_refused = 0

    def set_limits(self, share: float, max_waiting: int) -> None:
        """Use another share and another bound from the next call on; calls that wait keep their time."""
        self._share = share
        self._max_waiting = max_waiting

    async def admit(self, units: float = 1.0, *, in_bunch: bool = True) -> None:
        """Wait until a call of so many units may be served.

        Args:
            units: what it costs, in unary calls.
            in_bunch: let it in with others; False for what has been let in once, as the messages of an open stream.

        Raises:
            EsperdError: PACED_OUT, when more calls wait than may.
        """
        self._meter.count(units)
        if not self._is_training():
            return
        if self.num_waiting >= self._max_waiting:
            await self._refuse(units)
        wait_s = self.reserve(units)
        if in_bunch:
            wait_s = self._until_bunch(wait_s)
        if wait_s > 0.0:
            self.num_delayed += 1
            self.num_waiting += 1
            try:
                await self._sleep(wait_s)
            finally:
                self.num_waiting -= 1

    def reserve(self, units: float) -> float:
        """Take the tokens for a call, in advance if need be; returns the seconds until they are there."""
        now_s = self._monotonic()
        self._balance_s = min(self._burst_s, self._balance_s + (now_s - self._filled_at_s) * self._share)
        self._filled_at_s = now_s
        self._balance_s -= units * self._meter.price_s
        return max(0.0, -self._balance_s / self._share)

    def _until_bunch(self, wait_s: float) -> float:
        now_s = self._monotonic()
        if wait_s <= 0.0 and now_s >= self._bunch_until_s:
            self._bunch_until_s = now_s + BUNCH_S
            return 0.0
        at_s = math.ceil((now_s + wait_s) / BUNCH_S) * BUNCH_S
        self._bunch_until_s = max(self._bunch_until_s, at_s + BUNCH_S)
        return at_s - now_s

    async def _refuse(self, units: float) -> None:
        """Refuse a call, late: those that are refused come back no faster than they could be served."""
        self.num_refused += 1
        self.num_refusing += 1
        try:
            await self._sleep(self._refusal_delay_s + self.num_refusing * units * self._meter.price_s / self._share)
        finally:
            self.num_refusing -= 1
        raise EsperdError("PACED_OUT", retry_after_s=self._refusal_delay_s)
