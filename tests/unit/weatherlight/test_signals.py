"""Signals are recorded, and the first one decides how the process ends."""

import asyncio
import os
import signal

from esperd.weatherlight.signals import SignalRecord


async def test_a_real_signal_is_recorded_and_wakes_the_waiter() -> None:
    """SIGTERM does not end the process while the record is open."""
    with SignalRecord(asyncio.get_running_loop()) as record:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(record.first(), 5)
    assert record.received == [signal.SIGTERM]
    assert not record.ends_by_sigint


async def test_the_second_signal_is_told_apart() -> None:
    """`second` waits for another signal; the first still decides."""
    record = SignalRecord(asyncio.get_running_loop())
    record.note(signal.SIGINT)
    second = asyncio.create_task(record.second())
    await record.first()
    assert not second.done()
    record.note(signal.SIGTERM)
    await asyncio.wait_for(second, 5)
    assert record.ends_by_sigint


async def test_more_signals_change_nothing() -> None:
    """A third signal is recorded and otherwise ignored."""
    record = SignalRecord(asyncio.get_running_loop())
    for _ in range(3):
        record.note(signal.SIGTERM)
    await record.second()
    assert len(record.received) == 3


async def test_a_hangup_asks_for_a_reload_and_not_for_an_end() -> None:
    """Those that come while nobody waits count as one; the process is not ended by them."""
    with SignalRecord(asyncio.get_running_loop()) as record:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(record.hangup(), 5)
        second = asyncio.create_task(record.hangup())
        await asyncio.sleep(0)
        assert not second.done()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(second, 5)
    assert record.received == []
