"""The nonce store by itself and under the verifier; `test_verify_model.py` sets both against a perfect memory."""

import pytest

from esperd.leyline.nonces import NonceCapacity, NonceReplayed, NonceStore
from esperd.leyline.verify import RequestRefused
from tests.unit.leyline.requests import Desk


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
