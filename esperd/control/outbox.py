"""What waits to be written to one policy: bounded, so that a policy that reads nothing costs nothing.

Event loop only, one reader. Of state packets only the newest waits; receipts and outcomes are few, and too many of them
end the session.
"""

import asyncio
from collections import deque

from esperd.leyline.errors import EsperdError

MAX_MESSAGES = 1024


class Outbox:
    """Messages on their way to one policy, serialised."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._request: bytes | None = None
        self._end: BaseException | None = None
        self._has_ended = False
        self._wake: asyncio.Future[None] | None = None

    def put(self, message: bytes) -> None:
        """Add a message that must arrive."""
        if len(self._messages) >= MAX_MESSAGES:
            self.end(EsperdError("SLOW_CONSUMER", revision=0))
            return
        self._messages.append(message)
        self._wake_reader()

    def put_request(self, request: bytes) -> None:
        """Add a request for a decision; it takes the place of one that was not written yet."""
        self._request = request
        self._wake_reader()

    def end(self, error: BaseException | None = None) -> None:
        """Let the reader end, after what waits, or with an error at once."""
        self._has_ended = True
        self._end = self._end or error
        self._wake_reader()

    async def take(self) -> bytes | None:
        """The next message, or None at the end. Raises what the session was ended with."""
        while True:
            if self._end is not None:
                raise self._end
            if self._messages:
                return self._messages.popleft()
            if self._request is not None:
                request, self._request = self._request, None
                return request
            if self._has_ended:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
