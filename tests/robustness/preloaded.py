"""Daemons that begin with torch already loaded: a process without threads that forks one for each start.

Loading torch takes longer than the whole run of a crash test. This process loads it and waits; each child goes its own
way through the daemon's real command line before anything has started a thread, which is looked at before each fork.
`python -m tests.robustness.preloaded` reads requests from stdin, one JSON object a line, and answers each with one.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
_MODULES = (
    "numpy",
    "torch",
    "torch.optim.lr_scheduler",
    "torch._inductor.config",  # what asking for determinism loads
    "safetensors.torch",
    "esperd.weatherlight.serve",
    "esperd.tolaria.start",
)


def main() -> int:
    """Load, then serve requests until stdin ends; children that are left are killed."""
    for name in _MODULES:
        importlib.import_module(name)
    children: set[int] = set()
    print(json.dumps({"ready": True}), flush=True)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if "arguments" in request:
                pid = _start(request)
                children.add(pid)
                answer: dict[str, int | None] = {"pid": pid}
            else:
                answer = {"status": _poll(request["poll"])}
            print(json.dumps(answer), flush=True)
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return 0


def _start(request: dict[str, Any]) -> int:
    num_threads = len(list(Path("/proc/self/task").iterdir()))
    assert num_threads == 1, f"{num_threads} threads: a fork would leave them behind"
    pid = os.fork()
    if pid == 0:
        _become(request["arguments"], request["crash"], Path(request["log"]))
    return pid


def _become(arguments: Sequence[str], crash: Sequence[str], log: Path) -> None:
    """The child: output to the log, the hook if there is to be one, and then what `esperd` does; never returns."""
    os.setsid()
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)  # a test run that is killed leaves no daemon behind
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for target, source in ((0, null), (1, out), (2, out)):
        os.dup2(source, target)
    status = 1
    try:
        if crash:
            from esperd.leyline.failpoints import set_hook
            from tests.robustness.crashing_daemon import make_hook, parse

            set_hook(make_hook(parse(crash)))
        from esperd.cli.main import run

        status = run(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _poll(pid: int) -> int | None:
    """The exit status as Python tells it (negative: by that signal), None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    sys.exit(main())
