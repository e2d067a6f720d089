import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.kasmina.alpha import (
    HYSTERESIS_BAND,
    HYSTERESIS_THRESHOLDS,
    AlphaRamp,
    AlphaScheduleError,
    RampMode,
    RampNotHoldingError,
    curve_value,
)
from esperd.leyline.commands import AlphaSchedule
from esperd.leyline.vocabulary import AlphaCurve

CURVES = [AlphaCurve.LINEAR, AlphaCurve.COSINE, AlphaCurve.SIGMOID]
shares = st.floats(0.0, 1.0)
schedules = st.builds(
    AlphaSchedule,
    curve=st.sampled_from(CURVES),
    num_steps=st.integers(1, 300),
    target=shares,
    steepness=st.floats(0.01, 1000.0),
)


def _walk(ramp: AlphaRamp) -> list[float]:
    """Every alpha from before the first step until hold."""
    values = [ramp.value]
    while ramp.mode is not RampMode.HOLD:
        ramp.advance()
        values.append(ramp.value)
    return values


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("steepness", [0.01, 6.0, 12.0, 24.0, 1000.0])
def test_reaches_its_ends_exactly(curve: AlphaCurve, steepness: float) -> None:
    """Every curve starts at exactly 0 and ends at exactly its target, after exactly its number of steps."""
    values = _walk(AlphaRamp(AlphaSchedule(curve, 150, 0.9, steepness)))
    assert values[0] == 0.0
    assert values[-1] == 0.9
    assert len(values) == 151


@pytest.mark.parametrize("curve", CURVES)
def test_is_half_way_at_half_time(curve: AlphaCurve) -> None:
    """All curves are symmetric about their middle."""
    assert curve_value(curve, 0.5, 12.0) == pytest.approx(0.5)
    for progress in (0.1, 0.25, 0.4):
        mirrored = curve_value(curve, 1.0 - progress, 12.0)
        assert curve_value(curve, progress, 12.0) == pytest.approx(1.0 - mirrored)


def test_sigmoid_matches_its_formula() -> None:
    """The tanh form is the normalised sigmoid of the docstring."""

    def sigmoid(x: float) -> float:
        return 1.0 / (1.0 + math.exp(-x))

    for k in (1.0, 6.0, 12.0, 24.0):
        for t in (0.1, 0.3, 0.8):
            expected = (sigmoid(k * (t - 0.5)) - sigmoid(-k / 2)) / (sigmoid(k / 2) - sigmoid(-k / 2))
            assert curve_value(AlphaCurve.SIGMOID, t, k) == pytest.approx(expected, rel=1e-9)


@given(schedules, shares)
def test_goes_one_way_within_bounds(schedule: AlphaSchedule, start: float) -> None:
    """From any start alpha moves only towards its target, never past it, and ends exactly there."""
    values = _walk(AlphaRamp(schedule, start=start))
    low, high = sorted((start, schedule.target))
    assert all(low <= value <= high for value in values)
    assert values == sorted(values, reverse=schedule.target < start)
    assert values[-1] == schedule.target


@given(schedules, shares, st.integers(0, 320), st.booleans())
def test_state_round_trip(schedule: AlphaSchedule, start: float, num_steps: int, hysteresis: bool) -> None:
    """A ramp restored from its state, through JSON, goes on step for step as the original does."""
    ramp = AlphaRamp(schedule, start=start, hysteresis=hysteresis)
    for _ in range(num_steps):
        ramp.advance()
    twin = AlphaRamp.from_state(json.loads(json.dumps(ramp.state())))
    assert twin.state() == ramp.state()
    assert [twin.advance() for _ in range(20)] == [ramp.advance() for _ in range(20)]


def test_holds_at_the_target() -> None:
    """At hold, further steps change nothing."""
    ramp = AlphaRamp(AlphaSchedule(num_steps=3, target=0.5))
    _walk(ramp)
    before = ramp.state()
    assert ramp.advance() == 0.5
    assert ramp.state() == before
    assert ramp.num_steps_left == 0


def test_mode_names_the_direction() -> None:
    """Up while rising, hold at the target, down while falling; no way to go is hold from the start."""
    ramp = AlphaRamp(AlphaSchedule(num_steps=2, target=0.8))
    modes = [ramp.mode]
    _walk(ramp)
    modes.append(ramp.mode)
    ramp.retarget(AlphaSchedule(num_steps=2, target=0.2))
    modes.append(ramp.mode)
    assert modes == [RampMode.UP, RampMode.HOLD, RampMode.DOWN]
    assert AlphaRamp(AlphaSchedule(target=0.4), start=0.4).mode is RampMode.HOLD


