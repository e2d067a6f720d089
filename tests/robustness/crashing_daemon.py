"""The daemon's own command line, with a hook at its failpoints.

`python -m tests.robustness.crashing_daemon --failpoint NAME ... -- serve FILE`. The hook lies dormant until the command
with a certain reason passes a certain failpoint (or from the beginning); then it counts the passes of its own failpoint
and acts at the one that was asked for. Everything else is what `esperd` does.
"""

import argparse
import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from esperd.leyline.failpoints import set_hook

CRASHED = 137
"""Exit status of a daemon that ended at its failpoint."""
_FRAMES = 4
"""How far above the failpoint the command is looked for."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Where and how a daemon comes to grief."""

    failpoint: str
    hit: int = 1
    """At which pass, counted from when it is armed."""
    action: str = "exit"
    """`exit` (os._exit), `kill` (SIGKILL), `enospc` or `eio` (OSError at this and the next `times` - 1 passes)."""
    times: int = 1
    armed_by: str = ""
    """Reason of the command at whose `armed_at` it is armed; empty: from the beginning."""
    armed_at: str = "apply.before"
    terminates: bool = False
    """SIGTERM is sent when it is armed, as by a service manager."""

    def arguments(self) -> list[str]:
        """As command-line arguments of this module."""
        found = [
            f"--failpoint={self.failpoint}",
            f"--hit={self.hit}",
            f"--action={self.action}",
            f"--times={self.times}",
            f"--armed-by={self.armed_by}",
            f"--armed-at={self.armed_at}",
        ]
        return [*found, "--terminates"] if self.terminates else found


def main(arguments: Sequence[str]) -> int:
    """Set the hook, then be `esperd`."""
    own, rest = split(arguments)
    set_hook(make_hook(parse(own)))
    from esperd.cli.main import run

    return run(rest)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and those of `esperd` behind the `--`."""
    index = list(arguments).index("--")
    return list(arguments[:index]), list(arguments[index + 1 :])


def parse(arguments: Sequence[str]) -> Crash:
    """Read our arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--failpoint", required=True)
    parser.add_argument("--hit", type=int, default=1)
    parser.add_argument("--action", choices=sorted(_ACTIONS), default="exit")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--armed-by", default="")
    parser.add_argument("--armed-at", default="apply.before")
    parser.add_argument("--terminates", action="store_true")
    return Crash(**vars(parser.parse_args(arguments)))


def make_hook(crash: Crash) -> Callable[[str], None]:
    """The function that every failpoint calls; safe on any thread."""
    act = _ACTIONS[crash.action]
    lock = threading.Lock()
    is_armed = not crash.armed_by
    num_hits = 0

    def hook(name: str) -> None:
        nonlocal is_armed, num_hits
        if not is_armed and name == crash.armed_at and _reason_above() == crash.armed_by:
            is_armed = True
            if crash.terminates:
                os.kill(os.getpid(), signal.SIGTERM)
        if is_armed and (name == crash.failpoint or name.startswith(crash.failpoint + ".")):
            with lock:
                num_hits += 1
                is_due = crash.hit <= num_hits < crash.hit + crash.times
            if is_due:
                act(name)

    return hook


def _reason_above() -> str:
    """The reason of the command that the code above the failpoint has in hand."""
    for depth in range(2, 2 + _FRAMES):
        command = sys._getframe(depth).f_locals.get("command")
        if command is not None:
            return str(command.reason)
    return ""


def _exit(name: str) -> None:
    os.write(2, f"crash at {name}\n".encode())
    os._exit(CRASHED)


def _kill(name: str) -> None:
    os.write(2, f"kill at {name}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _enospc(name: str) -> None:
    raise _as_met(name, errno.ENOSPC, "database or disk is full")


def _eio(name: str) -> None:
    raise _as_met(name, errno.EIO, "disk I/O error")


def _as_met(name: str, number: int, words: str) -> Exception:
    """The disk's error as code at that place meets it: the journal's comes through SQLite."""
    if name.startswith("journal."):
        return sqlite3.OperationalError(words)
    return OSError(number, os.strerror(number), name)


_ACTIONS: dict[str, Callable[[str], None]] = {"exit": _exit, "kill": _kill, "enospc": _enospc, "eio": _eio}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
