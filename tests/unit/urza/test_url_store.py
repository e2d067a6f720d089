"""Stores behind a network: away, slow to tell, torn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import KernelState
from esperd.urza.store import open_store
from tests.unit.urza.samples import ROLES, World, library, make, offered, upload


class BackendError(Exception):
    """What the package of some backend raises: no OSError."""


class Unreliable(MemoryFileSystem):  # type: ignore[misc]
    """Fails at the call whose number is given, counting writes; a write that fails leaves half."""

    protocol = "unreliable"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fails_at: ClassVar[int] = 0
    num_made: ClassVar[int] = 0
    words: ClassVar[str] = "connection reset"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        type(self).num_made += 1

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        type(self).fails_at -= 1
        if self.fails_at == 0:
            super().pipe_file(path, value[: len(value) // 2], mode, **kwargs)
            raise BackendError(self.words)
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture
def url() -> Iterator[str]:
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    Unreliable.store.clear()
    Unreliable.clear_instance_cache()
    Unreliable.fails_at = Unreliable.num_made = 0
    yield "unreliable://kernels"
    Unreliable.store.clear()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_put_is_cut_in_the_middle(tmp_path: Path, url: str, world: World, number: int) -> None:
    """The caller hears of it; what was torn is never taken for a kernel; asked again, all is made whole."""
    made = make()
    run = library(tmp_path / "run", open_store(url, tmp_path), world)
    Unreliable.fails_at = number
    with pytest.raises(EsperdError, match="connection reset") as caught:
        upload(run, made)
    assert caught.value.reason == "KERNEL_STORE_UNAVAILABLE"
    other = library(tmp_path / "other", open_store(url, tmp_path), world)
    assert other.kernels == {}
    assert upload(run, made).state is KernelState.VALIDATING
    other.rescan()
    assert {role: other.read_library(made.artifact_id, role) for role in ROLES} == made.libraries


def test_nobody_connects_before_it_is_needed(tmp_path: Path, url: str) -> None:
    """A store that is away at the start is no reason not to train."""
    store = open_store(url, tmp_path)
    assert Unreliable.num_made == 0
    assert store.folders() == {}
    assert Unreliable.num_made == 1


def test_a_password_is_not_shown(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a message nor to clients, nor in what a backend says of its URL."""
    assert open_store("memory://me:secret@host/kernels", tmp_path).place == "memory://host/kernels"
    store = open_store(url.replace("://", "://me:secret@"), tmp_path)
    monkeypatch.setattr(Unreliable, "words", "no answer from https://me:secret@kernels/manifest.binpb")
    Unreliable.fails_at = 1
    with pytest.raises(EsperdError, match="no answer from https://") as caught:
        store.write("a", "manifest.binpb", [b"x"])
    assert "secret" not in caught.value.message


def test_a_listing_that_was_remembered(tmp_path: Path, url: str, world: World) -> None:
    """Each look is a new one: what another daemon has put there since is found."""
    first = library(tmp_path / "first", open_store(url, tmp_path), world)
    second = library(tmp_path / "second", open_store(url, tmp_path), world)
    offered(first, make())
    second.rescan()
    assert [kernel.state for kernel in second.kernels.values()] == [KernelState.OFFERED]
