"""A small daemon for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ctl.small_daemon import SmallDaemon, serving


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDaemon]:
    """Served on a socket of its own; nothing of the caller's environment leaks in."""
    for name in ("ESPER_ADDRESS", "ESPER_KEY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    directory: Path = tmp_path_factory.mktemp("d")
    with serving(SmallDaemon(directory)) as served:
        yield served
