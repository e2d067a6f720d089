"""The theatre of these tests."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import pytest

from tests.integration.control.stage import Theatre, open_stage

# grpc.aio keeps one poller thread for as long as any server or channel lives, and pytest holds on to a test's fixtures
# past its end. Started here, the thread is nobody's leak.
grpc.aio.init_grpc_aio()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: the path of a Unix socket has at most 100 bytes."""
    path = Path(tempfile.mkdtemp(prefix="esper-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def stage(directory: Path) -> AsyncIterator[Theatre]:
    async with open_stage(directory) as theatre:
        yield theatre
