"""Work that comes up by its time alone, such as deadlines and frames of telemetry.

Event loop only. Its cost is kept apart from that of calls, which are paced by what they take from training.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from esperd.control.pacing import CallMeter

Chore = Callable[[], None]


class Chores:
    """Does each chore at its own interval, from `start` to `stop`."""

    def __init__(self, meter: CallMeter, log: structlog.stdlib.BoundLogger) -> None:
        self._meter = meter
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, chores: Iterable[tuple[float, Chore]]) -> None:
        """Begin; each chore with its interval in seconds, which passes before its first time."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._every(interval_s, chore)) for interval_s, chore in chores]

    async def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, interval_s: float, chore: Chore) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                self._meter.own_work(chore)
            except Exception:  # noqa: BLE001 - logged whole; the chore is done again at its next time
                self._log.exception("a chore failed")
