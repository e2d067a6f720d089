"""The watchdog: notes when the event loop lags, when the trainer shows no life, and when the run has ended.

Main thread. Decides nothing but what to log; the rules are a pure class, fed with times.
"""

import asyncio
import time
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from esperd.bridge.bridge import Bridge
from esperd.leyline.vocabulary import TrainerPhase

TICK_S = 0.1
LAG_S = 1.0
"""A loop this late answers calls late as well: worth a line."""
SILENCE_S = 60.0
"""A step, a validation and the loading of a task each show life when they end; longer silence is worth a line."""

ENDED = frozenset({TrainerPhase.FINISHED, TrainerPhase.FAILED})


@dataclass(slots=True)
class Vigil:
    """What the watchdog has seen so far; returns the lines to log."""

    last_tick_s: float
    is_silent: bool = False

    def tick(self, now_s: float, heartbeat_s: float, *, is_trainer_due: bool) -> list[tuple[str, dict[str, float]]]:
        """One look at the clocks. `is_trainer_due`: the trainer runs and should be showing life."""
        lines: list[tuple[str, dict[str, float]]] = []
        lag_s = now_s - self.last_tick_s - TICK_S
        self.last_tick_s = now_s
        if lag_s > LAG_S:
            lines.append(("the event loop was late", {"lag_s": round(lag_s, 3)}))
        silence_s = now_s - heartbeat_s
        is_silent = is_trainer_due and silence_s > SILENCE_S
        if is_silent and not self.is_silent:
            lines.append(("the trainer shows no life", {"silence_s": round(silence_s, 1)}))
        if self.is_silent and not is_silent:
            lines.append(("the trainer shows life again", {}))
        self.is_silent = is_silent
        return lines


async def watch(bridge: Bridge, log: BoundLogger) -> None:
    """Watch until cancelled."""
    vigil = Vigil(time.monotonic())
    while True:
        await asyncio.sleep(TICK_S)
        is_due = bridge.snapshot().run.phase not in ENDED
        for message, facts in vigil.tick(time.monotonic(), bridge.heartbeat_monotonic_s, is_trainer_due=is_due):
            log.warning(message, **facts)


async def until_ended(bridge: Bridge) -> None:
    """Return once the run has finished or failed."""
    while bridge.snapshot().run.phase not in ENDED:
        await asyncio.sleep(TICK_S)
