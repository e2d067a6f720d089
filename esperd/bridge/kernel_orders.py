"""The way down for kernels: what is to be opened, for the loader thread, and what is to be closed, for the trainer.

Filled by the event loop. Orders to open wake the loader thread and nobody else, so that training does not notice them;
orders to close wait for the next safe point, since only the training thread knows what is in use. So does what the
loader has opened.
"""

import itertools
import queue
from collections import deque
from collections.abc import Callable

from esperd.leyline.kernels import KernelOrder


class KernelOrders:
    """Unbounded: the event loop has one order out for each kernel at most. `wake` ends the wait of a paused trainer."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._to_open: queue.SimpleQueue[KernelOrder | None] = queue.SimpleQueue()
        self._to_close: deque[str] = deque()
        self.has_mail = False
        """Whether something is to be closed, or was opened; read at every step, so no more than a flag."""

    # Event loop side

    def open(self, order: KernelOrder) -> None:
        """Ask for a kernel to be opened."""
        self._to_open.put(order)

    def close(self, artifact_id: str) -> None:
        """Ask for one to be closed."""
        self._to_close.append(artifact_id)
        self.tell()

    # Loader thread

    def next_to_open(self) -> KernelOrder | None:
        """Wait for the next order; None once the trainer leaves."""
        return self._to_open.get()

    def tell(self) -> None:
        """Have the training thread look at what was opened."""
        self.has_mail = True
        self._wake()

    # Training side

    def take_to_close(self) -> set[str]:
        """What is to be closed, since the last call; look at what was opened afterwards, or its news are lost."""
        self.has_mail = False
        waiting = self._to_close
        return {waiting.popleft() for _ in itertools.repeat(None, len(waiting))}

    def end(self) -> None:
        """Let the loader thread go once it has opened what is asked for already."""
        self._to_open.put(None)
