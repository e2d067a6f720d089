"""What is known of a blueprint before it is built: its name, trust, bounds, and where it may grow.

Runs on any thread that may import torch. Knows no registry and no seed. Shapes are those of the activation at a site
with the batch size first, as in `SiteView.activation_shape`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from esperd.leyline.vocabulary import BlueprintTier

SEED_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})

Shape = tuple[int, ...]
Factory = Callable[[Shape, Mapping[str, float]], nn.Module]
"""Builds a module for a site shape from a full set of parameters, on the current default device, in float32."""


class BlueprintParameterError(ValueError):
    """A parameter is unknown to the blueprint or out of its bounds; the message says what is allowed."""


class SiteNotAdmissibleError(ValueError):
    """The blueprint cannot grow at this shape or dtype; the message says where it can."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What values a blueprint parameter may take, both ends included."""

    minimum: float
    maximum: float
    default: float
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.admits(self.default):
            raise BlueprintParameterError(f"the default {self.default:g} is not {self}")

    def __str__(self) -> str:
        kind = "a whole number" if self.integer else "a number"
        return f"{kind} from {self.minimum:g} to {self.maximum:g}"

    def admits(self, value: float) -> bool:
        """Whether the value is allowed."""
        if not math.isfinite(value) or not self.minimum <= value <= self.maximum:
            return False
        return not self.integer or float(value).is_integer()


@dataclass(frozen=True, slots=True)
class BlueprintDescriptor:
    """One blueprint: how to build it, and all that may be known of it without building it."""

    blueprint_id: str
    name: str
    description: str
    tier: BlueprintTier
    risk: float
    """From 0 (harmless) to 1 (made to do harm)."""
    ranks: frozenset[int]
    """Admissible numbers of dimensions: 4 for images (B, C, H, W), 3 for sequences (B, T, D), 2 for rows (B, D)."""
    factory: Factory
    parameters: Mapping[str, Bounds] = field(default_factory=dict)

    def admits(self, site_shape: Shape, dtype: torch.dtype) -> bool:
        """Whether it can grow at an activation of this shape and dtype."""
        return len(site_shape) in self.ranks and dtype in SEED_DTYPES and all(size >= 1 for size in site_shape)

    def resolve(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """The full set of parameters: those given, defaults for the rest.

        Raises:
            BlueprintParameterError: one is unknown or out of bounds.
        """
        for name, value in parameters.items():
            bounds = self.parameters.get(name)
            if bounds is None:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise BlueprintParameterError(
                    f"blueprint {self.blueprint_id} has no parameter {name!r}; it has: {known}"
                )
            if not bounds.admits(value):
                raise BlueprintParameterError(
                    f"{name} of blueprint {self.blueprint_id} is {value:g}; it must be {bounds}"
                )
        return {name: float(parameters.get(name, bounds.default)) for name, bounds in self.parameters.items()}

    def build(self, site_shape: Shape, parameters: Mapping[str, float] | None = None) -> nn.Module:
        """A fresh module that maps an activation of this shape to a delta of the same shape.

        Draws from the global random generators: fork them around the call where the host's stream must not move.

        Raises:
            BlueprintParameterError: a parameter is unknown or out of bounds.
            SiteNotAdmissibleError: the shape is not one it can grow at.
        """
        resolved = self.resolve(parameters or {})
        if not self.admits(site_shape, torch.float32):
            ranks = " or ".join(str(rank) for rank in sorted(self.ranks))
            raise SiteNotAdmissibleError(
                f"blueprint {self.blueprint_id} needs an activation of {ranks} dimensions, got shape {site_shape}"
            )
        return self.factory(site_shape, resolved)
