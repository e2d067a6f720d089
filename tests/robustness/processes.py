"""Starts daemons for crash tests: as a user would, or forked from a process that has torch loaded already."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.robustness.crashing_daemon import Crash

REPOSITORY = Path(__file__).parents[2]
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
END_S = 60.0


class Process(Protocol):
    """A daemon that was started."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status (negative: by that signal), None while it runs."""
        ...


class Launcher(Protocol):
    """A way to start daemons."""

    def start(self, arguments: Sequence[str], log: Path, crash: Crash | None) -> Process:
        """Start `esperd` with these arguments; its output is appended to `log`."""
        ...


class PlainLauncher:
    """`python -m esperd.cli.main ...`, each with its own interpreter, in a session of its own."""

    def __init__(self) -> None:
        self._sessions: list[int] = []

    def close(self) -> None:
        """End what killed daemons have left: a data worker's parent is its fork server, which lives on with it."""
        for session in self._sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)

    def start(self, arguments: Sequence[str], log: Path, crash: Crash | None) -> Process:
        """Start it."""
        module = ["esperd.cli.main"]
        if crash is not None:
            module = ["tests.robustness.crashing_daemon", *crash.arguments(), "--"]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=REPOSITORY,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
        self._sessions.append(process.pid)
        return process


class PreloadedLauncher:
    """Forks of one process that has loaded everything; `close` must be called."""

    def __init__(self) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.preloaded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, **_ONE_THREAD, "GRPC_ENABLE_FORK_SUPPORT": "0"},
            text=True,
        )
        self._read()

    def start(self, arguments: Sequence[str], log: Path, crash: Crash | None) -> Process:
        """Start one."""
        own = [] if crash is None else crash.arguments()
        answer = self.ask({"arguments": list(arguments), "crash": own, "log": str(log)})
        return _Forked(self, answer["pid"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the process that forks."""
        assert self._mother.stdin is not None
        self._mother.stdin.write(json.dumps(request) + "\n")
        self._mother.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it, and every daemon that it still has."""
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.wait(END_S)
        self._mother.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._mother.stdout is not None
        line = self._mother.stdout.readline()
        assert line, f"the process that forks daemons has ended: {self._mother.poll()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Forked:
    """A daemon that is another process's child."""

    def __init__(self, launcher: PreloadedLauncher, pid: int) -> None:
        self.pid = pid
        self._launcher = launcher
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._launcher.ask({"poll": self.pid})["status"]
        return self._status


def end(process: Process, number: signal.Signals = signal.SIGKILL, within_s: float = END_S) -> int:
    """Send a signal unless it has ended, and wait for its end."""
    if process.poll() is None:
        os.kill(process.pid, number)
    return wait(process, within_s)


def wait(process: Process, within_s: float = END_S) -> int:
    """Wait for its end; the exit status."""
    deadline_s = time.monotonic() + within_s
    while (status := process.poll()) is None:
        assert time.monotonic() < deadline_s, f"process {process.pid} does not end"
        time.sleep(0.005)
    return status
