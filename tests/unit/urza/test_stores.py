"""What every store promises."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.urza.local_store import HIDDEN
from esperd.urza.store import Store, open_store, read_whole
from tests.unit.urza.samples import NOW_UNIX_S


def test_what_is_written_is_read(store: Store) -> None:
    """Bytes, sizes, folders; another writing replaces the first."""
    assert store.folders() == {}
    assert store.files("a") == {}
    store.write("a", "one", [b"x" * 10, b"", b"y"])
    store.write("a", "one", [b"abc", b"de"])
    store.write("a", "empty", [])
    store.write("b", "two", [b"z"])
    assert read_whole(store, "a", "one") == b"abcde"
    assert read_whole(store, "a", "empty") == b""
    assert store.files("a") == {"one": 5, "empty": 0}
    assert store.folders() == {"a": {"one": 5, "empty": 0}, "b": {"two": 1}}


def test_what_is_removed_is_gone(store: Store) -> None:
    """A file, a folder; removing what is not there is nothing."""
    store.write("a", "one", [b"1"])
    store.write("a", "two", [b"2"])
    store.remove_file("a", "one")
    store.remove_file("a", "one")
    assert store.files("a") == {"two": 1}
    store.remove("a", "two")
    store.remove("a", "two")
    assert store.folders() == {}
    with pytest.raises(FileNotFoundError):
        read_whole(store, "a", "two")


def test_a_writing_that_fails_leaves_what_was_there(store: Store) -> None:
    """Whole or not at all."""
    store.write("a", "one", [b"old"])

    def torn() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        store.write("a", "one", torn())
    assert read_whole(store, "a", "one") == b"old"
    assert store.files("a") == {"one": 3}


def test_large_files_come_in_parts(store: Store) -> None:
    """Nothing is held in memory whole that need not be."""
    store.write("a", "large", [bytes(1 << 20)] * 3)
    parts = list(store.read("a", "large"))
    assert sum(map(len, parts)) == 3 << 20
    assert max(map(len, parts)) <= 1 << 20


def test_sweep_takes_what_was_never_finished(store: Store, tmp_path: Path) -> None:
    """A folder without its manifest, and only when nobody can be writing it any more."""
    store.write("half", "library", [b"1"])
    store.write("whole", "library", [b"1"])
    store.write("whole", "manifest", [b"1"])
    store.sweep("manifest", 0.0)
    assert set(store.folders()) == {"half", "whole"}
    store.sweep("manifest", 1e12)
    assert set(store.folders()) == {"whole"}


def test_a_torn_file_is_not_seen_and_swept(tmp_path: Path) -> None:
    """What a killed writer left beside a file counts for nothing."""
    store = open_store("", tmp_path)
    store.write("a", "manifest", [b"1"])
    torn = tmp_path / "a" / f"{HIDDEN}1-1-library"
    torn.write_bytes(b"to")
    os.utime(torn, (NOW_UNIX_S, NOW_UNIX_S))
    assert store.files("a") == {"manifest": 1}
    store.sweep("manifest", NOW_UNIX_S + 1)
    assert not torn.exists()


def test_only_its_user_may_read_a_directory(tmp_path: Path) -> None:
    """Folders 0700, files 0400."""
    store = open_store("", tmp_path / "store")
    store.write("a", "one", [b"1"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").rglob("*")}
    assert modes == {"a": 0o700, "one": 0o400}


def test_where_a_store_is(tmp_path: Path) -> None:
    """A path, a file URL, another URL without its password, or the default."""
    assert open_store("", tmp_path / "own").place == str(tmp_path / "own")
    assert open_store(str(tmp_path / "set"), tmp_path).place == str(tmp_path / "set")
    assert open_store(f"file://{tmp_path}/url", tmp_path).place == f"{tmp_path}/url"
    assert open_store("memory://kernels/of/all", tmp_path).place == "memory://kernels/of/all"


def test_a_store_that_nothing_here_can_open(tmp_path: Path) -> None:
    """A protocol that is unknown, or whose package is missing, is told at the start."""
    with pytest.raises(EsperdError) as caught:
        open_store("nothing-like-it://host/path", tmp_path)
    assert caught.value.reason == "KERNEL_STORE_UNAVAILABLE"


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """The catalogue's error names the place."""
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / "file" / "store"), tmp_path)
    for use in (store.folders, lambda: store.write("a", "one", [b"1"])):
        with pytest.raises(EsperdError, match="file/store") as caught:
            use()
        assert caught.value.reason == "KERNEL_STORE_UNAVAILABLE"
