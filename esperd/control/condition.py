"""How the daemon is: its state and its conditions, for health checks and for those who watch them.

Event loop only. Readers get the newest value and wait for the next one; values in between may be passed over.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Condition:
    """One state of the daemon."""

    is_serving: bool = False
    """False before it serves, and from the moment it drains."""
    is_draining: bool = False
    parts: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """`trainer`, `journal`, `keys`: True is good."""


class ConditionBoard:
    """The newest condition, and who waits for the next."""

    def __init__(self) -> None:
        self.now = Condition()
        self._waiting: list[asyncio.Future[None]] = []
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether no change follows: watchers leave."""
        return self._has_ended

    def set_part(self, name: str, is_good: bool) -> None:
        """Note how one part is."""
        if self.now.parts.get(name) is not is_good:
            self._replace(replace(self.now, parts=MappingProxyType({**self.now.parts, name: is_good})))

    def serve(self) -> None:
        """The daemon answers from now on."""
        self._replace(replace(self.now, is_serving=True))

    def drain(self) -> None:
        """The daemon is about to leave."""
        self._has_ended = True
        self._replace(replace(self.now, is_serving=False, is_draining=True))

    async def changed(self, seen: Condition) -> Condition:
        """The newest condition, once it is another than the one that was seen."""
        while self.now == seen and not self._has_ended:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        return self.now

    def _replace(self, condition: Condition) -> None:
        self.now = condition
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()
