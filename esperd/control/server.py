"""The gRPC server of the daemon: binds its addresses, serves Leyline, and leaves in good order.

Event loop only. It reaches the trainer through the bridge's port alone, so it could live in a process of its own.
"""

from collections.abc import Callable

import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import Settings
from esperd.control.identity import ServerIdentity
from esperd.leyline.verify import Verifier
from esperd.oona.journal import Journal


class ControlServer:
    """Leyline's front: servicers, event pump, pacing and lease in one event loop."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        journal: Journal,
        verifier: Verifier,
        settings: Settings,
        identity: ServerIdentity,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`clock` gives Unix seconds, `monotonic` seconds that never go back; nothing is bound before `start`."""

    async def start(self) -> list[str]:
        """Bind and serve; returns the bound addresses (a port of 0 is replaced by the one that was given).

        Raises:
            EsperdError: ADDRESS_UNUSABLE; nothing stays bound.
        """
        raise RuntimeError("being written")

    async def drain_and_stop(self, grace_s: float) -> None:
        """Refuse new changes, end every stream with a resume token, then stop; at most `grace_s` seconds."""
