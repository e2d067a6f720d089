"""Signals, recorded: the first asks for an orderly end, the second for a quick one; SIGHUP asks for a reload.

Main thread, on the event loop. The recorded signal decides the exit status, which tells the truth: SIGTERM is how a
service is asked to end, so ending well is 0; SIGINT is a person who broke off, so the process ends by SIGINT, as a
shell expects.
"""

import asyncio
import signal
from types import TracebackType
from typing import Self

HANDLED = (signal.SIGTERM, signal.SIGINT)


class SignalRecord:
    """Context manager: while it is open, SIGTERM, SIGINT and SIGHUP are only recorded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.received: list[signal.Signals] = []
        self._first: asyncio.Future[None] = loop.create_future()
        self._second: asyncio.Future[None] = loop.create_future()
        self._hangup = asyncio.Event()

    def __enter__(self) -> Self:
        for number in HANDLED:
            self._loop.add_signal_handler(number, self.note, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in HANDLED:
            self._loop.remove_signal_handler(number)
        self._loop.remove_signal_handler(signal.SIGHUP)

    def note(self, number: signal.Signals) -> None:
        """Record one signal."""
        self.received.append(number)
        for awaited in (self._first, self._second)[: len(self.received)]:
            if not awaited.done():
                awaited.set_result(None)

    async def first(self) -> None:
        """Return once a signal has come."""
        await asyncio.shield(self._first)

    async def second(self) -> None:
        """Return once a second signal has come."""
        await asyncio.shield(self._second)

    async def hangup(self) -> None:
        """Return once a SIGHUP has come since the last return; those that came meanwhile count as one."""
        await self._hangup.wait()
        self._hangup.clear()

    @property
    def ends_by_sigint(self) -> bool:
        """Whether a person broke the daemon off."""
        return bool(self.received) and self.received[0] is signal.SIGINT
