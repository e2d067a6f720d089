"""How much of the held-out data a state packet may look at, and how often, within the probe budget.

Training thread only; pure arithmetic. The same units are measured each time, so that two packets can be compared.
"""

from collections.abc import Mapping
from typing import Any

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
        self._last_step: int | None = None

    def units_now(self, step: int, batch_units: int, *, is_last: bool = False) -> int:
        """Units to measure at this packet; 0 when it is not this packet's turn.

        With an interval between packets every packet on it is measured, else those that the budget allows since the
        last one; the run's last packet always. The number of units is fixed at the first measurement.
        """
        if self._num_units == 0:
            affordable = int(self._budget * (self._interval or max(1, step)) * _FORWARDS_PER_STEP * batch_units)
            self._num_units = max(_MIN_UNITS, min(affordable, self._max_units))
        if not (is_last or self._is_due(step, batch_units)):
            return 0
        self._last_step = step
        return self._num_units

    def state_dict(self) -> dict[str, Any]:
        """When it last measured, and on how many units."""
        return {"num_units": self._num_units, "last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._num_units, self._last_step = state["num_units"], state["last_step"]

    def _is_due(self, step: int, batch_units: int) -> bool:
        if self._interval > 0:
            return step % self._interval == 0
        return self._last_step is None or self._cost_steps(batch_units) <= self._budget * (step - self._last_step)

    def _cost_steps(self, batch_units: int) -> float:
        return self._num_units / (_FORWARDS_PER_STEP * batch_units)
