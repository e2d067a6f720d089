"""Keeping a learning-rate schedule true while groups join its optimizer and while its level is changed by hand.

Training thread only. Torch's schedulers copy the optimizer's groups into lists of their own when they are made, and
break or silently undo changes made later (pytorch issues 20997, 53712); everything that has to be kept in step is here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from esperd.tolaria.task import Scheduler

_RATE_LISTS = ("base_lrs", "max_lrs", "min_lrs", "_last_lr")
"""Per-group lists of learning rates that torch's schedulers keep."""

_OTHER_LISTS = ("lr_lambdas", "base_momentums", "max_momentums")

_GROUP_RATES = ("initial_lr", "max_lr", "min_lr")
"""Learning rates that schedulers keep inside a parameter group."""

_GROUP_MOMENTA = ("max_momentum", "base_momentum")


def chain(scheduler: Scheduler | None) -> Iterator[Any]:
    """The scheduler and those inside it (SequentialLR, ChainedScheduler)."""
    if scheduler is None:
        return
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from chain(inner)


def add_group(
    optimizer: torch.optim.Optimizer, scheduler: Scheduler | None, group: dict[str, Any], ratio: float
) -> None:
    """Add `group` to the optimizer and to every list of the scheduler; it follows group 0 at `ratio` times its rate."""
    leader = optimizer.param_groups[0]
    group |= {"lr": leader["lr"] * ratio}
    group |= {key: leader[key] * ratio for key in _GROUP_RATES if key in leader}
    group |= {key: leader[key] for key in _GROUP_MOMENTA if key in leader}
    num_groups = len(optimizer.param_groups)
    if "param_names" in leader:  # torch wants them in all groups or in none
        group["param_names"] = []
        members, group["params"] = group["params"], []
        extend_group(group, members)
    optimizer.add_param_group(group)
    for part in chain(scheduler):
        for name in (*_RATE_LISTS, *_OTHER_LISTS):
            values = getattr(part, name, None)
            if isinstance(values, list) and len(values) == num_groups:
                values.append(values[0] * ratio if name in _RATE_LISTS else values[0])


def extend_group(group: dict[str, Any], parameters: Sequence[torch.nn.Parameter]) -> None:
    """Let parameters join a group, with names where the others have some."""
    num_before = len(group["params"])
    group["params"].extend(parameters)
    if "param_names" in group:
        group["param_names"].extend(f"grown.{place}" for place in range(num_before, len(group["params"])))


def cut_groups(optimizer: torch.optim.Optimizer, scheduler: Scheduler | None, num_kept: int) -> None:
    """Take all groups after the first `num_kept` out of the optimizer and of every list of the scheduler."""
    num_groups = len(optimizer.param_groups)
    del optimizer.param_groups[num_kept:]
    for part in chain(scheduler):
        for name in (*_RATE_LISTS, *_OTHER_LISTS):
            values = getattr(part, name, None)
            if isinstance(values, list) and len(values) == num_groups:
                del values[num_kept:]


def scale_rates(optimizer: torch.optim.Optimizer, scheduler: Scheduler | None, factor: float) -> None:
    """Multiply every group's learning rate and everything that the schedule computes it from by `factor`."""
    for group in optimizer.param_groups:
        for key in ("lr", *_GROUP_RATES):
            if key in group:
                group[key] = group[key] * factor
    for part in chain(scheduler):
        for name in _RATE_LISTS:
            if name == "min_lrs" and isinstance(part, torch.optim.lr_scheduler.ReduceLROnPlateau):
                continue  # an absolute floor that the user has set
            values = getattr(part, name, None)
            if isinstance(values, list):
                values[:] = [value * factor for value in values]


def cycles_momentum(scheduler: Scheduler | None) -> bool:
    """Whether the schedule overwrites momentum (or beta1) at every step."""
    return any(getattr(part, "cycle_momentum", False) for part in chain(scheduler))


class RatePhase:
    """What the schedule is doing, judged from its curve: `warmup` while it rises, `decay` while it falls.

    Looks at the rate relative to the schedule's base, so that a change made by hand is neither.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: Scheduler | None) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._step = 0
        self._level = self._relative_rate()
        self.name = "warmup" if self._level < 1.0 else "stable"

    def look(self, step: int) -> None:
        """Judge again, from the change since the last look at an earlier step."""
        if step <= self._step:
            return
        level = self._relative_rate()
        tolerance = 1e-9 * max(abs(level), abs(self._level))
        if level > self._level + tolerance:
            self.name = "warmup"
        elif level < self._level - tolerance:
            self.name = "decay"
        else:
            self.name = "stable"
        self._step, self._level = step, level

    def state_dict(self) -> dict[str, Any]:
        """The last look."""
        return {"step": self._step, "level": self._level, "name": self.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a look."""
        self._step, self._level, self.name = state["step"], state["level"], state["name"]

    def _relative_rate(self) -> float:
        if self._scheduler is None or isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return 1.0
        group = self._optimizer.param_groups[0]  # loading a state replaces the groups
        base = float(group.get("max_lr", group.get("initial_lr", 0.0)))
        return float(group["lr"]) / base if base > 0 else 1.0
