"""Fixtures: daemons that never outlive their test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.process import DaemonProcess

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a Unix socket in it."""
    path = Path(tempfile.mkdtemp(prefix="esperd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start_daemon(folder: Path) -> Iterator[StartDaemon]:
    """Starts daemons in the folder; all are ended with the test, and show their log if it failed."""
    started: list[DaemonProcess] = []

    def start(
        *overrides: str, task: str = "tiny_task:build", keys: bool = True, new_run: bool = False
    ) -> DaemonProcess:
        started.append(DaemonProcess(folder, *overrides, task=task, keys=keys, new_run=new_run))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()
        print(daemon.log)
