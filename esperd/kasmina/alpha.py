"""The ramp of a blend: which share of a seed joins the host at each step, from 0 up to a target or down again.

Runs on the training thread. Knows no tensor, no seed and no clock: one call of `advance` is one step, and equal
calls give equal numbers. The slot copies the number into its alpha buffer. Ramp length 150 and the curve are
taste, not science (design 03, Blending: no measurable difference between curves).
"""

import enum
import math
from typing import Final

from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.vocabulary import AlphaCurve

HYSTERESIS_THRESHOLDS: Final = (0.3, 0.7)
HYSTERESIS_BAND: Final = 0.02
STEEPNESS_RANGE: Final = (0.01, 1000.0)


class AlphaScheduleError(ValueError):
    """A schedule asks for something outside its limits; the message names the allowed range."""


class RampNotHoldingError(ValueError):
    """A new target was given while alpha is still on its way to the last one."""


class RampMode(enum.Enum):
    """Which way alpha goes."""

    UP = "up"
    HOLD = "hold"
    DOWN = "down"


class AlphaRamp:
    """Alpha on its way from where it is to a target, then held there exactly.

    With `hysteresis` the `effective` alpha waits at 0.3 and at 0.7 until the ramp is 0.02 past them, so that an
    alpha set by hand near a threshold does not flicker across it; at hold it is the target itself.

    Raises:
        AlphaScheduleError: the schedule or the start is outside its limits.
    """

    def __init__(self, schedule: AlphaSchedule, *, start: float = 0.0, hysteresis: bool = False) -> None:
        _check_share("start", start)
        self._hysteresis = hysteresis
        self._value = start
        self._passed = [start > threshold for threshold in HYSTERESIS_THRESHOLDS]
        self._aim(schedule)

    @property
    def value(self) -> float:
        """Alpha now, in [0, 1]."""
        return self._value

    @property
    def effective(self) -> float:
        """Alpha now, with hysteresis if that is on; equal to `value` at hold."""
        if not self._hysteresis or self.mode is RampMode.HOLD:
            return self._value
        effective = self._value
        for threshold, passed in zip(HYSTERESIS_THRESHOLDS, self._passed, strict=True):
            if abs(self._value - threshold) < HYSTERESIS_BAND:
                effective = max(effective, threshold) if passed else min(effective, threshold)
        return effective

    @property
    def target(self) -> float:
        """Where alpha goes, or is held."""
        return self._schedule.target

    @property
    def mode(self) -> RampMode:
        """Whether alpha rises, falls or is at its target."""
        if self._step >= self._schedule.num_steps:
            return RampMode.HOLD
        return RampMode.UP if self._schedule.target > self._start else RampMode.DOWN

    @property
    def num_steps_left(self) -> int:
        """Calls of `advance` until hold."""
        return self._schedule.num_steps - self._step

    def advance(self) -> float:
        """Go one step; returns the effective alpha. At hold nothing changes."""
        if self._step < self._schedule.num_steps:
            self._step += 1
            self._value = _interpolate(self._schedule, self._start, self._step)
            self._note_thresholds()
        return self.effective

    def retarget(self, schedule: AlphaSchedule) -> None:
        """Go to another target from here.

        Raises:
            RampNotHoldingError: alpha is still moving.
            AlphaScheduleError: the schedule is outside its limits.
        """
        if self.mode is not RampMode.HOLD:
            raise RampNotHoldingError(
                f"alpha is at {self._value:.4f} on its way {self.mode.value} to {self.target:.4f}; it takes a "
                f"new target in {self.num_steps_left} steps, when it holds"
            )
        self._aim(schedule)

    def snap(self) -> float:
        """Jump to the target at once and hold."""
        self._step = self._schedule.num_steps
        self._value = self._schedule.target
        self._note_thresholds()
        return self._value

    def state(self) -> dict[str, float | int | bool | list[bool]]:
        """Everything needed to go on, as plain values."""
        return {
            "curve": int(self._schedule.curve),
            "num_steps": self._schedule.num_steps,
            "target": self._schedule.target,
            "steepness": self._schedule.steepness,
            "start": self._start,
            "step": self._step,
            "value": self._value,
            "hysteresis": self._hysteresis,
            "passed": list(self._passed),
        }

    @classmethod
    def from_state(cls, state: dict[str, float | int | bool | list[bool]]) -> "AlphaRamp":
        """The ramp whose `state()` this is.

        Raises:
            AlphaScheduleError: the values are outside their limits.
            KeyError: a value is missing.
        """
        numbers = {name: value for name, value in state.items() if not isinstance(value, list)}
        passed = state["passed"]
        schedule = AlphaSchedule(
            AlphaCurve(int(numbers["curve"])),
            int(numbers["num_steps"]),
            float(numbers["target"]),
            float(numbers["steepness"]),
        )
        ramp = cls(schedule, start=float(numbers["start"]), hysteresis=bool(numbers["hysteresis"]))
        ramp._step = int(numbers["step"])
        ramp._value = float(numbers["value"])
        if not 0 <= ramp._step <= schedule.num_steps or not isinstance(passed, list):
            raise AlphaScheduleError(f"step {ramp._step} is not within 0 to {schedule.num_steps}")
        ramp._passed = [bool(flag) for flag in passed]
        return ramp

    def _aim(self, schedule: AlphaSchedule) -> None:
        check_schedule(schedule)
        self._schedule = schedule
        self._start = self._value
        self._step = schedule.num_steps if schedule.target == self._value else 0

    def _note_thresholds(self) -> None:
        for index, threshold in enumerate(HYSTERESIS_THRESHOLDS):
            if abs(self._value - threshold) >= HYSTERESIS_BAND:
                self._passed[index] = self._value > threshold


