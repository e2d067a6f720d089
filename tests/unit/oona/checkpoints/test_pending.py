"""A checkpoint appears whole or not at all, whatever the disk does and whenever the writer dies."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from esperd.leyline import failpoints
from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.store import CheckpointStore
from tests.unit.oona.checkpoints.samples import DRAFT, draft, write

PLACES = ("checkpoint.before_manifest", "checkpoint.before_rename", "checkpoint.after_rename")

KILLED = """
import os, sys
from pathlib import Path
from esperd.leyline import failpoints
from esperd.oona.checkpoints.store import CheckpointStore
from tests.unit.oona.checkpoints.samples import draft, write
store = CheckpointStore(Path(sys.argv[1]))
failpoints.set_hook(lambda name: os._exit(9) if name == sys.argv[2] else None)
write(store, draft(2))
"""

FULL = """
import sys
from pathlib import Path
from esperd.leyline.errors import EsperdError
from esperd.oona.checkpoints.store import CheckpointStore
from tests.unit.oona.checkpoints.samples import draft, write
store = CheckpointStore(Path(sys.argv[1]) / "checkpoints")
write(store, draft(1))
try:
    with store.begin("big") as pending, pending.file("model.safetensors") as file:
        file.write(bytes(4 << 20))
except EsperdError as error:
    print(error.reason, error.metadata["detail"], sep="|")
print([c.manifest.checkpoint_id for c in store.list()], store.verify(draft(1).checkpoint_id))
print([p.name for p in store.directory.iterdir() if p.name.startswith(".tmp-")])
write(store, draft(2))
print(len(store.list()))
"""


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged(directory: Path) -> Iterator[None]:
    """Root may write everywhere: be somebody else, who owns `directory`."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(directory, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def assert_untouched(store: CheckpointStore, checkpoint_id: str) -> None:
    assert [stored.manifest.checkpoint_id for stored in store.list()] == [checkpoint_id]
    assert store.verify(checkpoint_id) == ()
    assert not list(store.directory.glob(".tmp-*"))


def test_leaving_without_commit_takes_everything_away(store: CheckpointStore) -> None:
    """By an error or on purpose; a name can then be used again."""

    def fail(data: bytes) -> None:
        with store.begin(DRAFT.checkpoint_id) as pending, pending.file("state.json") as file:
            file.write(data)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail(b"{}")
    with store.begin(DRAFT.checkpoint_id) as pending, pending.file("state.json") as file:
        file.write(b"{}")
    assert store.list() == ()
    assert_untouched(store, write(store).manifest.checkpoint_id)


@pytest.mark.parametrize("limit", [0, 700])
def test_a_disk_that_refuses_costs_only_the_new_checkpoint(store: CheckpointStore, limit: int) -> None:
    """CHECKPOINT_FAILED with the system's own words, in the middle of a file and in the manifest alike."""
    write(store, draft(1))
    with file_size_limit(limit), pytest.raises(EsperdError) as caught:
        write(store, draft(2))
    assert caught.value.reason == "CHECKPOINT_FAILED"
    assert "File too large" in caught.value.metadata["detail"]
    assert_untouched(store, draft(1).checkpoint_id)


def test_a_manifest_that_does_not_fit_costs_only_the_new_checkpoint(store: CheckpointStore) -> None:
    """The files fit, the manifest does not."""
    write(store, draft(1))
    with store.begin(draft(2).checkpoint_id) as pending:
        with pending.file("state.json") as file:
            file.write(b"{}")
        with file_size_limit(300), pytest.raises(EsperdError) as caught:
            pending.commit(draft(2))
    assert "manifest.json" in caught.value.metadata["detail"]
    assert_untouched(store, draft(1).checkpoint_id)


