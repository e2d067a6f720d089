"""Fixtures of all integration tests: real daemons, and the proof that no test leaves anything behind."""

import contextlib
import gc
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.daemon.conftest import folder, start_daemon

__all__ = ["folder", "start_daemon"]

SETTLE_S = 10.0
"""How long what a test has ended may take to be gone."""


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the item whether it has failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A thread, a file descriptor or a process that outlives its test fails it.

    Set up before every other fixture, so it looks when all of them have ended what they began. The traceback of a test
    that failed holds on to what its frames hold, so only those that passed are looked at.
    """
    before = _inventory()
    yield
    if request.node.stash.get(FAILED, False):
        return
    deadline_s = time.monotonic() + SETTLE_S
    while left := _inventory() - before:
        if time.monotonic() > deadline_s:
            pytest.fail("left behind: " + "; ".join(sorted(left)))
        gc.collect()
        time.sleep(0.02)


def _inventory() -> set[str]:
    """What this process has: its threads, its open files with what they are, its descendants."""
    threads = {f"thread {thread.ident} {thread.name}" for thread in threading.enumerate() if thread.is_alive()}
    processes = {_described(child) for child in psutil.Process().children(recursive=True)}
    return threads | processes | set(_open_files())


def _open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            yield f"file descriptor {link.name} {link.readlink()}"


def _described(child: psutil.Process) -> str:
    try:
        return f"process {child.pid} {' '.join(child.cmdline())}"
    except psutil.NoSuchProcess:
        return f"process {child.pid}"
