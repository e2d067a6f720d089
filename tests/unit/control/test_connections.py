"""Open streams: who is kept out when all are taken, and who gives way."""

import asyncio
from contextlib import suppress

import pytest

from esperd.control.connections import Connections
from esperd.leyline.errors import EsperdError


class Hall:
    """Connections, and tasks that hold a stream each for as long as they are let."""

    def __init__(self, max_streams: int) -> None:
        self.connections = Connections(lambda: 1.0, max_streams)
        self.held: list[asyncio.Task[None]] = []

    async def open(self, *, is_signed: bool, principal: str = "") -> "asyncio.Task[None]":
        """Open one, and sign on it if there is a principal."""

        async def hold() -> None:
            with self.connections.open_stream("/m", "unix:", is_signed=is_signed) as stream:
                if principal:
                    self.connections.note_signer(f"key of {principal}", principal, stream)
                await asyncio.Event().wait()

        task = asyncio.ensure_future(hold())
        self.held.append(task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task


@pytest.fixture
def hall() -> Hall:
    return Hall(8)


def reason(task: "asyncio.Task[None]") -> str:
    """Why a stream was refused or ended; empty while it is open."""
    if not task.done():
        return ""
    fault = task.exception()
    assert isinstance(fault, EsperdError)
    return fault.reason


async def close(hall: Hall) -> None:
    for task in hall.held:
        task.cancel()
        with suppress(asyncio.CancelledError, EsperdError):
            await task
    assert hall.connections.num_streams == 0


async def test_readers_do_not_keep_a_policy_out(hall: Hall) -> None:
    """Unsigned streams are refused while a quarter is left; a signed session still opens."""
    readers = [await hall.open(is_signed=False) for _ in range(8)]
    assert [reason(task) for task in readers] == [""] * 6 + ["TOO_MANY_STREAMS"] * 2
    policies = [await hall.open(is_signed=True, principal="policy") for _ in range(2)]
    assert [reason(task) for task in policies] == ["", ""]
    await close(hall)


async def test_who_has_not_signed_gives_way(hall: Hall) -> None:
    """Sessions that are opened and never signed on end, the oldest first, when a session has no room otherwise."""
    silent = [await hall.open(is_signed=True) for _ in range(8)]
    policy = await hall.open(is_signed=True, principal="policy")
    await asyncio.sleep(0)
    assert [reason(task) for task in silent] == ["TOO_MANY_STREAMS"] + [""] * 7
    assert reason(policy) == ""
    await close(hall)


async def test_who_has_signed_stays(hall: Hall) -> None:
    """When everybody has signed, newcomers are refused, whether they sign or not."""
    policies = [await hall.open(is_signed=True, principal=f"policy-{number}") for number in range(8)]
    late = [await hall.open(is_signed=is_signed) for is_signed in (True, False)]
    assert [reason(task) for task in late] == ["TOO_MANY_STREAMS"] * 2
    assert not any(map(reason, policies))
    await close(hall)