def test_a_full_disk_is_called_so_and_costs_only_the_new_checkpoint(tmp_path: Path) -> None:
    """On a file system of 1 MiB: ENOSPC is "the disk is full", the space is given back, a smaller one fits again."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no private mount is allowed here")
    command = [unshare, "-rm", "sh", "-c", mount + ' && exec "$@"', "sh", sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "CHECKPOINT_FAILED|model.safetensors: the disk is full",
        f"['{draft(1).checkpoint_id}'] ()",
        "[]",
        "2",
    ]


def test_a_directory_without_permission_is_refused() -> None:
    """EACCES at beginning, at the rename and at removing is CHECKPOINT_FAILED; what is there stays."""
    with tempfile.TemporaryDirectory() as directory, unprivileged(Path(directory)):
        store = CheckpointStore(Path(directory) / "checkpoints")
        write(store, draft(1))
        for closed, acts in (
            (store.directory, (lambda: store.begin("next"), lambda: store.remove(draft(1).checkpoint_id))),
            (store.list()[0].path.parent, (lambda: write(store, draft(2)),)),
        ):
            closed.chmod(0o500)
            for act in acts:
                with pytest.raises(EsperdError, match="Permission denied") as caught:
                    act()
                assert caught.value.reason == "CHECKPOINT_FAILED"
            closed.chmod(0o700)
        assert_untouched(store, draft(1).checkpoint_id)


def test_a_directory_that_vanished_is_refused(store: CheckpointStore) -> None:
    """ENOENT at the first file system call is CHECKPOINT_FAILED."""
    shutil.rmtree(store.directory)
    with pytest.raises(EsperdError) as caught:
        store.begin("next")
    assert "No such file or directory" in caught.value.metadata["detail"]


def test_a_file_in_the_way_of_the_run_is_refused(store: CheckpointStore) -> None:
    """The rename fails, and nothing is left behind."""
    (store.directory / DRAFT.run_id).write_bytes(b"")
    with pytest.raises(EsperdError) as caught:
        write(store)
    assert caught.value.reason == "CHECKPOINT_FAILED"
    assert not list(store.directory.glob(".tmp-*"))


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_writer_leaves_the_last_one_untouched(tmp_path: Path, place: str) -> None:
    """Before the rename the new one does not exist, after it the new one is whole; the next owner sweeps the rest."""
    store = CheckpointStore(tmp_path)
    write(store, draft(1))
    store.release()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), place], timeout=60)
    assert done.returncode == 9
    store = CheckpointStore(tmp_path)
    expected = [draft(1), draft(2)] if place == "checkpoint.after_rename" else [draft(1)]
    assert [stored.manifest.checkpoint_id for stored in store.list()] == [d.checkpoint_id for d in expected]
    assert all(store.verify(d.checkpoint_id) == () for d in expected)
    assert not list(tmp_path.glob(".tmp-*"))
    write(store, draft(3))
    store.release()


def test_the_places_are_passed_in_order(store: CheckpointStore) -> None:
    """The manifest is not there before its place, and the checkpoint not before the rename."""
    seen = []

    def look(name: str) -> None:
        hidden = list(store.directory.glob(".tmp-*/manifest.json"))
        seen.append((name, len(hidden), len(store.list())))

    failpoints.set_hook(look)
    try:
        write(store)
    finally:
        failpoints.set_hook(None)
    assert seen == [(PLACES[0], 0, 0), (PLACES[1], 1, 0), (PLACES[2], 0, 1)]


def test_names_that_are_no_files_are_faults_of_the_caller(store: CheckpointStore) -> None:
    """A path, a hidden name, the manifest's own name; an id that is a path; a manifest of another checkpoint."""
    with store.begin("x") as pending:
        for name in ("a/b", "../a", ".a", "", "manifest.json", "GOOD"):
            with pytest.raises(ValueError):
                pending.file(name)
        with pytest.raises(ValueError):
            pending.commit(replace(DRAFT, checkpoint_id="y"))
    for checkpoint_id in ("a/b", "..", ".x", ""):
        with pytest.raises(ValueError):
            store.begin(checkpoint_id)
