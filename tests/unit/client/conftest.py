"""Fixtures of the SDK's tests: a small real daemon on a Unix socket."""

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest_asyncio

from tests.unit.client.daemon import Daemon


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A listening daemon; its socket lies in a short path, which a Unix address needs."""
    with TemporaryDirectory(prefix="esp") as directory:
        running = Daemon(Path(directory) / "s")
        await running.start()
        yield running
        await running.stop()
