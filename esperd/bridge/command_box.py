"""The way down: a bounded box of commands, filled by the event loop and emptied by the training thread.

Two lanes: the normal lane is bounded and refuses at once when full; the emergency lane overtakes it. A place is
reserved before the journal write and filled after it, so that an accepted command always fits. The deques rely on the
interpreter's atomic append and popleft; counters are written by one side only. One lock, which the training thread
takes only when it closes the box, keeps a command from slipping in between its last look and the closing.
"""

import threading
from collections import deque

from esperd.leyline.commands import Command
from esperd.leyline.errors import EsperdError


class CommandBox:
    """Bounded mailbox from the event loop to the training thread."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lane: deque[Command] = deque()
        self._emergency_lane: deque[Command] = deque()
        self._num_reserved = 0
        self._closed_by: EsperdError | None = None
        self._closing = threading.Lock()
        self._mail = threading.Event()
        self.num_deferred = 0
        """Commands taken out but not yet due; written by the training side, counted against the capacity."""

    # Event loop side

    def reserve(self, num_places: int = 1) -> None:
        """Keep places for commands about to be journalled.

        Raises EsperdError COMMAND_BOX_FULL when there is no room, or why the box is closed.
        """
        self._check_open()
        if self._num_reserved + len(self._lane) + self.num_deferred + num_places > self.capacity:
            raise EsperdError("COMMAND_BOX_FULL", capacity=self.capacity)
        self._num_reserved += num_places

    def give_back(self, num_places: int = 1) -> None:
        """Free reserved places whose commands will not come."""
        self._num_reserved -= num_places

    def put(self, command: Command) -> None:
        """Fill one reserved place. Raises EsperdError if the box closed meanwhile."""
        self._num_reserved -= 1
        self._append(self._lane, command)

    def put_urgent(self, command: Command) -> None:
        """Put a command on the emergency lane; it needs no place and overtakes every other."""
        self._append(self._emergency_lane, command)

    @property
    def num_waiting(self) -> int:
        """Commands that the training thread has not taken, or that are not due yet."""
        return len(self._lane) + len(self._emergency_lane) + self.num_deferred

    # Training side

    @property
    def has_mail(self) -> bool:
        """Whether a safe point has anything to do; costs two length checks."""
        return bool(self._lane) or bool(self._emergency_lane)

    def take(self) -> list[Command]:
        """Empty both lanes, the emergency lane first, each in order of arrival."""
        self._mail.clear()
        taken: list[Command] = []
        for lane in (self._emergency_lane, self._lane):
            while lane:
                taken.append(lane.popleft())
        return taken

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a command arrives or the time is over; only for a paused or finished trainer."""
        return self._mail.wait(timeout_s)

    def wake(self) -> None:
        """End a wait, for instance to make a paused trainer look at the shutdown flag."""
        self._mail.set()

    def close(self, error: EsperdError) -> list[Command]:
        """Refuse commands from now on with this error and return those that were still waiting."""
        with self._closing:
            self._closed_by = error
        return self.take()

    def _append(self, lane: deque[Command], command: Command) -> None:
        with self._closing:
            self._check_open()
            lane.append(command)
        if not self._mail.is_set():  # `take` clears it before it looks, so a set one will still be answered
            self._mail.set()

    def _check_open(self) -> None:
        if self._closed_by is not None:
            raise EsperdError(self._closed_by.reason, **self._closed_by.metadata)
