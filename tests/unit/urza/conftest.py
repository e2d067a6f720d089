"""A store of each kind, and a world to change."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from esperd.urza.library import Library
from esperd.urza.store import Store, open_store
from tests.unit.urza.samples import World, library


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory where there is one: these tests flush to the disk a thousand times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture(params=["directory", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store: every rule holds in each kind."""
    if request.param == "directory":
        yield open_store("", tmp_path / "store")
        return
    root = f"/{uuid.uuid4().hex}"
    yield open_store(f"memory:/{root}", tmp_path / "unused")
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def run(tmp_path: Path, store: Store, world: World) -> Library:
    """A library that is new."""
    return library(tmp_path / "run", store, world)
