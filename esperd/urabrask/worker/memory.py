"""Trials of memory: what stays behind after runs, and after opening and closing.

The validator's own process. Bytes that malloc has handed out are exact where resident pages are not.
"""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from esperd.kasmina.kernels.kernel import Joined, Kernel
from esperd.urabrask.worker.channel import Channel
from esperd.urabrask.worker.equality import Case, run
from esperd.urabrask.worker.specimen import Specimen

NUM_RUNS, NUM_CYCLES = 100, 100
MIN_REPEATS = 10
BUDGET_S = 2.0
"""Of each trial: a slow kernel is tried less often, never less than `MIN_REPEATS` times."""


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def leak(specimen: Specimen, kernel: Kernel, channel: Channel) -> None:
    """Bytes that stay allocated after a run forward and back."""
    module = specimen.module(1)
    joined = Joined(kernel, module)
    x = specimen.activation(specimen.manifest.hint_batch, 1)

    def once() -> None:
        run(specimen, module, joined, x, Case(specimen.manifest.hint_batch, 1))
        run(specimen, module, joined, x, Case(specimen.manifest.hint_batch, 1, needs_activation_gradient=False))

    _measure(specimen, channel, "leak", NUM_RUNS, once)


def leak_reopened(specimen: Specimen, channel: Channel) -> None:
    """Bytes that stay allocated after opening, running and closing."""

    def once() -> None:
        specimen.open(specimen.copies.folders[-1]).warm_up()

    _measure(specimen, channel, "leak_reopened", NUM_CYCLES, once)


def allocated_bytes(device: torch.device) -> int:
    """What is allocated in this moment: by malloc, and of the GPU's memory by torch."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    on_device = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return int(found.uordblks) + int(found.hblkhd) + int(on_device)


def resident_bytes() -> int:
    """Memory of this process that is really there."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _measure(specimen: Specimen, channel: Channel, name: str, most: int, once: Callable[[], None]) -> None:
    """The growth for each repeat, after some that fill whatever is kept once and for all."""
    for _ in range(MIN_REPEATS):
        once()
    gc.collect()
    before, began, repeats = allocated_bytes(specimen.device), time.monotonic(), 0
    while repeats < MIN_REPEATS or (repeats < most and time.monotonic() - began < BUDGET_S):
        once()
        repeats += 1
    gc.collect()
    grown = allocated_bytes(specimen.device) - before
    channel.measured(name, max(0.0, grown / repeats), f"{grown} bytes in {repeats}")
