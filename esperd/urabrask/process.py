"""The process in which a kernel is opened for the first time: started, listened to, and ended with all it has started.

Event loop only. Knows a command line, lines of JSON, and how a process can end; what the lines mean is `judge.py`'s
affair. The process gets no key, no path with programs, no compiler and a directory of its own; from there on it limits
itself (`worker/confinement.py`), since limits that the parent sets would need a fork of the daemon.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-P", "-m", "esperd.urabrask.worker")
PRIORITY = 10
"""How far a validation gives way to training, as `nice` counts."""
MAX_LINES = 2000
MAX_LINE_BYTES = 1 << 16
LAST_WORDS = 20
DRAIN_S = 5.0
"""Longest wait for the end of what a killed process has said."""
_INHERITED = ("LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LANG")


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process ended, and what it said."""

    messages: tuple[Mapping[str, Any], ...]
    """What it said, in order; lines that are none are left out."""
    status: int
    """Its exit status; the negative number of the signal that ended it."""
    is_timed_out: bool
    last_words: str
    """The end of what it wrote to its standard error."""

    @property
    def words(self) -> str:
        """How it ended, in words."""
        if self.is_timed_out:
            return "it did not end in time"
        if self.status < 0:
            return f"it was ended by {signal_name(-self.status)}"
        return f"it ended with status {self.status}"


async def run(order: Mapping[str, Any], folder: Path, timeout_s: float, *, command: Sequence[str] = COMMAND) -> Ending:
    """Run one process to its end; whoever cancels this kills it.

    Args:
        order: what it is to do, as JSON; it reads that from its standard input.
        folder: an empty directory of its own, its working directory.
        timeout_s: after this it is killed.
        command: program and arguments.

    Raises:
        OSError: it could not be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(folder),
        start_new_session=True,
        limit=MAX_LINE_BYTES,
    )
    is_timed_out = False
    heard = _Heard()
    try:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, PRIORITY)
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(_tell(process, order), heard.listen(process), heard.listen_to_errors(process))
            await process.wait()
    except TimeoutError:
        is_timed_out = True
    finally:
        await _end(process)
    status = process.returncode or 0
    return Ending(tuple(heard.messages), status, is_timed_out, "\n".join(heard.last_words))


def environment(folder: Path) -> dict[str, str]:
    """All that the process finds in its environment."""
    given = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    own = {name: str(folder) for name in ("HOME", "TMPDIR")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {
        **given,
        **own,
        **threads,
        "PATH": "",
        "CXX": "/bin/false",
        "AOTI_RUNTIME_CHECK_INPUTS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def signal_name(number: int) -> str:
    """The signal as it is known, e.g. `SIGSEGV`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Heard:
    """What a process says, within bounds: one that says more is no longer listened to, and ends at its timeout."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self._num_garbled = 0
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while len(self.messages) + self._num_garbled < MAX_LINES:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line beyond every measure
                self._num_garbled += 1
                continue
            if not line:
                return
            self._take(line)

    async def listen_to_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            self.last_words.append(line.decode(errors="replace").rstrip()[:500])

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):  # the latter of brackets without end
            message = None
        if isinstance(message, dict):
            self.messages.append(message)
        else:
            self._num_garbled += 1


async def _tell(process: asyncio.subprocess.Process, order: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # how it ended says more than that it did not listen
        process.stdin.write(json.dumps(order).encode())
        await process.stdin.drain()
    process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that it is gone, and whatever it has started, and that its pipes are closed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            for stream in (process.stdout, process.stderr):
                while await stream.read(MAX_LINE_BYTES):
                    pass
    await process.wait()
