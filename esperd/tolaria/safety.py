"""The run's emergency level and circuit breakers, kept and carried out.

Training thread only. The rules are pure (`emergency.py`, `breakers.py`); here they meet the executor, which is held
while the run is conservative, and the journal, which hears of every change.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from esperd.config.settings import BudgetSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import EmergencyView, NoticeEvent
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel
from esperd.tolaria import breakers, emergency
from esperd.tolaria.breakers import Breaker, BreakerRule
from esperd.tolaria.emergency import (
    BreakerChanged,
    CheckpointWritten,
    EmergencyEvent,
    EmergencyState,
    ExecutorFailed,
    PolicyChanged,
    wants_emergency_checkpoint,
)

BREAKER_RULES = {
    "isolation": BreakerRule(),
    "executor": BreakerRule(),
    "policy": BreakerRule(),
    "checkpoint": BreakerRule(heals_by_success=True),
    "kernel": BreakerRule(),
}
"""`isolation` counts violations of the host's isolation, `executor` unexpected faults in carrying out commands and
steps that did not fit into memory, `policy` leases lost by decisions that did not come or could not be used,
`checkpoint` checkpoints in a row that could not be written, `kernel` kernels that could not be opened, took too long to
be fetched, or failed while a seed computed by them."""

TICK_STEPS = 10
"""Breakers heal at multiples of this step, whatever is logged when, so that the same run heals at the same steps."""

_NEVER = sys.maxsize

_NOTICE_LEVELS = {
    EmergencyLevel.NOTICE: "info",
    EmergencyLevel.ELEVATED: "warning",
    EmergencyLevel.CONSERVATIVE: "error",
    EmergencyLevel.HALT: "critical",
}


class Holdable(Protocol):
    """What can be held back while the run is conservative: the seed executor."""

    def hold(self, cause: str, *, candidates: bool) -> None:
        """No new seeds from now on, and with `candidates` nothing new in those that are there."""
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
        self.breakers = {name: Breaker(name, rule) for name, rule in BREAKER_RULES.items()}
        self.breaker_views = tuple(breaker.view() for breaker in self.breakers.values())
        """The breakers as seen from outside; kept, since most snapshots show the same."""
        self.tick_due_step = _NEVER
        """The first step at which `tick` may do anything; most steps compare with it and go on."""
        self._wants_checkpoint = False

    @property
    def is_halted(self) -> bool:
        """Whether training must stand still."""
        return self.level is EmergencyLevel.HALT

    def halting(self) -> list[str]:
        """The ids of the emergencies that halt the run."""
        return [key for key, view in self.state.emergencies.items() if view.level is EmergencyLevel.HALT]

    def handle(self, event: EmergencyEvent, step: int) -> bool:
        """Take in one event; True when an emergency was raised, changed or cleared."""
        changed = self._advance(event, step)
        match event:
            case PolicyChanged(False, detail, num_missed) if num_missed > 0:
                changed = self.note_failure("policy", step, detail) or changed
            case ExecutorFailed(detail):
                changed = self.note_failure("executor", step, detail) or changed
            case CheckpointWritten(True):
                changed = self._replace(breakers.succeeded(self.breakers["checkpoint"], step), step) or changed
            case CheckpointWritten(False, detail):
                changed = self.note_failure("checkpoint", step, detail) or changed
        return changed

    def clear(self, emergency_id: str, step: int) -> None:
        """Clear an emergency by hand. Raises EsperdError EMERGENCY_UNKNOWN."""
        if emergency_id not in self.state.emergencies:
            raise EsperdError("EMERGENCY_UNKNOWN", emergency_id=emergency_id)
        self.handle(emergency.Cleared(emergency_id), step)

    def note_failure(self, name: str, step: int, detail: str) -> bool:
        """Count a failure against a breaker; True when its state changed."""
        return self._replace(breakers.failed(self.breakers[name], step, detail), step)

    def tick(self, step: int) -> bool:
        """Let breakers heal, at multiples of TICK_STEPS; True when one changed."""
        if step < self.tick_due_step:
            return False
        changes = [self._replace(breakers.ticked(breaker, step), step) for breaker in list(self.breakers.values())]
        self._set_tick_date(step)
        return any(changes)

    def set_breaker(self, name: str, state: BreakerState, step: int, principal: str) -> None:
        """Set a breaker by hand. Raises EsperdError BREAKER_UNKNOWN or COMMAND_INVALID."""
        if name not in self.breakers:
            raise EsperdError("BREAKER_UNKNOWN", name=name)
        if state is BreakerState.UNKNOWN:
            raise EsperdError("COMMAND_INVALID", detail="desired_state must be CLOSED, OPEN or HALF_OPEN")
        self._replace(breakers.forced(self.breakers[name], state, step, f"set by {principal}"), step)

    # Checkpoints

    def admits_checkpoint(self, step: int) -> bool:
        """Whether a scheduled checkpoint may be written: an open breaker lets it through as its probe, half-open
        until `CheckpointWritten` tells how it went; one that an operator holds open lets none through.
        """
        breaker = self.breakers["checkpoint"]
        self._replace(breakers.probing(breaker, step), step)
        return self.breakers["checkpoint"].state is not BreakerState.OPEN

    def take_checkpoint_wish(self) -> bool:
        """Whether the level has risen to CONSERVATIVE or HALT since the last call, so that the state must be saved.

        Not when it has risen because checkpoints cannot be written.
        """
        wish, self._wants_checkpoint = self._wants_checkpoint, False
        return wish

    # Resume and rollback

    def went_back(self, step: int) -> None:
        """The run has gone back to an earlier step: no emergency is forgotten, no date lies in the future, and the
        executor, which was restored as it was then, is held or released as it must be now.
        """
        self.breakers = {name: breakers.went_back(breaker, step) for name, breaker in self.breakers.items()}
        self._set_tick_date(step)
        self._hold_or_release()

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "emergencies": emergency.to_plain(self.state),
            "breakers": {name: breakers.to_plain(breaker) for name, breaker in self.breakers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Go on exactly where `state` was taken, at `step`; the executor must be restored before.

        That the state could be read shows that it was written: what speaks against writing checkpoints is forgotten.
        """
        self.state = emergency.from_plain(state["emergencies"])
        self.breakers = {
            name: breakers.from_plain(breaker, state["breakers"][name]) for name, breaker in self.breakers.items()
        }
        self.breakers["checkpoint"] = breakers.succeeded(self.breakers["checkpoint"], step)
        if not self.breakers["checkpoint"].is_forced:
            self.state = emergency.without_checkpoint_trouble(self.state)
        self.level = self.state.level
        self.breaker_views = tuple(one.view() for one in self.breakers.values())
        self._set_tick_date(step)
        self._hold_or_release()

    # Inside

    def _advance(self, event: EmergencyEvent, step: int) -> bool:
        before = self.state
        self.state = emergency.advance(before, event, self._budgets, step, self._clock())
        if self.state.emergencies == before.emergencies:
            return False
        self.level = self.state.level
        self._wants_checkpoint |= wants_emergency_checkpoint(before.training_level, self.state.training_level)
        self._tell(before, step)
        self._hold_or_release()
        return True

    def _replace(self, breaker: Breaker, step: int) -> bool:
        before = self.breakers[breaker.name]
        if breaker is before:
            return False
        self.breakers[breaker.name] = breaker
        self.breaker_views = tuple(one.view() for one in self.breakers.values())
        if breaker.state is before.state:
            return False
        self._set_tick_date(step)
        self._advance(BreakerChanged(breaker.name, breaker.state, breaker.detail), step)
        return True

    def _set_tick_date(self, step: int) -> None:
        healing = any(breakers.is_healing(breaker) for breaker in self.breakers.values())
        self.tick_due_step = step - step % TICK_STEPS + TICK_STEPS if healing else _NEVER

    def _hold_or_release(self) -> None:
        if self.level >= EmergencyLevel.CONSERVATIVE:
            candidates = self.state.training_level >= EmergencyLevel.CONSERVATIVE
            self._executor.hold(self.state.cause, candidates=candidates)
        else:
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
