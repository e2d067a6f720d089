"""Waiting for work that another thread does.

Event loop only.
"""

import asyncio
from typing import TypeVar

from esperd.leyline.errors import EsperdError

FoundT = TypeVar("FoundT")


async def result_of(future: "asyncio.Future[FoundT]") -> FoundT:
    """What the work found; it goes on when its caller leaves.

    Raises:
        EsperdError: DRAINING when the work was cancelled before it began, because its thread is closed.
        Exception: whatever the work raises.
    """
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if future.cancelled():  # it is not the caller who has left
            raise EsperdError("DRAINING") from None
        raise
