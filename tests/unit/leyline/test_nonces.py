"""The nonce store against a perfect memory: no envelope is accepted twice, whatever the clocks do."""

import itertools

import pytest
from esper.leyline.v1.envelope_pb2 import SignedHeader
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from esperd.leyline.nonces import NonceCapacity, NonceReplayed, NonceStore
from esperd.leyline.verify import RequestRefused
from tests.unit.leyline.requests import Clocks, Desk, Envelope, make_key

KEYS = [make_key("a"), make_key("b", bytes(range(1, 33))), make_key("c", bytes(range(2, 34)))]


class Replay(RuleBasedStateMachine):
    """Random signing, sending, resending, time, clock steps and restarts, beside an oracle that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks = Clocks()
        self.epochs = itertools.count(1)
        self.signed: list[Envelope] = []
        self.accepted: set[bytes] = set()

    @initialize(per_key=st.integers(1, 4), total=st.integers(2, 8))
    def begin(self, per_key: int, total: int) -> None:
        """A small store, so that it fills."""
        self.per_key, self.total = per_key, total
        self.restart()

    @rule()
    def restart(self) -> None:
        """A new start of the daemon: an empty store and a new epoch; the monotonic clock starts anywhere."""
        self.clocks.monotonic_s = 50.0
        self.desk = Desk(
            KEYS,
            epoch=next(self.epochs).to_bytes(16, "big"),
            clocks=self.clocks,
            per_key=self.per_key,
            total=self.total,
            num_signed=len(self.signed) * 1000,
        )

    @rule(key=st.sampled_from(KEYS), skew_s=st.floats(-70, 70))
    def sign_and_send(self, key: object, skew_s: float) -> None:
        """A client with a clock of its own signs one request and sends it."""
        envelope = self.desk.sign(key=key, issue_unix_s=self.clocks.wall_s + skew_s)  # type: ignore[arg-type]
        self.signed.append(envelope)
        self.send(envelope)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """An attacker sends any envelope that was ever signed."""
        if self.signed:
            self.send(data.draw(st.sampled_from(self.signed)))

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        """Both clocks go on."""
        self.clocks.pass_time(seconds)

    @rule(seconds=st.floats(-4000, 4000))
    def wall_clock_is_stepped(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.clocks.wall_s += seconds

    @rule(data=st.data(), forgotten=st.booleans())
    def wall_clock_is_turned_back_for_a_replay(self, data: st.DataObject, forgotten: bool) -> None:
        """An attacker turns the clock back to an envelope's own time, perhaps after its nonce was forgotten."""
        if self.signed:
            if forgotten:
                self.clocks.pass_time(301)
            envelope = data.draw(st.sampled_from(self.signed))
            self.clocks.wall_s = float(SignedHeader.FromString(envelope.header).issue_time.seconds)
            self.send(envelope)

    def send(self, envelope: Envelope) -> None:
        """Send; nothing that was ever accepted may be accepted again."""
        reason = self.reason_of(envelope)
        assert reason in {"", "EPOCH_STALE", "TIMESTAMP_OUT_OF_WINDOW", "NONCE_REPLAYED", "NONCE_CAPACITY"}
        seen = envelope.header in self.accepted
        assert reason or not seen, "accepted twice"
        assert reason != "NONCE_REPLAYED" or seen
        if not reason:
            self.accepted.add(envelope.header)

    def reason_of(self, envelope: Envelope) -> str:
        """Why the verifier refuses it, empty when it passes."""
        try:
            self.desk.verify(envelope)
        except RequestRefused as refused:
            return refused.reason
        return ""

    @invariant()
    def bounded(self) -> None:
        """The store never holds more than it may."""
        if hasattr(self, "desk"):
            assert len(self.desk.nonces) <= self.total


TestReplay = Replay.TestCase
TestReplay.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_stepped_wall_clock_does_not_reopen_a_replay() -> None:
    """After the nonce is forgotten and the clock stepped back, the watermark still refuses the old envelope."""
    desk = Desk()
    old = desk.sign()
    desk.verify(old)
    desk.clocks.pass_time(301)
    desk.clocks.wall_s -= 301
    with pytest.raises(RequestRefused) as caught:
        desk.verify(old)
    assert caught.value.reason == "TIMESTAMP_OUT_OF_WINDOW"
    assert "newest forgotten" in caught.value.audit_cause
    assert len(desk.nonces) == 0


def test_restart_with_a_new_epoch_refuses_what_the_last_start_accepted() -> None:
    """No nonce database is needed across a restart."""
    first = Desk()
    envelope = first.sign()
    first.verify(envelope)
    with pytest.raises(RequestRefused, match="earlier start"):
        Desk(epoch=bytes(16)).verify(envelope)


def test_quota_is_per_key_and_a_total() -> None:
    """One busy key cannot take the room of another; together they cannot pass the total."""
    store = NonceStore(per_key=2, total=3, retention_s=10)
    for number, key in enumerate(("a", "a", "b")):
        store.claim(key, bytes([number]), 0.0, float(number))
    with pytest.raises(NonceCapacity) as full:
        store.claim("a", b"x", 0.0, 3.0)
    assert (full.value.scope, full.value.retry_after_s) == ("key", 7.0)
    with pytest.raises(NonceCapacity) as full:
        store.claim("c", b"x", 0.0, 3.0)
    assert (full.value.scope, full.value.retry_after_s) == ("total", 7.0)


def test_room_comes_back_with_expiry_and_the_watermark_rises() -> None:
    """Expiry is by acceptance; the watermark is the newest issue time that was forgotten."""
    store = NonceStore(per_key=2, total=2, retention_s=10)
    store.claim("a", b"1", 500.0, 0.0)
    store.claim("b", b"1", 400.0, 1.0)
    store.expire(9.9)
    assert (len(store), store.watermark_unix_s) == (2, float("-inf"))
    store.expire(10.0)
    assert (len(store), store.watermark_unix_s) == (1, 500.0)
    store.expire(11.0)
    assert (len(store), store.watermark_unix_s) == (0, 500.0)
    store.claim("a", b"1", 600.0, 11.0)


def test_one_nonce_of_two_keys_is_two_nonces() -> None:
    """A key cannot spoil another's nonces."""
    store = NonceStore()
    store.claim("a", b"n", 0.0, 0.0)
    store.claim("b", b"n", 0.0, 0.0)
    with pytest.raises(NonceReplayed):
        store.claim("a", b"n", 0.0, 0.0)
