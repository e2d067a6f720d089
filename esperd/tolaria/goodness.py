"""Which kept states of the run are good: those that so many healthy steps have followed, with finite parameters.

Training thread only. The counting is pure, in steps of training; the look at the parameters reads the device once. A
state that an anomaly overtakes before its time is never good: what went wrong may have been in it already.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, order=True)
class StateKey:
    """One kept state of the run, in memory or on disk."""

    timeline: int
    global_step: int


class Goodness:
    """The states that wait to become good."""

    def __init__(self, good_after_steps: int) -> None:
        self._good_after_steps = good_after_steps
        self._waiting: tuple[StateKey, ...] = ()
        self.due_step = -1
        """The step at which the oldest has waited long enough, -1 while none waits; so most steps only compare."""

    def add(self, state: StateKey) -> None:
        """A state was kept at this step; keeping it twice (in memory and on disk) counts once."""
        if state not in self._waiting:
            self._set((*self._waiting, state))

    def healthy(self, step: int) -> tuple[StateKey, ...]:
        """A step with a sound loss is done: the states whose time has come, oldest first.

        They are good if `parameters_are_finite` of what is trained now: a parameter that is not finite never becomes
        finite again by training, so what is finite here was finite then.
        """
        if not 0 <= self.due_step <= step:
            return ()
        due = tuple(state for state in self._waiting if self._is_due(state, step))
        self._set(tuple(state for state in self._waiting if not self._is_due(state, step)))
        return due

    def spoil(self) -> tuple[StateKey, ...]:
        """An anomaly: every state that waited is bad for ever; returns them."""
        spoiled = self._waiting
        self._set(())
        return spoiled

    def went_back(self, fork_step: int) -> None:
        """The run has gone back to this step: what waited from before it goes on waiting, what came after is left."""
        self._set(tuple(state for state in self._waiting if state.global_step <= fork_step))

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"waiting": [[state.timeline, state.global_step] for state in self._waiting]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._set(tuple(StateKey(timeline, step) for timeline, step in state["waiting"]))

    def _is_due(self, state: StateKey, step: int) -> bool:
        return step >= state.global_step + self._good_after_steps

    def _set(self, waiting: tuple[StateKey, ...]) -> None:
        self._waiting = waiting
        first = min((state.global_step for state in waiting), default=None)
        self.due_step = -1 if first is None else first + self._good_after_steps


def parameters_are_finite(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether every element of every parameter is finite; reads each device once.

    By norms, one for each tensor: they are not finite where an element is not. A norm that overflows although every
    element is finite counts as not finite too: such weights are past saving.
    """
    tensors = [parameter.detach() for parameter in parameters if parameter.is_floating_point() and parameter.numel()]
    if not tensors:
        return True
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(tensors, foreach=None)))
