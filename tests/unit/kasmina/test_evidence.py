import json
import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.kasmina.evidence import BettingEProcess, ConfidenceSequence, EvidenceError, level_for
from esperd.kasmina.judgement import Judgement

Array = npt.NDArray[np.float64]

LOOK_EVERY = 32
DISASTER_SHARE = 0.03
DISASTER_SIZE = 1.5
finite = st.floats(-1e6, 1e6)


def _differences(rng: np.random.Generator, num_samples: int, gain_sds: float = 0.0) -> Array:
    """Differences such as real seeds give: mostly small, rarely a disaster (skew -2.8, kurtosis 32), sd 1."""
    disaster = rng.random(num_samples) < DISASTER_SHARE
    small = 0.4 * rng.normal(size=num_samples) * np.exp(0.4 * rng.normal(size=num_samples))
    large = 0.6 * rng.normal(size=num_samples) - DISASTER_SIZE * rng.exponential(size=num_samples)
    centred = np.where(disaster, large, small) + DISASTER_SHARE * DISASTER_SIZE
    return np.asarray(centred / 0.5965 + gain_sds)


def _says(judgement: Judgement) -> str:
    """What the gates would make of it."""
    return "proven" if judgement.proven else "refuted" if judgement.refuted else "open"


def _judge_with_peeking(differences: Array, level: float = 0.05) -> tuple[str, int]:
    """What is said when one looks after every 32 samples, and the sample count at which it is."""
    judgement = Judgement(level, 0.0)
    for start in range(0, len(differences), LOOK_EVERY):
        without = differences[start : start + LOOK_EVERY].tolist()
        judgement.take(without, [0.0] * len(without))
        if _says(judgement) != "open":
            break
    return _says(judgement), judgement.num_units


def _shares(num_runs: int, num_samples: int, gain_sds: float) -> tuple[dict[str, float], float]:
    rng = np.random.default_rng(11)
    runs = [_judge_with_peeking(_differences(rng, num_samples, gain_sds)) for _ in range(num_runs)]
    found = [said for said, _ in runs]
    shares = {said: found.count(said) / num_runs for said in ("proven", "refuted", "open")}
    return shares, statistics.fmean(count for _, count in runs)


def _z_test_ever_says_helps(differences: Array) -> bool:
    looks = np.arange(LOOK_EVERY, len(differences) + 1, LOOK_EVERY)
    z = [statistics.NormalDist().inv_cdf(0.95) * differences[:n].std(ddof=1) / math.sqrt(n) for n in looks]
    return any(differences[:n].mean() > limit for n, limit in zip(looks, z, strict=True))


def test_the_simulated_differences_are_as_nasty_as_real_ones() -> None:
    """Mean 0, sd 1, skew below -1.7 and kurtosis of 30 and more, as real seeds' differences have."""
    values = _differences(np.random.default_rng(0), 1_000_000)
    assert values.mean() == pytest.approx(0.0, abs=0.003)
    assert values.std() == pytest.approx(1.0, abs=0.01)
    assert (values**3).mean() < -1.7
    assert (values**4).mean() > 29.0


@pytest.mark.parametrize(("num_samples", "num_runs"), [(1024, 2000), (2048, 1000)])
def test_wrong_commits_stay_below_five_percent(num_samples: int, num_runs: int) -> None:
    """A seed worth nothing is committed in at most 5 % of runs although one looks every 32 samples."""
    shares, _ = _shares(num_runs, num_samples, 0.0)
    assert shares["proven"] <= 0.05
    assert shares["refuted"] <= 0.05
    assert shares["open"] >= 0.9


def test_a_z_test_at_every_look_commits_far_too_often() -> None:
    """The contrast: the usual test, asked at every look, waves a fifth and more of useless seeds through."""
    rng = np.random.default_rng(11)
    wrong = sum(_z_test_ever_says_helps(_differences(rng, 1024)) for _ in range(300))
    assert wrong / 300 > 0.2


@pytest.mark.parametrize(("gain_sds", "most_samples"), [(0.2, 300), (0.4, 120)])
def test_useful_seeds_are_found_soon(gain_sds: float, most_samples: int) -> None:
    """Gains of 0.2 and 0.4 sd, those of our good seeds, are proven in nearly all runs within a few probes."""
    shares, mean_samples = _shares(300, 1024, gain_sds)
    assert shares["proven"] >= 0.98
    assert mean_samples < most_samples


def test_harmful_seeds_are_found_soon() -> None:
    """A seed that costs 0.2 sd is called harmful in nearly all runs."""
    shares, _ = _shares(300, 1024, -0.2)
    assert shares["refuted"] >= 0.98


