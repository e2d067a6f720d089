"""What is slow and what is out of line, relative to the run's own past."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


LOSSES = st.lists(st.one_of(st.floats(0.1, 100.0), st.just(math.nan)), max_size=80)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(state))
    return plain


@given(LOSSES, st.integers(0, 80))
def test_a_resumed_window_of_losses_goes_on_exactly(losses: list[float], cut: int):
    """Cut anywhere: the same anomalies with the same numbers in them."""
    whole, first, second = LossWindow(10), LossWindow(10), LossWindow(10)
    expected = [whole.see(loss) for loss in losses]
    found = [first.see(loss) for loss in losses[:cut]]
    second.load_state_dict(through_json(first.state_dict()))
    assert found + [second.see(loss) for loss in losses[cut:]] == expected
    assert second.state_dict() == whole.state_dict()


def test_a_run_that_goes_on_with_a_smaller_window_begins_it_anew():
    """Sums over another number of losses would be wrong."""
    wide, narrow = filled(), LossWindow(5)
    narrow.load_state_dict(wide.state_dict())
    assert [narrow.see(1.0) for _ in range(5)] == [None] * 5
    assert narrow.see(50.0) is not None


@pytest.mark.parametrize("cut", range(0, 20, 3))
def test_a_resumed_window_of_steps_ends_at_the_same_steps(cut: int):
    """And judges them by the same baseline."""
    whole, first, second = (StepWindow(BUDGETS, seed_ratio=2.0) for _ in range(3))
    times = [0.001 * (1 + n % 3) for n in range(15)] + [0.1] * 5

    def live(window: StepWindow, part: list[float]) -> list[WindowMeasured | None]:
        return [window.close(is_loss_sound=True) if window.note(step_s, is_quiet=True) else None for step_s in part]

    expected = live(whole, times)
    found = live(first, times[:cut])
    second.load_state_dict(through_json(first.state_dict()))
    assert found + live(second, times[cut:]) == expected
    assert expected[-1] is not None
    assert expected[-1].is_slow


def test_a_jump_of_a_run_that_knows_its_data_by_heart_is_not_grave():
    """Hundreds of times the mean, and still most of what was learned is there; at half of the way back it is grave."""
    window = LossWindow(10)
    for step in range(40):
        window.see(2.0 if step < 10 else 0.001 + 1e-5 * (step % 3))
    assert [window.see(0.3).grave_in_row for _ in range(3)] == [0, 0, 0]  # type: ignore[union-attr]
    assert [window.see(1.2).grave_in_row for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
    assert window.see(float("nan")).grave_in_row == 4  # type: ignore[union-attr]
