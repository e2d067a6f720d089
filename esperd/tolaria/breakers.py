"""Circuit breakers as values: closed, open after failures, half-open after a while, closed again after calm.

Pure functions over frozen values; time is counted in training steps, so that a breaker heals only while training shows
that it may. Any thread, no I/O.
"""

from dataclasses import dataclass, replace

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
    recent = tuple(s for s in breaker.failure_steps if s > step - breaker.rule.memory_steps)
    breaker = replace(breaker, failure_steps=(*recent, step)[-breaker.rule.failures_to_open :], detail=detail)
    if breaker.is_forced:
        return breaker
    if breaker.state is BreakerState.HALF_OPEN:
        return _to(breaker, BreakerState.OPEN, step)
    if breaker.state is BreakerState.CLOSED and len(breaker.failure_steps) >= breaker.rule.failures_to_open:
        return _to(breaker, BreakerState.OPEN, step)
    return breaker


def ticked(breaker: Breaker, step: int) -> Breaker:
    """The breaker at a later step: open turns half-open, half-open and calm turns closed."""
    if breaker.is_forced:
        return breaker
    age = step - breaker.changed_step
    if breaker.state is BreakerState.OPEN and age >= breaker.rule.open_steps:
        return _to(breaker, BreakerState.HALF_OPEN, step)
    if breaker.state is BreakerState.HALF_OPEN and age >= breaker.rule.calm_steps:
        return replace(_to(breaker, BreakerState.CLOSED, step), failure_steps=(), detail="")
    return breaker


def forced(breaker: Breaker, state: BreakerState, step: int, detail: str) -> Breaker:
    """The breaker after an operator set it: open stays open; closed and half-open go on by the rule."""
    failures = () if state is BreakerState.CLOSED else breaker.failure_steps
    moved = _to(breaker, state, step)
    return replace(moved, failure_steps=failures, detail=detail, is_forced=state is BreakerState.OPEN)


def _to(breaker: Breaker, state: BreakerState, step: int) -> Breaker:
    return replace(breaker, state=state, changed_step=step)
