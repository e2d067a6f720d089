"""Keeps a policy at work: opens a session, opens another when it is lost, and leaves when the run is over.

Policy process; owns the event loop and the signals. Losing the daemon costs the policy its memory of the packets it
missed, nothing else: the state packet of the next session says where the run stands.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from esper.address import Target
from esper.at_work import Patience, until_asked_to_leave
from esper.client.aio import AsyncClient
from esper.client.attempts import backoff_s
from esper.client.errors import LeylineError
from esper.tamiyo.agent import Agent
from esper.tamiyo.session import End, Greet, Tell, attend

PASSING = frozenset(
    {"LEASE_TAKEN", "LEASE_LOST", "DRAINING", "TRAINER_NOT_RUNNING", "JOURNAL_UNAVAILABLE", "SLOW_CONSUMER"}
)
"""Refusals that another try may not meet again."""

_log = structlog.get_logger("esper.tamiyo")


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How a policy holds on to its daemon."""

    advise: bool = False
    packet_every_steps: int = 25
    """Steps between packets besides each epoch's end; 0 leaves it to the daemon."""
    connect_s: float = 10.0
    """How long the first session may take to open."""
    reconnect_s: float = 300.0
    """How long a lost session may take to open again."""


class Runner:
    """Sessions, one after the other."""

    def __init__(
        self,
        target: Target,
        agent: Agent,
        settings: RunnerSettings,
        *,
        greet: Greet,
        tell: Tell,
        monotonic: Callable[[], float],
    ) -> None:
        self._target = target
        self._agent = agent
        self._settings = settings
        self._greet = greet
        self._tell = tell
        self._patience = Patience(settings.connect_s, settings.reconnect_s, PASSING, monotonic=monotonic, log=_log)

    async def run(self) -> None:
        """Work until the run is over or a signal asks to leave.

        Raises:
            LeylineError: the daemon refused for good, or did not come back in time.
        """
        try:
            await until_asked_to_leave(self._work(), _log)
        finally:
            self._agent.close()

    async def _work(self) -> None:
        while True:
            try:
                target = self._target
                async with AsyncClient(target.address, target.credentials, tls=target.tls) as client:
                    end = await attend(
                        client,
                        self._agent,
                        advise=self._settings.advise,
                        packet_every_steps=self._settings.packet_every_steps,
                        opened=self._opened,
                        tell=self._tell,
                    )
                if end is End.FINISHED:
                    _log.info("the run is over")
                    return
                _log.info("the daemon drains, coming back")
                await asyncio.sleep(backoff_s(1))
            except LeylineError as error:
                await self._patience.wait(error)

    def _opened(self, run_id: str) -> None:
        self._patience.opened()
        self._greet(run_id)
