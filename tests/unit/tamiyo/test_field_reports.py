"""Observation windows and what is reported when they close."""

import math

import pytest
from esper.tamiyo.field_reports import Report, Window, close_windows, open_window
from esper.tamiyo.observation import Attempt, Ending, Gain

from tests.unit.tamiyo.moments import moment, pre_blend, seed


def window(state: str = "APPLIED", reason: str = "", seed_id: str = "1", **changes: object) -> Window:
    attempt = Attempt("r", "START_GRAFTING", 500, "conv1", seed_id, "residual_conv", state=state, reason=reason)
    return open_window(attempt, "cmd-1", moment(500, **changes), 300, propensity=1.0, held_out=False)


def closed(found: Window, step: int = 800, **changes: object) -> Report:
    [report] = close_windows([found], moment(step, **changes), policy_version="1", now_unix_s=9.0)
    return report


def test_report_id_is_made_from_run_and_command() -> None:
    """The same decision always has the same report id, so that delivery is idempotent."""
    assert window().report_id == window().report_id == "run-1/cmd-1"


def test_windows_stay_open_until_their_steps_have_passed() -> None:
    """Nothing is reported while a seed still lives in its window."""
    assert close_windows([window()], moment(799, seeds=(seed("1"),)), policy_version="1", now_unix_s=0.0) == []
    assert closed(window(), seeds=(seed("1"),)).window_steps == 300


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        (pre_blend(0.1, 0.05, 0.2), "SUCCESS"),
        (pre_blend(0.1, -0.05, 0.2), "NEUTRAL"),
        (pre_blend(-0.1, -0.2, -0.05), "REGRESSION"),
        ((), "NEUTRAL"),
    ],
)
def test_live_seed_is_judged_by_its_measured_gain(gains: tuple[Gain, ...], outcome: str) -> None:
    """The host's own progress earns nothing: without a measured contribution the outcome is neutral."""
    assert closed(window(), seeds=(seed("1", "SHADOWING", gains=gains),), probe_loss=0.1).outcome == outcome


def test_fossil_is_a_success() -> None:
    """A kept seed has passed its commit gate."""
    ending = Ending("1", "conv1", "residual_conv", "FOSSILIZED", "PROBATIONARY", 700)
    assert closed(window(), 700, endings=(ending,)).outcome == "SUCCESS"


@pytest.mark.parametrize(
    ("last_stage", "loss", "outcome"),
    [("TRAINING", 0.9, "NEUTRAL"), ("BLENDING", 0.9, "REGRESSION"), ("BLENDING", 0.505, "NEUTRAL")],
)
def test_cull_is_a_regression_only_if_the_host_has_felt_it(last_stage: str, loss: float, outcome: str) -> None:
    """A candidate cannot have harmed the host; a blended seed that left the loss higher has."""
    ending = Ending("1", "conv1", "residual_conv", "CULLED", last_stage, 600)
    report = closed(window(), 600, endings=(ending,), probe_loss=loss)
    assert report.outcome == outcome
    assert bool(report.follow_ups) == (outcome == "REGRESSION")


def test_refused_command_is_aborted_at_once() -> None:
    """A command that came to nothing is reported with the daemon's reason."""
    report = closed(window("REJECTED", "GATE_FAILED"), 500)
    assert report.outcome == "ABORTED"
    assert "GATE_FAILED" in report.notes


def test_run_that_finishes_first_aborts_the_window() -> None:
    """A window that the run does not live to see is aborted."""
    assert closed(window(), 600, reason="run_finished", seeds=(seed("1"),)).outcome == "ABORTED"


def test_metrics_hold_deltas_and_only_finite_numbers() -> None:
    """Before, after and delta of each loss that was measured on both sides."""
    report = closed(
        window(), seeds=(seed("1", gains=pre_blend(0.1, 0.05, 0.2)),), probe_loss=0.4, validation_loss=math.nan
    )
    assert report.metrics["probe_loss_delta"] == pytest.approx(-0.1)
    assert "validation_loss_delta" not in report.metrics
    assert report.metrics["pre_blend_gain_lower"] == 0.05
    assert report.metrics["flops_ratio"] > 0


def test_a_rollback_aborts_the_windows_of_the_timeline_that_it_left() -> None:
    """What was decided there did not come to pass here; the seed of that number may be another one."""
    report = closed(window(), step=510, timeline=2, seeds=(seed("1", "FOSSILIZED"),))
    assert (report.outcome, "a rollback left timeline 1" in report.notes) == ("ABORTED", True)
