"""The kernel library's blocking methods, called from the event loop: one thread of its own, one call after the other.

Event loop only, but for what runs in that thread. What a call has changed is told on the loop before its caller goes
on; that a store cannot be used is noted as a condition of the daemon.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from esperd.control.thread_work import result_of
from esperd.leyline.errors import EsperdError
from esperd.urza.library import Library
from esperd.urza.stored import KernelChange

FoundT = TypeVar("FoundT")

CLOSE_S = 5.0
"""For the call that is under way at a drain: a store behind a network may take its time."""


class LibraryThread:
    """The way to the library."""

    def __init__(
        self,
        library: Library | None,
        on_change: Callable[[KernelChange], None],
        set_good: Callable[[bool], None],
    ) -> None:
        """Without a `library` kernels are switched off. `set_good` hears whether the store can be used."""
        self._library = library
        self._on_change = on_change
        self._set_good = set_good
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel library")
        self._under_way: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether there is a library."""
        return self._library is not None

    @property
    def library(self) -> Library:
        """The library, for what it knows without looking at a file. Raises EsperdError KERNELS_DISABLED."""
        if self._library is None:
            raise EsperdError("KERNELS_DISABLED")
        return self._library

    async def do(self, work: Callable[[Library], FoundT]) -> FoundT:
        """Have work done with the library; it goes on when its caller leaves.

        Raises:
            EsperdError: what the work raises; KERNELS_DISABLED without a library, DRAINING once closed.
        """
        library = self.library
        if self._is_closed:
            raise EsperdError("DRAINING")
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, library)
        self._under_way.add(future)
        future.add_done_callback(self._done)
        return await result_of(future)

    async def close(self) -> None:
        """Take no more work; what waits is refused, what is under way has a little time to end."""
        self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=CLOSE_S)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._under_way.discard(future)
        if not future.cancelled():
            fault = future.exception()
            if not isinstance(fault, EsperdError):
                self._set_good(fault is None)
            elif fault.reason == "KERNEL_STORE_UNAVAILABLE":
                self._set_good(False)
        for change in self.library.take_changes():
            self._on_change(change)
