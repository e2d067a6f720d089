"""Training batches, one ahead: fetched after a step, copied to the device beside it, and counted for resuming.

Training thread only. Fetching right after a step (not before the next one) tells at the safe point whether the epoch
has ended, takes the data's random numbers in the same order as a plain loop, and overlaps the copy with the device.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

from esperd.kasmina.ports import Batch
from esperd.leyline.errors import EsperdError

_PAIR_TYPES = (tuple, list)


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
        self._batches: Iterator[Any] | None = None
        self._staged: Batch | None = None
        self._resume_at = 0
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

    def peek(self) -> Batch:
        """The batch that `next_batch` will give, for dry runs; taking it this way changes nothing."""
        if self._staged is None:
            self._open_epoch()
        assert self._staged is not None  # as above
        return self._copier.finish(self._staged)

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands: epoch, batches given out, and the data's own state at the epoch's start."""
        inner = self._data.state_dict() | {"position": self.position} if hasattr(self._data, "state_dict") else None
        return {"epoch": self.epoch, "position": self.position, "data": inner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; data without a state of its own is read again up to there."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._batches = self._staged = None
        if state["data"] is None:
            self._resume_at = self.position
        else:
            self._data.load_state_dict(state["data"])

    def _open_epoch(self) -> None:
        resume_at, self._resume_at = self._resume_at, 0
        self._batches = islice(iter(self._data), resume_at, None)
        self._staged = self._fetch(self._batches)
        if self._staged is None:
            raise EsperdError("TASK_INVALID", task=self._task_name, detail="train_data gave no batch")

    def _fetch(self, batches: Iterator[Any]) -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        if not isinstance(batch, _PAIR_TYPES) or len(batch) != 2:
            detail = f"a batch of train_data is {type(batch).__name__}, not a pair (inputs, targets)"
            raise EsperdError("TASK_INVALID", task=self._task_name, detail=detail)
        pair = (batch[0], batch[1])
        return pair if self._copier.is_identity else self._copier.start(pair)
