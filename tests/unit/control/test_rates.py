"""Token buckets: what one caller may send, and that it is nobody else's loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.config.settings import ControlSettings
from esperd.control.rates import BURST_S, MAX_NAMES, OPENING, RateClass, Rates, limits_of, rate_class
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import read_method_policies

POLICIES = read_method_policies()
_V1 = "/esper.leyline.v1."
SUBMIT = _V1 + "CommandService/SubmitCommand"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def rates(clock: Clock, per_s: float = 10.0) -> Rates:
    return Rates(POLICIES.values(), dict.fromkeys(RateClass, per_s), clock)


def refused_for_s(rates: Rates, name: str = "policy", method: str = SUBMIT) -> float:
    """Seconds to wait as the refusal says; 0 when it was let through."""
    try:
        rates.take(method, name)
    except EsperdError as error:
        return float(error.metadata["retry_after_s"])
    return 0.0


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("StateService/GetSeed", RateClass.READS),
        ("StateService/WatchState", RateClass.READS),
        ("CommandService/SubmitCommand", RateClass.COMMANDS),
        ("CommandService/CommandStream", RateClass.COMMANDS),
        ("ServerService/CheckAccess", RateClass.COMMANDS),
        ("PolicyService/DecisionStream", RateClass.DECISIONS),
        ("PolicyService/SubmitFieldReport", RateClass.DECISIONS),
        ("EmergencyService/RaiseEmergency", RateClass.EMERGENCIES),
        ("EmergencyService/ListEmergencies", RateClass.EMERGENCIES),
        ("AdminService/ReloadConfig", RateClass.ADMIN),
        ("CheckpointService/PruneCheckpoints", RateClass.ADMIN),
    ],
)
def test_kinds(method: str, kind: RateClass) -> None:
    """Each method counts as one kind."""
    assert rate_class(POLICIES[_V1 + method]) is kind


def test_a_burst_then_the_rate() -> None:
    """Two seconds' worth at once after a quiet time, then no faster than the rate; refusals cost nothing."""
    clock = Clock()
    bucket = rates(clock)
    assert [refused_for_s(bucket) for _ in range(20)] == [0.0] * 20
    for _ in range(50):
        assert refused_for_s(bucket) == pytest.approx(0.1)
    clock.now_s += 0.1
    assert refused_for_s(bucket) == 0.0
    assert refused_for_s(bucket) > 0.0


def test_the_error_names_caller_and_rate() -> None:
    """What the caller reads."""
    bucket = rates(Clock(), per_s=0.5)
    bucket.take(SUBMIT, "policy")
    with pytest.raises(EsperdError, match=r"E-AUTH-016: policy sends more than 0\.5 commands a second\."):
        bucket.take(SUBMIT, "policy")


def test_kinds_and_callers_do_not_share() -> None:
    """A flood of one leaves the others, and its own emergencies, untouched."""
    bucket = rates(Clock())
    while not refused_for_s(bucket):
        pass
    assert refused_for_s(bucket, "rival") == 0.0
    assert refused_for_s(bucket, method=_V1 + "EmergencyService/RaiseEmergency") == 0.0
    assert refused_for_s(bucket, method="/grpc.health.v1.Health/Check") == 0.0
    assert refused_for_s(bucket, method=OPENING) == 0.0


def test_other_limits_from_now_on() -> None:
    """As after a reload."""
    clock = Clock()
    bucket = rates(clock)
    while not refused_for_s(bucket):
        pass
    bucket.set_limits({**limits_of(ControlSettings()), RateClass.COMMANDS: 1000.0})
    clock.now_s += 0.1
    assert [refused_for_s(bucket) for _ in range(100)] == [0.0] * 100


def test_the_table_is_bounded() -> None:
    """Invented names share one bucket once it is full, and full buckets make room."""
    clock = Clock()
    bucket = rates(clock, per_s=1.0)
    for number in range(MAX_NAMES):
        assert refused_for_s(bucket, f"peer-{number}") == 0.0
    newcomers = [refused_for_s(bucket, f"new-{number}") for number in range(10)]
    assert newcomers[:2] == [0.0, 0.0]
    assert all(wait_s > 0.0 for wait_s in newcomers[2:])
    assert refused_for_s(bucket, "peer-7") == 0.0
    clock.now_s += 10.0
    assert refused_for_s(bucket, "newest") == 0.0
    assert all(len(table.full_at_s) <= MAX_NAMES + 1 for table in bucket._buckets.values())


@given(
    st.floats(0.1, 1e4),
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=80),
)
def test_never_more_than_the_rate_and_never_less(per_s: float, gaps_s: list[float]) -> None:
    """Against a bucket of tokens kept the plain way: the same are let through."""
    clock = Clock()
    bucket = rates(clock, per_s)
    capacity = max(1.0, BURST_S * per_s)
    tokens = capacity
    for gap_s in gaps_s:
        clock.now_s += gap_s
        tokens = min(capacity, tokens + gap_s * per_s)
        is_let_through = refused_for_s(bucket) == 0.0
        if abs(tokens - 1.0) > 1e-6 * per_s + 1e-9:
            assert is_let_through == (tokens >= 1.0)
        tokens -= is_let_through