def test_takes_a_new_target_only_at_hold() -> None:
    """While alpha moves a new target is refused and nothing changes."""
    ramp = AlphaRamp(AlphaSchedule(num_steps=10, target=1.0))
    ramp.advance()
    before = ramp.state()
    with pytest.raises(RampNotHoldingError, match="9 steps"):
        ramp.retarget(AlphaSchedule(target=0.0))
    assert ramp.state() == before


def test_snap_jumps_to_the_target() -> None:
    """Snap ends the ramp at once, exactly at the target."""
    ramp = AlphaRamp(AlphaSchedule(num_steps=100, target=0.7))
    ramp.advance()
    assert ramp.snap() == 0.7
    assert ramp.mode is RampMode.HOLD
    assert ramp.advance() == 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "at least 1"),
        ({"target": 1.1}, "within 0 to 1"),
        ({"target": math.nan}, "within 0 to 1"),
        ({"steepness": 0.0}, "0.01 to 1000"),
        ({"steepness": 1e6}, "0.01 to 1000"),
        ({"curve": AlphaCurve.UNSPECIFIED}, "linear, cosine or sigmoid"),
    ],
)
def test_refuses_a_schedule_outside_its_limits(change: dict[str, float], message: str) -> None:
    """A bad schedule is refused, not clamped, with the allowed range; a refused retarget leaves the ramp alone."""
    schedule = dataclasses.replace(AlphaSchedule(curve=AlphaCurve.SIGMOID), **change)  # type: ignore[arg-type]
    with pytest.raises(AlphaScheduleError, match=message):
        AlphaRamp(schedule)
    ramp = AlphaRamp(AlphaSchedule(target=0.5), start=0.5)
    before = ramp.state()
    with pytest.raises(AlphaScheduleError):
        ramp.retarget(schedule)
    assert ramp.state() == before


def test_refuses_a_start_outside_its_limits() -> None:
    """Alpha is a share."""
    with pytest.raises(AlphaScheduleError, match="start"):
        AlphaRamp(AlphaSchedule(), start=-0.1)


def test_refuses_a_state_out_of_range() -> None:
    """A damaged state is refused, not guessed at."""
    state = AlphaRamp(AlphaSchedule(num_steps=5)).state() | {"step": 6}
    with pytest.raises(AlphaScheduleError, match="0 to 5"):
        AlphaRamp.from_state(state)


def test_hysteresis_waits_at_a_threshold() -> None:
    """Rising, the effective alpha waits at 0.3 until the ramp is past 0.32; falling, until it is below 0.28."""
    ramp = AlphaRamp(AlphaSchedule(AlphaCurve.LINEAR, 100, 1.0), hysteresis=True)
    rising = {}
    while ramp.mode is RampMode.UP:
        effective = ramp.advance()
        rising[round(ramp.value * 100)] = effective
    assert [rising[percent] for percent in (29, 30, 31)] == pytest.approx([0.29, 0.30, 0.30])
    assert rising[33] == pytest.approx(0.33)
    assert rising[71] == pytest.approx(0.70)
    ramp.retarget(AlphaSchedule(AlphaCurve.LINEAR, 100, 0.0))
    falling = {}
    while ramp.mode is RampMode.DOWN:
        effective = ramp.advance()
        falling[round(ramp.value * 100)] = effective
    assert falling[31] == pytest.approx(0.31)
    assert falling[29] == pytest.approx(0.30)
    assert falling[27] == pytest.approx(0.27)


@given(schedules, shares)
def test_hysteresis_stays_close_and_one_way(schedule: AlphaSchedule, start: float) -> None:
    """The effective alpha is within the band of alpha, moves one way on one ramp, and is the target at hold."""
    ramp = AlphaRamp(schedule, start=start, hysteresis=True)
    effective = [ramp.effective]
    while ramp.mode is not RampMode.HOLD:
        effective.append(ramp.advance())
        assert abs(ramp.effective - ramp.value) <= HYSTERESIS_BAND
    assert ramp.effective == schedule.target
    moving = effective[1:-1]
    assert moving == sorted(moving, reverse=schedule.target < start)


def test_thresholds_are_those_of_the_design() -> None:
    """Hysteresis of 0.02 at 0.3 and 0.7."""
    assert (HYSTERESIS_THRESHOLDS, HYSTERESIS_BAND) == ((0.3, 0.7), 0.02)
