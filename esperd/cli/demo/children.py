"""Child processes of the demo: started with a log file each, watched, and never left behind.

Event loop of the demo. Each child leads a process group of its own, so that a Ctrl-C reaches the demo alone, which
then ends its children in order.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from esperd.leyline.errors import EsperdError

TERMINATE_S = 15.0
"""A daemon drains within this; what is still there is killed."""
TAIL_LINES = 15


class Child:
    """One child process and its log."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check_alive(self) -> None:
        """Raises EsperdError RUN_FAILED with the end of its log when the child has ended."""
        if self.process.returncode is not None:
            raise self.failure(f"{self.name} ended early with status {self.process.returncode}")

    def failure(self, what: str) -> EsperdError:
        """The error for something that went wrong with this child, with its last log lines."""
        return EsperdError("RUN_FAILED", detail=f"{what}; its log is {self.log}", traceback=self.tail())

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {self.name}: {line}" for line in lines)

    async def terminate(self) -> int:
        """SIGTERM, then SIGKILL if it does not end; returns its exit status."""
        if self.process.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), TERMINATE_S)
            except TimeoutError:
                self._signal(signal.SIGKILL)
        return await self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


async def start_child(name: str, module: str, arguments: Sequence[str], log: Path, path: Path | None = None) -> Child:
    """Start `python -m module arguments` with its output in `log`, and with `path` in the place of PATH."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=child_environment(path),
            start_new_session=True,
        )
    return Child(name, process, log)


def child_environment(path: Path | None = None) -> Mapping[str, str]:
    """The demo's environment, with one thread for every numeric library: the runs share the processors."""
    only = {} if path is None else {"PATH": str(path)}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **only}
