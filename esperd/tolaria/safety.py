"""The run's emergency level and circuit breakers, kept and carried out.

Training thread only. The rules are pure (`emergency.py`, `breakers.py`); here they meet the executor, which is held
while the run is conservative, and the journal, which hears of every change.
"""

from collections.abc import Callable
from typing import Protocol

from esperd.config.settings import BudgetSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import EmergencyView, NoticeEvent
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel
from esperd.tolaria import breakers, emergency
from esperd.tolaria.breakers import Breaker
from esperd.tolaria.emergency import BreakerChanged, EmergencyEvent, EmergencyState

BREAKER_NAMES = ("isolation", "executor")
"""`isolation` counts violations of the host's isolation, `executor` unexpected faults in carrying out commands."""

_NOTICE_LEVELS = {
    EmergencyLevel.NOTICE: "info",
    EmergencyLevel.ELEVATED: "warning",
    EmergencyLevel.CONSERVATIVE: "error",
    EmergencyLevel.HALT: "critical",
}


class Holdable(Protocol):
    """What can be held back while the run is conservative: the seed executor."""

    def hold(self, cause: str) -> None:
        """No new seeds from now on."""
        ...

    def release(self) -> None:
        """Go on as usual."""
        ...


class Safety:
    """Emergencies and breakers of one run."""

    def __init__(
        self,
        budgets: BudgetSettings,
        executor: Holdable,
        report: Callable[[NoticeEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._budgets = budgets
        self._executor = executor
        self._report = report
        self._clock = clock
        self.state = EmergencyState()
        self.level = EmergencyLevel.UNSPECIFIED
        """The highest level raised now; read at every step."""
        self.breakers = {name: Breaker(name) for name in BREAKER_NAMES}
        self.breaker_views = tuple(breaker.view() for breaker in self.breakers.values())
        """The breakers as seen from outside; kept, since most snapshots show the same."""

    @property
    def is_halted(self) -> bool:
        """Whether training must stand still."""
        return self.level is EmergencyLevel.HALT

    def halting(self) -> list[str]:
        """The ids of the emergencies that halt the run."""
        return [key for key, view in self.state.emergencies.items() if view.level is EmergencyLevel.HALT]

    def handle(self, event: EmergencyEvent, step: int) -> bool:
        """Take in one event; True when an emergency was raised, changed or cleared."""
        before = self.state
        self.state = emergency.advance(before, event, self._budgets, step, self._clock())
        if self.state.emergencies == before.emergencies:
            return False
        self.level = self.state.level
        self._tell(before, step)
        self._hold_or_release(before)
        return True

    def clear(self, emergency_id: str, step: int) -> None:
        """Clear an emergency by hand. Raises EsperdError EMERGENCY_UNKNOWN."""
        if emergency_id not in self.state.emergencies:
            raise EsperdError("EMERGENCY_UNKNOWN", emergency_id=emergency_id)
        self.handle(emergency.Cleared(emergency_id), step)

    def note_failure(self, name: str, step: int, detail: str) -> bool:
        """Count a failure against a breaker; True when its state changed."""
        return self._replace(breakers.failed(self.breakers[name], step, detail), step)

    def tick(self, step: int) -> bool:
        """Let breakers heal; True when one changed."""
        if all(view.state is BreakerState.CLOSED for view in self.breaker_views):
            return False
        changes = [self._replace(breakers.ticked(breaker, step), step) for breaker in list(self.breakers.values())]
        return any(changes)

    def set_breaker(self, name: str, state: BreakerState, step: int, principal: str) -> None:
        """Set a breaker by hand. Raises EsperdError BREAKER_UNKNOWN or COMMAND_INVALID."""
        if name not in self.breakers:
            raise EsperdError("BREAKER_UNKNOWN", name=name)
        if state is BreakerState.UNKNOWN:
            raise EsperdError("COMMAND_INVALID", detail="desired_state must be CLOSED, OPEN or HALF_OPEN")
        self._replace(breakers.forced(self.breakers[name], state, step, f"set by {principal}"), step)

    def _replace(self, breaker: Breaker, step: int) -> bool:
        before = self.breakers[breaker.name]
        if breaker is before:
            return False
        self.breakers[breaker.name] = breaker
        self.breaker_views = tuple(one.view() for one in self.breakers.values())
        if breaker.state is before.state:
            return False
        self.handle(BreakerChanged(breaker.name, breaker.state, breaker.detail), step)
        return True

    def _hold_or_release(self, before: EmergencyState) -> None:
        is_held = before.level >= EmergencyLevel.CONSERVATIVE
        must_hold = self.state.level >= EmergencyLevel.CONSERVATIVE
        if must_hold:
            self._executor.hold(self.state.cause)
        elif is_held:
            self._executor.release()

    def _tell(self, before: EmergencyState, step: int) -> None:
        for key, view in self.state.emergencies.items():
            if before.emergencies.get(key) != view:
                self._report(self._notice("emergency.raised", f"{view.level.name}: {view.reason}", view, step))
        for key, view in before.emergencies.items():
            if key not in self.state.emergencies:
                self._report(self._notice("emergency.cleared", f"{key} is over", view, step))

    def _notice(self, kind: str, message: str, view: EmergencyView, step: int) -> NoticeEvent:
        level = "info" if kind == "emergency.cleared" else _NOTICE_LEVELS[view.level]
        attributes = {"emergency_id": view.emergency_id, "level": view.level.name, "origin": view.origin}
        return NoticeEvent(kind, message, level, step, 0, self._clock(), attributes)
