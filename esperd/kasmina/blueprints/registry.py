"""The blueprints a run knows, by id: the standard ones, and whatever the run's owner adds.

Runs on the training thread (the daemon owns one registry for each run). No module state: two registries never share
a change.
"""

from collections.abc import Iterable, Iterator

import torch

from esperd.kasmina.blueprints import convolutional, dense, sequential
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Shape


class UnknownBlueprintError(ValueError):
    """No blueprint has this id; the message lists those there are."""


class DuplicateBlueprintError(ValueError):
    """Another blueprint has this id already."""


class BlueprintRegistry:
    """Descriptors by blueprint id, in the order in which they were registered.

    Raises:
        DuplicateBlueprintError: two of them have one id.
    """

    def __init__(self, descriptors: Iterable[BlueprintDescriptor] = ()) -> None:
        self._descriptors: dict[str, BlueprintDescriptor] = {}
        for descriptor in descriptors:
            self.register(descriptor)

    def __contains__(self, blueprint_id: object) -> bool:
        return blueprint_id in self._descriptors

    def __iter__(self) -> Iterator[BlueprintDescriptor]:
        return iter(self._descriptors.values())

    def __len__(self) -> int:
        return len(self._descriptors)

    def register(self, descriptor: BlueprintDescriptor) -> None:
        """Add a blueprint.

        Raises:
            DuplicateBlueprintError: its id is taken.
        """
        if descriptor.blueprint_id in self._descriptors:
            raise DuplicateBlueprintError(f"a blueprint {descriptor.blueprint_id!r} is registered already")
        self._descriptors[descriptor.blueprint_id] = descriptor

    def get(self, blueprint_id: str) -> BlueprintDescriptor:
        """The blueprint with this id.

        Raises:
            UnknownBlueprintError: there is none.
        """
        descriptor = self._descriptors.get(blueprint_id)
        if descriptor is None:
            known = ", ".join(sorted(self._descriptors)) or "none"
            raise UnknownBlueprintError(f"there is no blueprint {blueprint_id!r}; known: {known}")
        return descriptor

    def admissible(self, site_shape: Shape, dtype: torch.dtype) -> tuple[BlueprintDescriptor, ...]:
        """Those that can grow at an activation of this shape (batch size first) and dtype."""
        return tuple(descriptor for descriptor in self if descriptor.admits(site_shape, dtype))


def standard_registry() -> BlueprintRegistry:
    """A fresh registry of the blueprints that come with the daemon."""
    return BlueprintRegistry((*convolutional.ALL, *sequential.ALL, *dense.ALL))
