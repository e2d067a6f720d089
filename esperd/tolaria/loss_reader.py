"""Getting the loss of every step into Python without making the device wait.

Training thread only. On the CPU it is simply there. On CUDA it is copied into pinned memory behind the step and read
once the copy has passed, a step or two later; meanwhile a fused optimizer keeps a non-finite step from the weights by
itself.
"""

from collections import deque

import torch

_NUM_SLOTS = 8
"""Losses under way at most; then the oldest is waited for."""


class LossReader:
    """Reads losses at once where that is free or where the optimizer cannot skip on the device, else a little late."""

    def __init__(
        self, device: torch.device, optimizer: torch.optim.Optimizer, *, has_scaler: bool, is_exact: bool = False
    ) -> None:
        """`is_exact`: how late a loss is known depends on the device's speed, so that it is waited for."""
        skips_on_device = has_scaler or bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self.is_immediate = device.type == "cpu" or not skips_on_device or is_exact
        """Whether the trainer takes the loss itself, at once; then nothing is ever under way here."""
        self._optimizer = None if self.is_immediate or has_scaler else optimizer
        self._free: deque[torch.Tensor] = deque()
        self._under_way: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()
        if not self.is_immediate:
            self._free.extend(torch.zeros((), pin_memory=True) for _ in range(_NUM_SLOTS))

    def drain(self) -> list[float]:
        """Wait for everything under way; at log steps."""
        return [self._finish(wait=True) for _ in range(len(self._under_way))]

    def read_late(self, loss: torch.Tensor) -> list[float]:
        """Send this loss, detached, on its way; those that have become known meanwhile, in order."""
        if self._optimizer is not None:  # what a GradScaler sets too: the fused step leaves the weights alone
            self._optimizer.found_inf = (~torch.isfinite(loss)).float()  # type: ignore[attr-defined]
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        slot = self._free.popleft()
        slot.copy_(loss, non_blocking=True)
        passed = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
        passed.record()
        self._under_way.append((passed, slot))
        known: list[float] = []
        while self._under_way and (not self._free or self._has_passed()):
            known.append(self._finish(wait=not self._free))
        return known

    def _has_passed(self) -> bool:
        return bool(self._under_way[0][0].query())  # type: ignore[no-untyped-call]  # torch does not type it

    def _finish(self, *, wait: bool) -> float:
        passed, slot = self._under_way.popleft()
        if wait:
            passed.synchronize()
        self._free.append(slot)
        return slot.item()
