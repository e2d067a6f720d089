"""Training batches, one ahead: fetched after a step, copied to the device beside it, and counted for resuming.

Training thread only. Fetching right after a step (not before the next one) tells at the safe point whether the epoch
has ended, takes the data's random numbers in the same order as a plain loop, and overlaps the copy with the device.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from esperd.kasmina.module_state import pack_batch, unpack_batch
from esperd.kasmina.ports import Batch
from esperd.leyline.errors import EsperdError
from esperd.tolaria.precision import untouched_rng
from esperd.tolaria.retrace import Retrace

_PAIR_TYPES = (tuple, list)
_PLAIN = frozenset((bool, int, float, str, bytes, type(None), np.ndarray))


class DeviceCopier:
    """Moves batches to the device; on CUDA through pinned memory, on a stream of its own when prefetching."""

    def __init__(self, device: torch.device, *, prefetch: bool, channels_last: bool) -> None:
        self.device = device
        self._channels_last = channels_last
        self._is_cuda = device.type == "cuda"
        use_stream = self._is_cuda and prefetch
        self._stream = torch.cuda.Stream(device) if use_stream else None  # type: ignore[no-untyped-call]  # torch's
        self.is_identity = not self._is_cuda and not channels_last
        """Whether batches are passed on as they are, so that none of the calls here does anything."""

    def start(self, batch: Batch) -> Batch:
        """Begin the copy; the result may be used after `finish`."""
        if self.is_identity:
            return batch
        if self._stream is None:
            return self._move(batch)
        with torch.cuda.stream(self._stream):
            return self._move(batch)

    def finish(self, batch: Batch) -> Batch:
        """Make the current stream wait for the copy."""
        if self._stream is None:
            return batch
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        for leaf in pytree.tree_leaves(batch):
            if isinstance(leaf, torch.Tensor):
                leaf.record_stream(current)
        return batch

    def copy(self, batch: Batch) -> Batch:
        """Copy on the current stream."""
        return batch if self.is_identity else self._move(batch)

    def _move(self, batch: Batch) -> Batch:
        moved: Batch = pytree.tree_map_only(torch.Tensor, self._move_tensor, batch)
        return moved

    def _move_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._is_cuda and not tensor.is_cuda and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        moved = tensor.to(self.device, non_blocking=True)
        if self._channels_last and moved.dim() == 4:
            moved = moved.contiguous(memory_format=torch.channels_last)
        return moved


class Feed:
    """Endless training batches with epoch boundaries."""

    def __init__(self, data: Any, copier: DeviceCopier, task_name: str) -> None:
        self._data = data
        self._copier = copier
        self._task_name = task_name
        self._has_state = hasattr(data, "state_dict") and hasattr(data, "load_state_dict")
        self._retrace = Retrace(data)
        self._batches: Iterator[Any] | None = None
        self._staged: Batch | None = None
        self._before_staged: Any = None
        self._keeps_before = False
        """Batches cannot be saved: note the data's own state before each of them."""
        self._warnings: list[str] = []
        doubts = "" if self._has_state else self._retrace.doubts()
        if doubts:
            self._warnings.append(f"a resumed run may not see exactly the batches of an undisturbed one: {doubts}")
        self.epoch = 0
        """Epochs finished."""
        self.position = 0
        """Batches of this epoch given out."""

    def next_batch(self) -> Batch:
        """The next batch on the device. Raises EsperdError TASK_INVALID when the data is empty or no pairs."""
        if self._staged is None:
            self._open_epoch()
        staged = self._staged
        assert staged is not None  # _open_epoch stages one or raises
        self._staged = None
        self.position += 1
        return staged if self._copier.is_identity else self._copier.finish(staged)

    def advance(self) -> bool:
        """Fetch the batch after this one; True when there is none, so that the epoch has ended."""
        assert self._batches is not None  # next_batch has opened the epoch
        self._staged = self._fetch(self._batches)
        if self._staged is not None:
            return False
        self._batches = None
        self.epoch += 1
        self.position = 0
        return True

    def skip(self, num_batches: int) -> None:
        """Leave out the next batches, over the ends of epochs too; what follows is as if they had been trained on."""
        for _ in range(num_batches):
            self.next_batch()
            self.advance()

    def peek(self) -> Batch:
        """The batch that `next_batch` will give, for dry runs; taking it this way changes nothing."""
        if self._staged is None:
            self._open_epoch()
        assert self._staged is not None  # as above
        return self._copier.finish(self._staged)

    def take_warnings(self) -> list[str]:
        """Why a resumed run may not be exact, each reason once (notice `data.inexact`)."""
        taken, self._warnings = self._warnings, []
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands, with references to the batch that is fetched already; at the safe point."""
        staged = None
        if self._staged is not None and is_savable(self._staged):
            staged = pack_batch(self._copier.finish(self._staged))
        elif self._staged is not None:
            self._note_unsavable()
        return {
            "epoch": self.epoch,
            "position": self.position,
            "is_open": self._batches is not None,
            "staged": staged,
            "data": self._own_state(staged is not None) if self._has_state else None,
            "retrace": None if self._has_state else self._retrace.state_dict(is_open=self._batches is not None),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; the global random generators are left alone.

        Data without a state of its own is read again up to there, by workers too.

        Raises:
            ValueError: the data is of another kind than it was.
        """
        if self._has_state != (state["data"] is not None):
            raise ValueError("train_data could save its own place in one of the two runs, not in both")
        self._batches = self._staged = None
        self.epoch, self.position = state["epoch"], state["position"]
        staged = state["staged"]
        with untouched_rng():
            self._batches = self._reopened(state, self.position + (staged is not None))
            if staged is not None:
                self._staged = unpack_batch(staged, self._copier.device)
            elif self._batches is not None:
                self._staged = self._fetch(self._batches)
        if not self._has_state:
            self._retrace.rest(state["retrace"])

    def _reopened(self, state: Mapping[str, Any], num_fetched: int) -> Iterator[Any] | None:
        if self._has_state:
            self._data.load_state_dict(copy.deepcopy(state["data"]))
            return iter(self._data) if state["is_open"] else None
        return self._retrace.walk(state["retrace"], num_fetched) if state["is_open"] else None

    def _own_state(self, is_staged_saved: bool) -> Any:
        """The data's own state after the staged batch, or before it when that has to be fetched again."""
        if self._staged is None or is_staged_saved or self._before_staged is None:
            return self._data.state_dict()
        return self._before_staged

    def _open_epoch(self) -> None:
        self._batches = iter(self._data) if self._has_state else self._retrace.begin()
        self._staged = self._fetch(self._batches)
        if self._staged is None:
            raise EsperdError("TASK_INVALID", task=self._task_name, detail="train_data gave no batch")
        if not is_savable(self._staged):
            self._note_unsavable()

    def _note_unsavable(self) -> None:
        if not self._keeps_before:
            self._keeps_before = True
            self._warnings.append("a batch holds what cannot be saved, so after a restart it is fetched again")

    def _fetch(self, batches: Iterator[Any]) -> Batch | None:
        if self._keeps_before and self._has_state:
            self._before_staged = copy.deepcopy(self._data.state_dict())
        batch = next(batches, None)
        if batch is None:
            return None
        if not isinstance(batch, _PAIR_TYPES) or len(batch) != 2:
            detail = f"a batch of train_data is {type(batch).__name__}, not a pair (inputs, targets)"
            raise EsperdError("TASK_INVALID", task=self._task_name, detail=detail)
        pair = (batch[0], batch[1])
        return pair if self._copier.is_identity else self._copier.start(pair)


def is_savable(batch: Any) -> bool:
    """Whether a batch holds nothing but dense tensors, arrays and plain values in plain containers."""
    if type(batch) in (tuple, list):
        return all(map(is_savable, batch))
    if type(batch) is dict:
        return all(type(key) in (str, int) and is_savable(value) for key, value in batch.items())
    if type(batch) is torch.Tensor:
        return batch.layout is torch.strided
    return type(batch) in _PLAIN