def test_radius_matches_the_formula() -> None:
    """The radius is the one of the docstring."""
    values = [math.sin(i) for i in range(200)]
    sequence = ConfidenceSequence(0.05)
    sequence.update(values)
    a, n, sd = 0.05, 200, statistics.stdev(values)
    rho2 = (-2 * math.log(2 * a) + math.log(-2 * math.log(2 * a) + 1)) / 256
    radius = sd * math.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(1 + math.sqrt(n * rho2 + 1) / (2 * a)))
    assert sequence.radius == pytest.approx(radius)
    assert sequence.lower == pytest.approx(statistics.fmean(values) - radius)
    assert sequence.upper == pytest.approx(statistics.fmean(values) + radius)


def test_tightest_near_256() -> None:
    """Relative to a fixed-sample bound, the sequence is at its best within a factor of two of 256 samples."""
    ratios = {}
    for num_samples in range(64, 2049, 16):
        sequence = ConfidenceSequence(0.05)
        sequence.update([1.0, -1.0] * (num_samples // 2))
        ratios[num_samples] = sequence.radius * math.sqrt(num_samples)
    assert 128 <= min(ratios, key=ratios.__getitem__) <= 512


def test_nothing_is_said_below_64_samples() -> None:
    """Too few samples give infinite bounds and no decision, however clear they look."""
    judgement = Judgement(0.05, 0.0)
    judgement.take([1.0 + 0.001 * i for i in range(63)], [0.0] * 63)
    assert (judgement.sequence.lower, judgement.sequence.upper) == (-math.inf, math.inf)
    assert _says(judgement) == "open"
    judgement.take([1.0], [0.0])
    assert _says(judgement) == "proven"


@given(st.lists(finite, min_size=1, max_size=200), st.integers(1, 50))
def test_streaming_equals_the_whole(values: list[float], batch_size: int) -> None:
    """Fed in batches of any size, mean and spread are those of the whole list."""
    sequence = ConfidenceSequence()
    for start in range(0, len(values), batch_size):
        sequence.update(values[start : start + batch_size])
    assert sequence.num_samples == len(values)
    assert sequence.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    assert sequence.std == pytest.approx(spread, rel=1e-6, abs=1e-6)
    assert sequence.lower <= sequence.mean <= sequence.upper


@given(st.lists(finite, max_size=100), st.lists(finite, max_size=20))
def test_sequence_round_trip(before: list[float], after: list[float]) -> None:
    """A sequence restored from its state, through JSON, goes on exactly as the original."""
    sequence = ConfidenceSequence(0.03)
    sequence.update(before)
    twin = ConfidenceSequence.from_state(json.loads(json.dumps(sequence.state())))
    sequence.update(after)
    twin.update(after)
    assert twin.state() == sequence.state()
    assert (twin.lower, twin.upper) == (sequence.lower, sequence.upper)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_difference_that_is_not_finite_is_refused_whole(value: float) -> None:
    """One bad value refuses its batch, and nothing of the batch is counted."""
    sequence = ConfidenceSequence()
    sequence.update([1.0, 2.0])
    with pytest.raises(EvidenceError, match="not finite"):
        sequence.update([3.0, value])
    assert sequence.num_samples == 2


@pytest.mark.parametrize("level", [0.0, 0.5, -0.1, 1.0, math.nan])
def test_refuses_a_level_out_of_range(level: float) -> None:
    """An error level is between 0 and one half."""
    with pytest.raises(EvidenceError, match="level"):
        ConfidenceSequence(level)
    with pytest.raises(EvidenceError, match="level"):
        BettingEProcess(level, 1.0)


@pytest.mark.parametrize(("mean", "said"), [(0.10, "proven"), (0.05, "open"), (0.02, "refuted"), (-0.10, "refuted")])
def test_judged_against_the_wanted_gain(mean: float, said: str) -> None:
    """Above the wanted gain it is proven, surely below it refuted, at it open however long one looks."""
    for num_pairs in (128, 512):
        judgement = Judgement(0.05, 0.05)
        judgement.take([mean + 0.01, mean - 0.01] * num_pairs, [0.0] * 2 * num_pairs)
        assert _says(judgement) == said


def test_strict_evidence_needs_both() -> None:
    """With a loss cap the bet must agree before a gain is proven."""
    plain, strict = Judgement(0.05, 0.0), Judgement(0.05, 0.0, CAP)
    for judgement in (plain, strict):
        judgement.take([0.011, 0.009] * 64, [0.0] * 128)
    assert (_says(plain), _says(strict)) == ("proven", "open")
    strict.take([CAP / 2] * 256, [0.0] * 256)
    assert _says(strict) == "proven"


def test_level_is_spent_over_germinations() -> None:
    """All germinations together spend the total level, and no more."""
    assert sum(level_for(k) for k in range(1, 20_000)) == pytest.approx(0.05, rel=1e-4)
    assert sum(level_for(k) for k in range(1, 20_000)) < 0.05
    assert level_for(1, 0.1) == pytest.approx(0.1 * 6 / math.pi**2)
    with pytest.raises(EvidenceError, match="from 1"):
        level_for(0)


CAP = 4.0 * math.log(10.0)


def _losses(rng: np.random.Generator, num_samples: int, gain: float) -> tuple[list[float], list[float]]:
    """Losses without and with a seed that gains `gain` on average, all within the cap."""
    base = np.clip(rng.exponential(1.5, num_samples), 0.0, CAP - 2.0) + 1.0
    noise = rng.uniform(-1.0, 1.0, num_samples)
    return base.tolist(), (base - gain + noise * (1.0 - abs(gain))).tolist()


def test_betting_keeps_its_level() -> None:
    """A seed worth nothing is proven useful in at most 5 % of runs, looking after every single sample."""
    rng = np.random.default_rng(3)
    proven = 0
    for _ in range(400):
        process = BettingEProcess(0.05, CAP)
        process.update(*_losses(rng, 1024, 0.0))
        proven += process.proven
    assert proven / 400 <= 0.05


@pytest.mark.parametrize("gain", [0.3, 0.0, -0.3])
def test_betting_finds_useful_and_harmful_seeds(gain: float) -> None:
    """A clear gain is proven by the bet on help, a clear loss by the bet on harm, nothing by neither."""
    without, with_seed = _losses(np.random.default_rng(4), 1024, gain)
    helps, harms = BettingEProcess(0.05, CAP), BettingEProcess(0.05, CAP)
    helps.update(without, with_seed)
    harms.update(with_seed, without)
    assert (helps.proven, harms.proven) == (gain > 0, gain < 0)


def test_betting_against_a_wanted_gain() -> None:
    """What gains less than the wanted gain is not proven; what gains more is."""
    losses = _losses(np.random.default_rng(5), 2000, 0.3)
    for wanted, proven in ((0.5, False), (0.05, True)):
        process = BettingEProcess(0.05, CAP, wanted)
        process.update(*losses)
        assert process.proven is proven


@given(
    st.lists(st.tuples(st.floats(0.0, 2 * CAP), st.floats(0.0, 2 * CAP)), max_size=100),
    st.floats(-0.9, 0.9),
)
def test_wealth_never_reaches_zero(pairs: list[tuple[float, float]], null_share: float) -> None:
    """Whatever comes, the gambler is never ruined: the wealth stays positive and the p-value within (0, 1]."""
    process = BettingEProcess(0.05, CAP, null_share * CAP)
    process.update([a for a, _ in pairs], [b for _, b in pairs])
    assert math.isfinite(process.log_wealth)
    assert 0.0 <= process.p_value <= 1.0


def test_betting_caps_losses_not_differences() -> None:
    """An infinite loss with the seed counts as the cap and costs wealth; it is not hidden."""
    process = BettingEProcess(0.05, CAP)
    process.update([2.0] * 200, [1.0] * 200)
    before = process.log_wealth
    process.update([1.0], [math.inf])
    assert process.log_wealth < before
    with pytest.raises(EvidenceError, match="NaN"):
        process.update([1.0], [math.nan])


@pytest.mark.parametrize(("cap", "gain"), [(0.0, 0.0), (math.inf, 0.0), (1.0, 1.0), (1.0, -2.0)])
def test_betting_refuses_limits_that_make_no_sense(cap: float, gain: float) -> None:
    """The cap is finite and positive, the wanted gain smaller than it."""
    with pytest.raises(EvidenceError, match="loss_cap"):
        BettingEProcess(0.05, cap, gain)


def test_betting_refuses_unpaired_losses() -> None:
    """Each loss needs its partner; a refused batch counts nothing."""
    process = BettingEProcess(0.05, CAP)
    with pytest.raises(EvidenceError, match="paired"):
        process.update([1.0, 2.0], [1.0])
    assert process.num_samples == 0


def test_betting_round_trip() -> None:
    """A process restored from its state, through JSON, goes on exactly as the original."""
    process = BettingEProcess(0.05, CAP, 0.01)
    process.update(*_losses(np.random.default_rng(6), 300, 0.2))
    twin = BettingEProcess.from_state(json.loads(json.dumps(process.state())))
    more = _losses(np.random.default_rng(7), 50, 0.2)
    process.update(*more)
    twin.update(*more)
    assert twin.state() == process.state()
