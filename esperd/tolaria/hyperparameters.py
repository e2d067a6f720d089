"""Changing an optimizer's hyper-parameters while it runs: which there are, what range each has, and the change itself.

Training thread only. Everything is checked before anything is changed; nothing is clamped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from esperd.leyline.errors import EsperdError


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a hyper-parameter may take."""

    low: float
    high: float
    is_low_open: bool = False
    is_high_open: bool = False

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        above = value > self.low if self.is_low_open else value >= self.low
        return above and (value < self.high if self.is_high_open else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.is_low_open else f"at least {self.low:g}"
        return f"{low} and {'below' if self.is_high_open else 'at most'} {self.high:g}"


_FRACTION = Range(0.0, 1.0, is_high_open=True)

RANGES: Mapping[str, Range] = {
    "lr": Range(0.0, 100.0, is_low_open=True),
    "weight_decay": Range(0.0, 1.0),
    "momentum": _FRACTION,
    "dampening": _FRACTION,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "alpha": _FRACTION,
    "eps": Range(0.0, 1.0, is_low_open=True),
    "lr_decay": Range(0.0, 1.0),
    "lambd": Range(0.0, 1.0),
}
"""The hyper-parameters that may be changed live; those of them that an optimizer has are its own."""

_BETAS = ("beta1", "beta2")


def read(group: Mapping[str, Any]) -> dict[str, float]:
    """The hyper-parameters of one parameter group, `betas` as `beta1` and `beta2`."""
    values = {name: float(group[name]) for name in RANGES if isinstance(group.get(name), int | float | torch.Tensor)}
    for name, beta in zip(_BETAS, group.get("betas", ()), strict=False):
        values[name] = float(beta)
    return values


def check(target: str, known: Mapping[str, float], values: Mapping[str, float]) -> None:
    """Raise EsperdError HYPERPARAMETER_UNKNOWN or HYPERPARAMETER_RANGE unless every value may be set."""
    if not values:
        raise EsperdError("HYPERPARAMETER_UNKNOWN", target=target, name="(none given)", known=", ".join(known))
    for name, value in values.items():
        if name not in known:
            raise EsperdError("HYPERPARAMETER_UNKNOWN", target=target, name=name, known=", ".join(known))
        if value not in RANGES[name]:
            raise EsperdError("HYPERPARAMETER_RANGE", name=name, value=value, detail=f"it must be {RANGES[name]}")


def write(group: dict[str, Any], values: Mapping[str, float]) -> None:
    """Set checked values in one parameter group; the learning rate is not among them."""
    for name, value in values.items():
        if name in _BETAS:
            betas = list(group["betas"])
            betas[_BETAS.index(name)] = value
            group["betas"] = tuple(betas)
        else:
            group[name] = value
