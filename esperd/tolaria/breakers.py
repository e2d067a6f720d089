"""Circuit breakers as values: closed, open after failures, half-open after a while, closed again after calm.

Pure functions over frozen values; time is counted in training steps, so that a breaker heals only while training shows
that it may. Half-open is a probe: what the breaker guards is let through again, and one failure opens it. Any thread,
no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from esperd.leyline.views import BreakerView
from esperd.leyline.vocabulary import BreakerState


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens and how it heals."""

    failures_to_open: int = 3
    """Failures within `memory_steps` that open it."""
    memory_steps: int = 1000
    open_steps: int = 200
    """Steps after which an open breaker tries again (half-open)."""
    calm_steps: int = 200
    """Steps without failure in half-open that close it."""
    heals_by_success: bool = False
    """Only a success heals it, and forgets its failures: `probing` makes an open one half-open, `succeeded` closes
    it. For what is tried too seldom to count in steps."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """One circuit breaker."""

    name: str
    rule: BreakerRule = BreakerRule()
    state: BreakerState = BreakerState.CLOSED
    changed_step: int = 0
    failure_steps: tuple[int, ...] = ()
    detail: str = ""
    is_forced: bool = False
    """An operator set the state: it does not change by itself until an operator sets it again."""

    def view(self) -> BreakerView:
        """The breaker as seen from outside."""
        return BreakerView(self.name, self.state, len(self.failure_steps), self.detail)


def failed(breaker: Breaker, step: int, detail: str) -> Breaker:
    """The breaker after a failure: a half-open one opens at once, a closed one when it has seen enough."""
    rule = breaker.rule
    recent = tuple(s for s in breaker.failure_steps if rule.heals_by_success or s > step - rule.memory_steps)
    breaker = replace(breaker, failure_steps=(*recent, step)[-rule.failures_to_open :], detail=detail)
    if breaker.is_forced:
        return breaker
    if breaker.state is BreakerState.HALF_OPEN:
        return _to(breaker, BreakerState.OPEN, step)
    if breaker.state is BreakerState.CLOSED and len(breaker.failure_steps) >= rule.failures_to_open:
        return _to(breaker, BreakerState.OPEN, step)
    return breaker


def ticked(breaker: Breaker, step: int) -> Breaker:
    """The breaker at a later step: open turns half-open, half-open and calm turns closed."""
    if breaker.is_forced or breaker.rule.heals_by_success:
        return breaker
    age = step - breaker.changed_step
    if breaker.state is BreakerState.OPEN and age >= breaker.rule.open_steps:
        return _to(breaker, BreakerState.HALF_OPEN, step)
    if breaker.state is BreakerState.HALF_OPEN and age >= breaker.rule.calm_steps:
        return replace(_to(breaker, BreakerState.CLOSED, step), failure_steps=(), detail="")
    return breaker


def probing(breaker: Breaker, step: int) -> Breaker:
    """The breaker when the next try is let through: open turns half-open, unless an operator holds it open."""
    if breaker.is_forced or breaker.state is not BreakerState.OPEN:
        return breaker
    return _to(breaker, BreakerState.HALF_OPEN, step)


def succeeded(breaker: Breaker, step: int) -> Breaker:
    """The breaker after a try that went well: closed, with its failures forgotten."""
    if breaker.is_forced or (breaker.state is BreakerState.CLOSED and not breaker.failure_steps):
        return breaker
    moved = breaker if breaker.state is BreakerState.CLOSED else _to(breaker, BreakerState.CLOSED, step)
    return replace(moved, failure_steps=(), detail="")


def went_back(breaker: Breaker, step: int) -> Breaker:
    """The breaker after a rollback to an earlier step: nothing is forgotten, and no date lies in the future."""
    failures = tuple(min(failure_step, step) for failure_step in breaker.failure_steps)
    return replace(breaker, changed_step=min(breaker.changed_step, step), failure_steps=failures)


def is_healing(breaker: Breaker) -> bool:
    """Whether steps alone will change it."""
    return not breaker.is_forced and not breaker.rule.heals_by_success and breaker.state is not BreakerState.CLOSED


def to_plain(breaker: Breaker) -> dict[str, Any]:
    """What is not its rule, as plain values."""
    return {
        "state": int(breaker.state),
        "changed_step": breaker.changed_step,
        "failure_steps": list(breaker.failure_steps),
        "detail": breaker.detail,
        "is_forced": breaker.is_forced,
    }


def from_plain(breaker: Breaker, plain: Mapping[str, Any]) -> Breaker:
    """The breaker of this name and rule in the state that `to_plain` was given."""
    return replace(
        breaker,
        state=BreakerState(plain["state"]),
        changed_step=plain["changed_step"],
        failure_steps=tuple(plain["failure_steps"]),
        detail=plain["detail"],
        is_forced=plain["is_forced"],
    )


def forced(breaker: Breaker, state: BreakerState, step: int, detail: str) -> Breaker:
    """The breaker after an operator set it: open stays open; closed and half-open go on by the rule."""
    failures = () if state is BreakerState.CLOSED else breaker.failure_steps
    moved = _to(breaker, state, step)
    return replace(moved, failure_steps=failures, detail=detail, is_forced=state is BreakerState.OPEN)


def _to(breaker: Breaker, state: BreakerState, step: int) -> Breaker:
    return replace(breaker, state=state, changed_step=step)
