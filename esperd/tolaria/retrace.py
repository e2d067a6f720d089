"""Walking the same way through data again: what an epoch began from, and how to come back to a place inside it.

Training thread only. For data without a state of its own, a torch `DataLoader` above all: the generators as they were
when the pass began give the same order and, in workers, the same augmentations. What the main process drew from the
global generators batch by batch cannot be drawn again, which is why the batch that is fetched already is saved itself.
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from esperd.tolaria.precision import random_states, set_random_states, untouched_rng

_DEPTH = 4
"""How deep generators are looked for: loader, batch sampler, sampler, its attributes."""

_MAX_ITEMS = 64
"""Longer containers hold data, not generators."""

_Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

_PLAIN = frozenset((torch.Tensor, np.ndarray, bool, int, float, str, bytes, type(None)))


class Retrace:
    """One source of batches that can be walked again."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._generators = _generators_in(data)
        self._start: Mapping[str, Any] | None = None

    def begin(self) -> Iterator[Any]:
        """Start a pass, and note what it starts from: once an epoch, nothing at a step."""
        is_first = getattr(self._data, "_iterator", None) is None
        self._start = {"random": random_states(), "generators": self._states(), "is_first": is_first}
        batches: Iterator[Any] = iter(self._data)
        return batches

    def state_dict(self, *, is_open: bool) -> dict[str, Any]:
        """What the pass that is open began from, and the data's own generators now."""
        return {"start": self._start if is_open else None, "generators": self._states()}

    def walk(self, state: Mapping[str, Any], num_batches: int) -> Iterator[Any]:
        """The pass that was begun in `state`, its first `num_batches` left out; global generators are left as they are.

        Call `rest` afterwards: a loader without workers draws no sample of those, so neither do its data's generators.
        """
        start = copy.deepcopy(state["start"])
        with untouched_rng():
            self._prepare_workers(is_first=start["is_first"])
            set_random_states(start["random"])
            self._put(start["generators"])
            batches: Iterator[Any] = iter(self._data)
            _leave_out(self._data, batches, num_batches)
        self._start = start
        return batches

    def rest(self, state: Mapping[str, Any]) -> None:
        """Put the data's own generators where they stood when `state` was taken."""
        self._put(state["generators"])

    def doubts(self) -> str:
        """Why this data may not go on exactly; empty when it does."""
        data = self._data
        if isinstance(data, DataLoader):
            if data.num_workers > 0 and data.persistent_workers:
                return "persistent_workers keep their own random state from epoch to epoch, where nobody can read it"
            return ""
        if isinstance(data, (list, tuple)):
            return ""
        return f"{type(data).__name__} has no state_dict, so it is read again from the beginning of its epoch"

    def _prepare_workers(self, *, is_first: bool) -> None:
        """Let persistent workers begin the pass as they began it: torch draws one number more when it starts them."""
        if not isinstance(self._data, DataLoader) or not self._data.persistent_workers:
            return
        if is_first:
            self._data._iterator = None
        elif self._data._iterator is None:
            iter(self._data)

    def _states(self) -> list[Any]:
        return [_state_of(generator) for generator in self._generators]

    def _put(self, states: Sequence[Any]) -> None:
        if len(states) != len(self._generators):
            raise ValueError(f"train_data had {len(states)} random generators, it has {len(self._generators)} now")
        for generator, state in zip(self._generators, states, strict=True):
            _set_state(generator, state)


def _leave_out(data: Any, batches: Iterator[Any], count: int) -> None:
    """Pass over batches; a loader without workers draws their indices only, and reads no sample."""
    if isinstance(data, DataLoader) and data.num_workers == 0 and not isinstance(data.dataset, IterableDataset):
        indices = getattr(batches, "_sampler_iter", None)
        if indices is not None:
            next(islice(indices, count, count), None)
            return
    next(islice(batches, count, count), None)


def _generators_in(data: Any) -> list[_Generator]:
    """Every random generator that can be reached through attributes and small containers, each once, nearest first."""
    found: list[_Generator] = []
    seen: set[int] = set()
    level: list[Any] = [data]
    for _ in range(_DEPTH + 1):
        further: list[Any] = []
        for value in level:
            if type(value) in _PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, _Generator):
                found.append(value)
            elif not isinstance(value, (type, ModuleType)):
                further.extend(_parts_of(value))
        level = further
    return found


def _parts_of(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= _MAX_ITEMS else ()
    if isinstance(value, (list, tuple)):
        return value if len(value) <= _MAX_ITEMS else ()
    # The iterator of persistent workers is not part of what the task gave.
    return [part for name, part in getattr(value, "__dict__", {}).items() if name != "_iterator"]


def _state_of(generator: _Generator) -> Any:
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state()


def _set_state(generator: _Generator, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
