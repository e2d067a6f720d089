"""Data that is already in memory, cut into batches: tensors, and random windows of a byte text.

Any thread that owns it (training thread here). Each source has a random stream of its own, so that drawing a batch
never touches the global generator, and remembers where it is inside an epoch, so that a run can be resumed exactly.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class _Epochs:
    """An epoch's position and the generator state it started from: all that resuming needs."""

    def __init__(self, random_seed: int | None) -> None:
        self._generator = None if random_seed is None else torch.Generator().manual_seed(random_seed)
        self._epoch_state = None if self._generator is None else self._generator.get_state()
        self._position = 0
        self._resume_at = 0

    def state_dict(self) -> dict[str, Any]:
        """Batches taken in this epoch, and the random stream's state at the epoch's start."""
        return {"position": self._position, "generator": self._epoch_state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass continue where `state` was taken."""
        if self._generator is not None:
            self._generator.set_state(state["generator"])
            self._epoch_state = self._generator.get_state()
        self._position = self._resume_at = int(state["position"])

    def _begin(self) -> int:
        """Start a pass; returns the number of batches to leave out because they were taken before."""
        resume_at, self._resume_at = self._resume_at, 0
        if self._generator is not None:
            self._epoch_state = self._generator.get_state()
        self._position = resume_at
        return resume_at

    def _end_pass(self) -> None:
        """The pass is over: what comes next starts from here."""
        if self._generator is not None:
            self._epoch_state = self._generator.get_state()
        self._position = 0


class TensorBatches(_Epochs):
    """Batches of two tensors with equal first dimension; shuffled anew each pass when `shuffle_seed` is given.

    Shapes: inputs (N, ...), targets (N, ...); a batch is (B, ...), (B, ...), the last one smaller unless `drop_last`.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets")
        if batch_size < 1 or (drop_last and batch_size > len(inputs)):
            raise ValueError(f"a batch size of {batch_size} gives no batch from {len(inputs)} samples")
        super().__init__(shuffle_seed)
        self.inputs, self.targets, self.batch_size = inputs, targets, batch_size
        self._end = len(inputs) - len(inputs) % batch_size if drop_last else len(inputs)

    def __len__(self) -> int:
        return -(-self._end // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first = self._begin()
        order = None if self._generator is None else torch.randperm(len(self.inputs), generator=self._generator)
        for index in range(first, len(self)):
            self._position = index + 1
            start, stop = index * self.batch_size, min((index + 1) * self.batch_size, self._end)
            if order is None:
                yield self.inputs[start:stop], self.targets[start:stop]
            else:
                chosen = order[start:stop]
                yield self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen)
        self._end_pass()


class ByteWindows(_Epochs):
    """Windows of a byte text for next-byte prediction; an epoch is `num_batches` batches.

    Shapes: text (N,) uint8; a batch is inputs (B, T) and targets (B, T), int64, the targets one byte further on. With a
    `random_seed` the windows are drawn at random, otherwise they are spread evenly and are the same in every pass.
    """

    def __init__(
        self,
        text: torch.Tensor,
        batch_size: int,
        context: int,
        num_batches: int,
        *,
        random_seed: int | None = None,
    ) -> None:
        if len(text) < context + 1:
            raise ValueError(f"{len(text)} bytes are too few for windows of {context}")
        super().__init__(random_seed)
        self.text, self.batch_size, self.context, self.num_batches = text, batch_size, context, num_batches
        self._offsets = torch.arange(context + 1)
        num_starts = len(text) - context
        self._starts = torch.linspace(0, num_starts - 1, batch_size * num_batches, dtype=torch.float64).long()

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first = self._begin()
        for index in range(self.num_batches):
            starts = self._draw(index)
            if index < first:
                continue  # drawn all the same: the stream must stand where it stood
            self._position = index + 1
            windows = self.text[starts[:, None] + self._offsets].long()
            yield windows[:, :-1], windows[:, 1:]
        self._end_pass()

    def _draw(self, index: int) -> torch.Tensor:
        if self._generator is None:
            return self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        return torch.randint(len(self.text) - self.context, (self.batch_size,), generator=self._generator)
