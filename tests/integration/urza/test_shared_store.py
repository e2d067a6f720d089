"""Several processes on one store, a disk that is full."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import KernelState
from esperd.urza.store import open_store
from tests.integration.urza.neighbour import MADE
from tests.unit.urza.samples import ROLES, World, library, make, offered, upload

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_daemons_that_share_a_store(tmp_path: Path) -> None:
    """Without a lock: whoever reads gets whole kernels or none, and in the end everybody knows the same."""
    command = [sys.executable, "-m", "tests.integration.urza.neighbour", str(tmp_path)]
    workers = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    runs = [library(tmp_path / f"run{number}", open_store("", tmp_path / "store"), World()) for number in range(3)]
    for run in runs:
        run.rescan()  # the start of one of them may have finished an upload after another had looked
    stored = [{k for k, v in run.kernels.items() if v.is_stored} for run in runs]
    assert stored[0] == stored[1] == stored[2]
    for made in MADE:
        offered(runs[0], made)
        runs[1].rescan()
        assert {role: runs[1].read_library(made.artifact_id, role) for role in ROLES} == made.libraries
    for run in runs:
        run.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("full", ["run", "store"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, full: str) -> None:
    """The upload is refused, what was there stays whole, and it goes on when there is room."""
    small = make(1, 2_000)
    store = open_store("", (small_disk if full == "store" else tmp_path) / "store")
    run = library((small_disk if full == "run" else tmp_path) / "run", store, World(), max_kernel_bytes=1 << 20)
    offered(run, small)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 60_000)
    with pytest.raises(EsperdError) as caught:
        upload(run, MADE[0], 4096)
    assert caught.value.reason == "KERNEL_STORE_UNAVAILABLE"
    assert "No space left" in caught.value.message or "full" in caught.value.message
    assert run.verify(small.artifact_id) == ()
    assert run.kernels[MADE[0].artifact_id].state is KernelState.UPLOADING
    filler.unlink()
    assert upload(run, MADE[0], 4096).state is KernelState.VALIDATING
    assert {role: run.read_library(MADE[0].artifact_id, role) for role in ROLES} == MADE[0].libraries
    run.close()