def check_schedule(schedule: AlphaSchedule) -> None:
    """Refuse a schedule outside its limits.

    Raises:
        AlphaScheduleError: naming the field and the allowed range.
    """
    if schedule.curve is AlphaCurve.UNSPECIFIED:
        raise AlphaScheduleError("the alpha curve is unspecified; choose linear, cosine or sigmoid")
    if schedule.num_steps < 1:
        raise AlphaScheduleError(f"num_steps is {schedule.num_steps}; it must be at least 1")
    _check_share("target", schedule.target)
    low, high = STEEPNESS_RANGE
    if schedule.curve is AlphaCurve.SIGMOID and not low <= schedule.steepness <= high:
        raise AlphaScheduleError(f"steepness is {schedule.steepness}; it must be within {low} to {high}")


def curve_value(curve: AlphaCurve, progress: float, steepness: float) -> float:
    """The share of the way made at `progress` in [0, 1]: exactly 0 at 0, exactly 1 at 1, never falling.

    The sigmoid is stretched so that its ends are reached,
    `(s(k(t - 1/2)) - s(-k/2)) / (s(k/2) - s(-k/2)) = (1 + tanh(k(t - 1/2)/2) / tanh(k/4)) / 2`,
    written with tanh because that never overflows.
    """
    if progress <= 0.0:
        return 0.0
    if progress >= 1.0:
        return 1.0
    if curve is AlphaCurve.LINEAR:
        return progress
    if curve is AlphaCurve.COSINE:
        return 0.5 * (1.0 - math.cos(math.pi * progress))
    return 0.5 * (1.0 + math.tanh(steepness * (progress - 0.5) / 2.0) / math.tanh(steepness / 4.0))


def _interpolate(schedule: AlphaSchedule, start: float, step: int) -> float:
    if step >= schedule.num_steps:
        return schedule.target
    share = curve_value(schedule.curve, step / schedule.num_steps, schedule.steepness)
    value = start + (schedule.target - start) * share
    low, high = sorted((start, schedule.target))
    return min(max(value, low), high)  # the sum may round one unit past an end


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise AlphaScheduleError(f"{name} is {value}; it must be within 0 to 1")
