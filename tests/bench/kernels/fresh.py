"""A fresh process that opens kernels as the daemon does, and tells what that took: one JSON object on standard output.

Run as `python -m tests.bench.kernels.fresh FOLDER...`. Like the daemon it has taken an eager step before. The kernels
are kept open, so that its memory tells what they take.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.weatherlight.diagnostics import COMPILER_MODULES
from tests.bench.kernels.sealing import trust

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one kernel took."""

    load_ms: float
    prewarm_ms: float
    resident_bytes: int
    """Memory of the process after, less before."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a process tells."""

    kernels: list[Fetched]
    compiler_modules: list[str]


def main(folders: Sequence[str]) -> None:
    """Open them in order and tell."""
    torch.set_num_threads(1)
    take_an_eager_step()
    machine = this_machine(torch.device("cpu"))
    kept: list[Kernel] = []
    fetched = []
    for folder in folders:
        before_bytes, began_s = resident_bytes(), time.perf_counter()
        kept.append(open_kernel(Path(folder), trust(), machine))
        opened_s = time.perf_counter()
        kept[-1].warm_up()
        warm_s = time.perf_counter()
        fetched.append(Fetched((opened_s - began_s) * 1e3, (warm_s - opened_s) * 1e3, resident_bytes() - before_bytes))
    print(json.dumps(asdict(Told(fetched, [name for name in COMPILER_MODULES if name in sys.modules]))))


def take_an_eager_step() -> None:
    """What every daemon has done before: the first backward of a process imports half a second's worth."""
    model = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    main(sys.argv[1:])
