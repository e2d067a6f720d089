"""What is slow and what is out of line, relative to the run's own past."""

import math

from esperd.config.settings import BudgetSettings
from esperd.tolaria.budgets import LossWindow, StepWindow
from esperd.tolaria.emergency import WindowMeasured

BUDGETS = BudgetSettings(window_steps=5, slow_ratio=3.0, anomaly_window=20)


def window(steps: StepWindow, step_s: float, *, is_quiet: bool = True) -> WindowMeasured:
    full = [steps.note(step_s, is_quiet=is_quiet) for _ in range(BUDGETS.window_steps)]
    assert full == [False] * 4 + [True]
    return steps.close(is_loss_sound=True)


def test_a_window_is_judged_by_the_runs_own_baseline():
    """Three times slower than quiet steps misses the budget; a slow window does not become the baseline."""
    steps = StepWindow(BUDGETS, seed_ratio=2.0)
    assert not window(steps, 0.001).is_slow
    assert steps.baseline_s == 0.001
    assert window(steps, 0.0031).is_slow
    assert not window(steps, 0.0029).is_slow
    assert steps.baseline_s < 0.003


def test_steps_with_seeds_may_take_longer_and_never_set_the_baseline():
    """Wanted work is not a missed budget."""
    steps = StepWindow(BUDGETS, seed_ratio=2.0)
    window(steps, 0.001)
    assert not window(steps, 0.005, is_quiet=False).is_slow
    assert window(steps, 0.007, is_quiet=False).is_slow
    assert steps.baseline_s == 0.001


def test_a_grown_host_gets_a_new_baseline():
    """After a graft the old step time is no measure any more."""
    steps = StepWindow(BUDGETS, seed_ratio=2.0)
    window(steps, 0.001)
    steps.forget_baseline()
    assert not window(steps, 0.010).is_slow
    assert not window(steps, 0.010).is_slow
    assert steps.baseline_s == 0.010


def test_a_single_step_beyond_the_cap_misses_the_budget():
    """An absolute cap holds besides the relative one."""
    steps = StepWindow(BudgetSettings(window_steps=2, step_cap_s=0.5), seed_ratio=1.0)
    steps.note(0.001, is_quiet=True)
    steps.note(0.6, is_quiet=True)
    assert steps.close(is_loss_sound=True).is_slow


def filled() -> LossWindow:
    losses = LossWindow(20)
    for number in range(20):
        assert losses.see(1.0 + 0.01 * (number % 3)) is None
    return losses


def test_an_ordinary_loss_is_no_anomaly_and_a_far_one_is():
    """It must be beyond six sigma and beyond three times the mean."""
    losses = filled()
    assert losses.see(2.9) is None
    assert filled().see(3.2) is not None


def test_anomalies_in_a_row_are_counted_and_an_ordinary_loss_ends_the_row():
    """The third in a row says so."""
    losses = filled()
    rows = [losses.see(50.0), losses.see(60.0), losses.see(1.0), losses.see(50.0)]
    assert [None if anomaly is None else anomaly.in_row for anomaly in rows] == [1, 2, None, 1]


def test_a_non_finite_loss_is_an_anomaly_at_once():
    """Even as the first loss of a run; it never enters the window."""
    losses = LossWindow(20)
    for value in (math.nan, math.inf):
        anomaly = losses.see(value)
        assert anomaly is not None
    assert anomaly.non_finite_in_row == 2
    assert losses.num_non_finite == 2
    assert losses.see(1.0) is None


def test_a_level_held_for_a_whole_window_is_the_new_normal():
    """A lasting rise is told of, but not for ever."""
    losses = filled()
    assert all(losses.see(50.0) is not None for _ in range(20))
    assert losses.see(50.0) is None
