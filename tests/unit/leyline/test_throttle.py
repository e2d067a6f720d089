"""The failure bucket: twenty failures a minute and peer, refilled evenly, in bounded memory."""

import pytest

from esperd.leyline.throttle import FailureThrottle


def test_bucket_closes_and_refills() -> None:
    """Twenty failures pass; then one more is allowed every three seconds."""
    throttle = FailureThrottle()
    for _ in range(20):
        assert throttle.wait_s("p", 100.0) == 0.0
        throttle.record_failure("p", 100.0)
    assert throttle.wait_s("p", 100.0) == pytest.approx(3.0)
    assert throttle.wait_s("p", 102.0) == pytest.approx(1.0)
    assert throttle.wait_s("p", 103.0) == 0.0
    throttle.record_failure("p", 103.0)
    assert throttle.wait_s("p", 103.0) == pytest.approx(3.0)
    assert throttle.wait_s("p", 163.0) == 0.0


def test_peers_are_apart() -> None:
    """One peer's failures are not another's."""
    throttle = FailureThrottle(per_minute=1)
    throttle.record_failure("p", 0.0)
    assert throttle.wait_s("p", 0.0) > 0
    assert throttle.wait_s("q", 0.0) == 0.0


def test_table_is_bounded_and_newcomers_share_a_bucket() -> None:
    """A flood of invented peers is slowed as one, and does not push out those who are known."""
    throttle = FailureThrottle(per_minute=2, max_peers=3)
    for number in range(50):
        throttle.record_failure(f"peer-{number}", 0.0)
    assert len(throttle._failures) == 4
    assert throttle.wait_s("peer-49", 0.0) > 0
    assert throttle.wait_s("never seen", 0.0) > 0
    assert throttle.wait_s("peer-0", 0.0) == 0.0


def test_refilled_buckets_are_forgotten() -> None:
    """A bucket that is full again takes no room."""
    throttle = FailureThrottle(per_minute=2, max_peers=3)
    for number in range(3):
        throttle.record_failure(f"peer-{number}", 0.0)
    throttle.record_failure("late", 60.0)
    assert list(throttle._failures) == ["late"]
