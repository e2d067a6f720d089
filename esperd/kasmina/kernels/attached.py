"""A kernel as one seed uses it: native where it fits, and the eager module, with a word about it, wherever it does not.

Training thread only. Nothing native may break a step: what does not fit is computed by the module, a forward that
raises is computed again by the module, and so are the gradients of a backward that raises, so that neither the seed nor
the host, through which a fossil's backward runs, ever sees the fault. Then the kernel is not used again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from esperd.kasmina.kernels.kernel import Gradients, Joined, Kernel
from esperd.kasmina.kernels.variant import autocast_named

MAX_TOLD = 8
"""Reasons of one seed that are told; a seed whose batches are of many sizes would else fill the journal."""


class Listener(Protocol):
    """Who hears how a seed gets on with its kernel."""

    def fell_back(self, seed_id: int, reason: str) -> None:
        """An activation was not for the kernel; once for each reason."""
        ...

    def failed(self, seed_id: int, detail: str) -> None:
        """The kernel raised; it must not be used again."""
        ...


class Attached(Joined):
    """A kernel joined to a seed's module."""

    keeps_activation = True

    def __init__(self, kernel: Kernel, module: nn.Module, seed_id: int, listener: Listener) -> None:
        """Raises EsperdError KERNEL_MISFIT when the module has not the tensors that the manifest names."""
        super().__init__(kernel, module)
        self._module = module
        self._seed_id = seed_id
        self._listener = listener
        self._told: set[str] = set()

    def delta(self, x: Tensor) -> Tensor | None:
        """The delta by the kernel, or by the module if the kernel raises; None when it does not fit."""
        reason = self.kernel.misfit(x)
        if reason:
            if reason not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(reason)
                self._listener.fell_back(self._seed_id, reason)
            return None
        try:
            return self(x)
        except torch.OutOfMemoryError:
            raise  # nothing is wrong with the kernel: the trainer makes room and does the step again
        except RuntimeError as error:
            # The libraries call a want of memory by no name. If that is it, the module finds it out, and says so.
            delta: Tensor = self._module(x)
            self._listener.failed(self._seed_id, f"its forward raised {_first_line(error)}")
            return delta

    def recovered(self, x: Tensor | None, g: Tensor, error: RuntimeError) -> Gradients:
        """The gradients as the module computes them, in the forward's autocast.

        Its buffers have seen this batch already, in the native forward: they stay as they are.
        """
        assert x is not None  # kept for this
        buffers = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        with torch.enable_grad(), self._autocast():
            leaf = x.detach().requires_grad_()
            delta = self._module(leaf)
        wanted = [leaf if tensor is None else tensor for tensor in self._tensors]
        differentiable = [tensor for tensor in wanted if tensor.requires_grad]
        found = iter(torch.autograd.grad(delta, differentiable, g, allow_unused=True))
        for buffer, before in buffers:
            buffer.copy_(before)
        self._listener.failed(self._seed_id, f"its backward raised {_first_line(error)}")
        return tuple(next(found) if tensor.requires_grad else None for tensor in wanted)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        variant = self.kernel.manifest.variant
        dtype = autocast_named(variant.autocast_dtype)
        with torch.autocast(variant.device_type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            yield


def _first_line(error: RuntimeError) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'without a word'}"
