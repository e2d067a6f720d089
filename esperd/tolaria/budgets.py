"""What a step may take and what a loss may be, relative to the run's own past.

Training thread only; called at every step, so it computes little and allocates nothing until a window is full.
"""

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from esperd.config.settings import BudgetSettings
from esperd.tolaria.emergency import LossAnomaly, WindowMeasured

BASELINE_WINDOWS = 8
"""Quiet windows over which the baseline is the median."""

SIGMAS = 6.0
MEAN_RATIO = 3.0
"""A loss is anomalous beyond mean + SIGMAS * sigma and beyond MEAN_RATIO * mean of the window (design 02)."""

GRAVE_SHARE = 0.5
"""An anomalous loss is grave when this share of the way from the run's first window to now is lost. A model that knows
its data by heart (loss 0.001) jumps to 0.3 now and then and is back in fifty steps; a diverging one passes where it
began. The first was seen to roll back seven times and halt under a rule that knew only the ratio."""


class StepWindow:
    """Step times, window by window: their median against the baseline of the run's own quiet windows.

    A window is quiet when no seed was live in it and it kept its budget. One with live seeds may take `seed_ratio`
    times longer: their work is wanted, and gate G3 judges it seed by seed.
    """

    def __init__(self, budgets: BudgetSettings, seed_ratio: float) -> None:
        self._budgets = budgets
        self._window_steps = budgets.window_steps
        self._seed_ratio = seed_ratio
        self._times_s: list[float] = []
        self._was_quiet = True
        self._quiet_medians_s: deque[float] = deque(maxlen=BASELINE_WINDOWS)
        self.baseline_s = 0.0
        """Median step time of quiet windows; 0 before the first."""

    def note(self, step_s: float, *, is_quiet: bool) -> bool:
        """Count one step; True when the window is full and `close` is due."""
        self._times_s.append(step_s)
        if not is_quiet:
            self._was_quiet = False
        return len(self._times_s) >= self._window_steps

    def close(self, *, is_loss_sound: bool) -> WindowMeasured:
        """Judge the window and begin the next."""
        median_s, longest_s = median(self._times_s), max(self._times_s)
        self._times_s.clear()
        was_quiet, self._was_quiet = self._was_quiet, True
        ratio = self._budgets.slow_ratio * (1.0 if was_quiet else self._seed_ratio)
        is_slow, detail = self._judge(median_s, longest_s, ratio)
        if was_quiet and not is_slow:
            self._quiet_medians_s.append(median_s)
            self.baseline_s = median(self._quiet_medians_s)
        return WindowMeasured(is_slow, is_loss_sound, detail)

    def forget_baseline(self) -> None:
        """Begin anew: the host itself has changed, and its steps with it."""
        self._quiet_medians_s.clear()
        self.baseline_s = 0.0
        self._was_quiet = False  # the window that has begun is neither the old host's nor the new one's

    def state_dict(self) -> dict[str, Any]:
        """The window that has begun and the baseline, as plain values."""
        return {
            "times_s": list(self._times_s),
            "was_quiet": self._was_quiet,
            "quiet_medians_s": list(self._quiet_medians_s),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: windows end at the same steps again."""
        self._times_s = list(state["times_s"])
        self._was_quiet = state["was_quiet"]
        self._quiet_medians_s = deque(state["quiet_medians_s"], maxlen=BASELINE_WINDOWS)
        self.baseline_s = median(self._quiet_medians_s) if self._quiet_medians_s else 0.0

    def _judge(self, median_s: float, longest_s: float, ratio: float) -> tuple[bool, str]:
        cap_s = self._budgets.step_cap_s
        if cap_s > 0 and longest_s > cap_s:
            return True, f"a step took {longest_s:.3f} s, the cap is {cap_s:.3f} s"
        if self.baseline_s > 0 and median_s > ratio * self.baseline_s:
            return True, f"steps take {median_s * 1e3:.2f} ms, the run's own baseline is {self.baseline_s * 1e3:.2f} ms"
        return False, ""


class LossWindow:
    """The last losses, with their mean and spread kept up to date; tells an anomalous loss from an ordinary one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._losses: deque[float] = deque()
        self._sum = 0.0
        self._sum_squares = 0.0
        self._in_row = 0
        self._non_finite_in_row = 0
        self._num_since_resummed = 0
        self._grave_in_row = 0
        self._first_losses: list[float] = []
        self.num_non_finite = 0
        """Non-finite losses in the whole run: so many optimizer steps were skipped."""

    def see(self, loss: float) -> LossAnomaly | None:
        """Count one loss; the anomaly if it is one. Anomalous losses do not enter the window."""
        if not math.isfinite(loss):
            self._in_row += 1
            self._non_finite_in_row += 1
            self._grave_in_row += 1
            self.num_non_finite += 1
            text = f"the loss is {loss}"
            return LossAnomaly(self._in_row, self._non_finite_in_row, text, self._grave_in_row)
        self._non_finite_in_row = 0
        is_high = loss > MEAN_RATIO * self._sum / self._size
        if is_high and len(self._losses) == self._size and self._is_far_out(loss):
            self._in_row += 1
            mean = self._sum / self._size
            self._grave_in_row = self._grave_in_row + 1 if self._is_grave(loss, mean) else 0
            if self._in_row >= self._size:
                self._restart()  # a level held that long is the new normal
            text = f"the loss is {loss:.4g}, the mean of the last {self._size} {mean:.4g}"
            return LossAnomaly(self._in_row, 0, text, self._grave_in_row)
        self._in_row = self._grave_in_row = 0
        self._add(loss)
        return None

    def state_dict(self) -> dict[str, Any]:
        """The window and its counts as plain values, running sums included: they carry their rounding."""
        return {
            "losses": list(self._losses),
            "sum": self._sum,
            "sum_squares": self._sum_squares,
            "in_row": self._in_row,
            "non_finite_in_row": self._non_finite_in_row,
            "grave_in_row": self._grave_in_row,
            "first_losses": list(self._first_losses),
            "num_since_resummed": self._num_since_resummed,
            "num_non_finite": self.num_non_finite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken."""
        self._losses = deque(state["losses"])
        self._sum, self._sum_squares = state["sum"], state["sum_squares"]
        self._in_row, self._non_finite_in_row = state["in_row"], state["non_finite_in_row"]
        self._grave_in_row, self._first_losses = state["grave_in_row"], list(state["first_losses"])
        self._num_since_resummed = state["num_since_resummed"]
        self.num_non_finite = state["num_non_finite"]
        if len(self._losses) > self._size:
            self._restart()  # the run goes on with a smaller window

    def _is_far_out(self, loss: float) -> bool:
        mean = self._sum / self._size
        variance = max(0.0, self._sum_squares / self._size - mean * mean)
        return loss > mean + SIGMAS * math.sqrt(variance)

    def _is_grave(self, loss: float, mean: float) -> bool:
        first = math.fsum(self._first_losses) / len(self._first_losses)
        return loss > mean + GRAVE_SHARE * max(0.0, first - mean)

    def _restart(self) -> None:
        self._losses.clear()
        self._sum = self._sum_squares = 0.0

    def _add(self, loss: float) -> None:
        losses = self._losses
        losses.append(loss)
        if len(self._first_losses) < self._size:
            self._first_losses.append(loss)
        self._sum += loss
        self._sum_squares += loss * loss
        if len(losses) <= self._size:
            return
        oldest = losses.popleft()
        self._sum -= oldest
        self._sum_squares -= oldest * oldest
        self._num_since_resummed += 1
        if self._num_since_resummed >= 1000:  # the running sums drift by rounding
            self._num_since_resummed = 0
            self._sum = math.fsum(losses)
            self._sum_squares = math.fsum(x * x for x in losses)
