"""One wake-up in flight: how the training thread tells the event loop that something is there.

`call_soon_threadsafe` costs a microsecond or two and a system call; a thousand events need one of it, not a thousand.
The flag is cleared by the loop before it looks, so an item added after the look always finds the flag clear (the same
order as trio's entry queue). Both threads may ring, so a lock keeps them from both finding the flag clear.
"""

import asyncio
import threading
from collections.abc import Callable


class Wakeup:
    """Rings the event loop's bell at most once until it is answered."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answer: Callable[[], None] | None = None
        self._is_ringing = False
        self._lock = threading.Lock()
        self.num_rings = 0

    def attach(self, loop: asyncio.AbstractEventLoop, answer: Callable[[], None]) -> None:
        """Loop side: call `answer` on `loop` whenever the bell rings; whatever came before is answered at once."""
        with self._lock:
            self._loop = loop
            self._answer = answer
            self._is_ringing = True
        loop.call_soon(self._wake)

    def detach(self) -> None:
        """Loop side: the loop is about to close; later rings are kept silent."""
        self._loop = None

    def ring(self) -> None:
        """Any thread: make the loop look, unless it is already on its way."""
        if self._is_ringing:
            return  # the common case takes no lock
        with self._lock:
            loop, was_ringing = self._loop, self._is_ringing
            if was_ringing or loop is None:
                return
            self._is_ringing = True
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                # The loop closed without a detach: nobody is left to look.
                self._loop, self._is_ringing = None, False
                return
            self.num_rings += 1

    def _wake(self) -> None:
        self._is_ringing = False
        if self._answer is not None and self._loop is not None:
            self._answer()
