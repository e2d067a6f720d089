"""The memory of calls in progress: bounded, never at the cost of an emergency, and given back."""

from contextlib import ExitStack

import pytest

from esperd.control.room import SMALL_BYTES, Room
from esperd.leyline.errors import EsperdError

LARGE = SMALL_BYTES + 1


def refusal(room: Room, num_bytes: int, *, is_signed: bool = True, is_urgent: bool = False) -> str:
    """Why a call is refused; empty when it is let in."""
    try:
        with room.hold(num_bytes, is_signed=is_signed, is_urgent=is_urgent):
            return ""
    except EsperdError as error:
        return error.reason if float(error.metadata["retry_after_s"]) > 0 else "no time to wait"


def test_large_requests_are_refused_when_there_is_no_room_for_them() -> None:
    """Small ones are not, nor is anything once the others have ended."""
    room = Room(max_bytes=2 * LARGE)
    with ExitStack() as calls:
        for _ in range(2):
            calls.enter_context(room.hold(LARGE, is_signed=True, is_urgent=False))
        assert refusal(room, LARGE) == refusal(room, LARGE, is_urgent=True) == "PACED_OUT"
        assert refusal(room, SMALL_BYTES) == ""
    assert refusal(room, LARGE) == ""
    assert (room.num_bytes, room.num_calls) == (0, 0)


def test_beyond_the_bound_only_emergencies_are_served() -> None:
    """However many calls are in progress, an emergency is one more."""
    room = Room(max_calls=3)
    with ExitStack() as calls:
        for _ in range(3):
            calls.enter_context(room.hold(1, is_signed=True, is_urgent=False))
        assert refusal(room, 1) == "PACED_OUT"
        assert refusal(room, 1, is_urgent=True) == ""


def test_readers_who_wait_keep_no_signer_out() -> None:
    """A quarter of the calls is for those that are signed; a read of the emergency lane is a read."""
    room = Room(max_calls=4)
    with ExitStack() as calls:
        for _ in range(3):
            calls.enter_context(room.hold(1, is_signed=False, is_urgent=False))
        assert refusal(room, 1, is_signed=False) == refusal(room, 1, is_signed=False, is_urgent=True) == "PACED_OUT"
        assert refusal(room, 1) == ""
    assert room.num_reads == 0


def test_a_call_that_fails_gives_its_room_back() -> None:
    """Whatever ends a call."""
    room = Room()
    with pytest.raises(ValueError, match="a fault"), room.hold(LARGE, is_signed=False, is_urgent=False):
        raise ValueError("a fault")
    assert (room.num_bytes, room.num_calls) == (0, 0)
