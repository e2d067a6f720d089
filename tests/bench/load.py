"""Clients of the control plane, each kind of load in a process of its own that is switched on and off.

`LoadProcess` is the benchmark's end: `on` returns when the load flows, `result` when nothing of it is left, with what
was counted. The other end is `python -m tests.bench.load`, which never imports torch.
"""

import json
import os
import select
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Tally:
    """What one load did between `on` and `off`."""

    num_done: int
    num_refused: int
    num_items: int
    """What came in the messages: samples of telemetry."""
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Things done a second."""
        return self.num_done / self.seconds


class LoadProcess:
    """One kind of load: a context manager around its process."""

    def __init__(self, kind: str, address: str, key_file: Path) -> None:
        self.kind = kind
        self._command = [sys.executable, "-m", "tests.bench.load", kind, address, str(key_file)]
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def on(self) -> None:
        """Begin."""
        self._tell("on")
        self._read()

    def begin_off(self) -> None:
        """Begin no further call; those on their way may still take their time."""
        self._tell("off")

    @property
    def is_off(self) -> bool:
        """Whether the last call has been answered."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def result(self) -> Tally:
        """Wait for the last call, and sum up."""
        return Tally(**json.loads(self._read()))

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load {self.kind} has died")
        return line


def tally(times_s: list[float], num_done: int, num_refused: int, num_items: int, seconds: float) -> Tally:
    """Sum up; without times the quantiles are 0."""
    times_ms = [second * 1e3 for second in times_s]
    if len(times_ms) < 2:
        only = times_ms[0] if times_ms else 0.0
        return Tally(num_done, num_refused, num_items, seconds, only, only)
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    return Tally(num_done, num_refused, num_items, seconds, cuts[49], cuts[98])


if __name__ == "__main__":
    from tests.bench.load_kinds import serve_load

    serve_load(*sys.argv[1:4])
