import json
import math
import random

import pytest

from esperd.kasmina.loss_watch import LossWatch, ProbeWatch, confirms_harm


def _watch(num_losses: int = 50, *, mean: float = 1.0, sd: float = 0.1) -> LossWatch:
    rng = random.Random(0)
    return LossWatch(rng.gauss(mean, sd) for _ in range(num_losses))


def test_limit_is_six_sds_and_a_floor_above_the_mean() -> None:
    """The limit is mean + 6 sd + 0.05 over the window; only a loss above it is suspicious."""
    watch = _watch()
    assert watch.limit == pytest.approx(watch.mean + 6.0 * watch.std + 0.05)
    assert not watch.is_suspicious(watch.limit)
    assert watch.is_suspicious(watch.limit + 1e-9)
    assert not watch.is_suspicious(-10.0)


def test_window_forgets_what_is_older_than_fifty_steps() -> None:
    """Only the 50 losses before the newest ten count."""
    watch = LossWatch([1000.0] * 50)
    for _ in range(60):
        watch.observe(1.0)
    assert (watch.num_losses, watch.mean, watch.std) == (60, 1.0, 0.0)


def test_a_loss_that_doubles_does_not_raise_its_own_limit() -> None:
    """The newest ten losses say nothing of what is normal: a quick climb is seen at its first large loss."""
    watch = LossWatch([0.3, 0.35] * 30)
    limit = watch.limit
    for loss in (0.4, 0.5, 0.6):
        watch.observe(loss)
    assert watch.limit == pytest.approx(limit, abs=1e-3)
    assert watch.is_suspicious(1.2)


def test_a_still_loss_does_not_trip_over_noise() -> None:
    """With a standard deviation of 0 the floor of 0.05 remains."""
    watch = LossWatch([1.0] * 50)
    assert not watch.is_suspicious(1.04)
    assert watch.is_suspicious(1.06)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_suspicious_and_left_out(loss: float) -> None:
    """NaN and infinity are always suspicious, also with an empty window, and never spoil the statistics."""
    watch = _watch()
    before = watch.state()
    assert watch.is_suspicious(loss)
    assert LossWatch().is_suspicious(loss)
    watch.observe(loss)
    assert watch.state() == before


def test_too_few_losses_make_nothing_suspicious() -> None:
    """Below ten losses any finite loss passes."""
    assert not _watch(9).is_suspicious(1e9)
    assert _watch(10).is_suspicious(1e9)


def test_loss_watch_round_trip() -> None:
    """A watch restored from its state, through JSON, has the same limit."""
    watch = _watch()
    twin = LossWatch(json.loads(json.dumps(watch.state())))
    assert (twin.state(), twin.limit) == (watch.state(), watch.limit)


def test_empty_watch_has_no_mean() -> None:
    """Nothing observed is NaN, not 0."""
    assert math.isnan(LossWatch().mean)
    assert LossWatch().std == 0.0


def test_harm_needs_more_than_three_standard_errors() -> None:
    """The seed is blamed only if with - without is above 3 standard errors."""
    without = [1.0, 1.0, 1.0, 1.0]
    assert confirms_harm([1.9, 2.1, 2.0, 2.0], without)
    assert not confirms_harm([1.1, 0.9, 1.3, 0.8], without)
    assert not confirms_harm([0.1, 0.2, 0.1, 0.2], without)


def test_a_hard_batch_is_not_the_seeds_fault() -> None:
    """High losses with and without the seed alike confirm nothing."""
    assert not confirms_harm([50.0, 60.0, 55.0], [50.0, 60.0, 55.0])


def test_constant_harm_without_spread_is_harm() -> None:
    """A standard error of 0 does not hide a difference."""
    assert confirms_harm([2.0, 2.0], [1.0, 1.0])


def test_who_is_to_blame_for_a_nan() -> None:
    """NaN only with the seed is the seed's; NaN without it too is the host's."""
    assert confirms_harm([math.nan, 1.0], [1.0, 1.0])
    assert not confirms_harm([math.nan, 1.0], [math.nan, 1.0])


@pytest.mark.parametrize(("with_seed", "without"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_confirmation_needs_pairs(with_seed: list[float], without: list[float]) -> None:
    """Unpaired or single losses are refused."""
    with pytest.raises(ValueError, match="paired"):
        confirms_harm(with_seed, without)


def test_probes_trip_on_slow_harm_only() -> None:
    """Four probes of 64 with a mean of -0.5 sd trip; of +0.2 sd or 0 do not."""
    rng = random.Random(1)
    for gain, trips in ((-0.5, True), (0.0, False), (0.2, False)):
        watch = ProbeWatch([[rng.gauss(gain, 1.0) for _ in range(64)] for _ in range(4)])
        assert (watch.upper < 0.0) is trips


def test_probes_forget() -> None:
    """Only the last four probes count."""
    watch = ProbeWatch([[-1.0, -1.1, -0.9]] * 4)
    assert watch.upper < 0.0
    for _ in range(4):
        watch.observe([1.0, 1.1, 0.9])
    assert watch.upper >= 0.0


def test_a_probe_that_is_not_finite_trips() -> None:
    """A NaN difference is harm."""
    assert ProbeWatch([[0.1, math.nan]]).upper < 0.0
    assert ProbeWatch().upper >= 0.0


def test_probe_watch_round_trip() -> None:
    """A probe watch restored from its state, through JSON, has the same bound."""
    watch = ProbeWatch([[0.1, -0.2, 0.3], [0.0, 0.5]])
    twin = ProbeWatch(json.loads(json.dumps(watch.state())))
    assert (twin.state(), twin.upper) == (watch.state(), watch.upper)
