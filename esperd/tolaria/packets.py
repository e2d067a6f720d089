"""How much of the held-out data a state packet may look at, and how often, within the probe budget.

Training thread only; pure arithmetic. The same units are measured each time, so that two packets can be compared.
"""

from esperd.config.settings import GrowthSettings

_MIN_UNITS = 32
"""Fewer say nothing."""

_FORWARDS_PER_STEP = 3.0
"""A training step costs about three forwards, a probe one."""


class PacketProbe:
    """Decides at each packet whether its probe loss is measured, and on how many units."""

    def __init__(self, growth: GrowthSettings, packet_every_steps: int) -> None:
        self._budget = growth.probe_budget
        self._max_units = growth.max_probe_units
        self._interval = packet_every_steps
        self._num_units = 0
        self._last_step = 0

    def units_now(self, step: int, batch_units: int) -> int:
        """Units to measure at this packet; 0 when the budget since the last measurement does not allow it.

        The number is fixed at the first packet from the steps between packets, and kept.
        """
        if self._num_units == 0:
            interval = self._interval or max(1, step)
            affordable = int(self._budget * interval * _FORWARDS_PER_STEP * batch_units)
            self._num_units = max(_MIN_UNITS, min(affordable, self._max_units))
        elif self._cost_steps(batch_units) > self._budget * (step - self._last_step) and not self._is_on_time(step):
            return 0
        self._last_step = step
        return self._num_units

    def _is_on_time(self, step: int) -> bool:
        return self._interval > 0 and step - self._last_step >= self._interval

    def _cost_steps(self, batch_units: int) -> float:
        return self._num_units / (_FORWARDS_PER_STEP * batch_units)
