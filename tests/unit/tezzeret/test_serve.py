"""`esper tezzeret serve` as a process: how it begins and how it leaves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ctl.small_daemon import SmallDaemon, serving


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDaemon]:
    with serving(SmallDaemon(tmp_path_factory.mktemp("d"))) as served:
        yield served


def start(address: str, key: Path | None, work_dir: Path, **environment: str) -> "subprocess.Popen[str]":
    keys = [] if key is None else ["--key", str(key)]
    options = ["-a", address, *keys, "--work-dir", str(work_dir), "--connect-timeout", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "esper.cli", "tezzeret", "serve", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "CXX": "true", **environment},
    )  # fmt: skip


def test_it_leaves_when_it_is_asked(daemon: SmallDaemon, tmp_path: Path) -> None:
    """A SIGTERM ends it with 0; while it works no other compiler gets into its directory."""
    with start(daemon.address, daemon.key, tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "compiles for run run-1\n"
        with start(daemon.address, daemon.key, tmp_path) as other:
            _, told = other.communicate(timeout=60)
        assert other.returncode == 1
        assert "another compiler works in" in told
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_nobody_there_has_its_own_exit_code(daemon: SmallDaemon, tmp_path: Path) -> None:
    """As with every command line: 3."""
    with start(f"unix:{tmp_path}/none.sock", daemon.key, tmp_path) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "E-CLI-001" in told


def test_what_is_missing_is_told_first(daemon: SmallDaemon, tmp_path: Path) -> None:
    """No key, or no C++ compiler: said at once, not at the first wish."""
    with start(daemon.address, daemon.key, tmp_path, CXX="no-such-compiler") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "there is no C++ compiler no-such-compiler" in told
    daemon.key.unlink()  # where it would be found without being named
    with start(daemon.address, None, tmp_path) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "E-CLI-002" in told
