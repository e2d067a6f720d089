"""One compilation in a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from esper.client.kernel_files import KernelFiles
from esper.leyline.v1.kernel_pb2 import KernelVariant
from esper.tezzeret.queue import Job, Stage
from esper.tezzeret.worker import Compiled, Failure, Limits, Worker

CHILD = "tests.unit.tezzeret.small_child"


def job(what: str) -> Job:
    variant = KernelVariant(blueprint_id=what).SerializeToString()
    return Job("k" * 64, variant, what, 8, 0, Stage.COMPILING, "standard", 1, 0, 0, 0.0, "", "")


def worker(tmp_path: Path, *, timeout_s: float = 60.0, memory_bytes: int = 0) -> Worker:
    return Worker(tmp_path, Limits(timeout_s, memory_bytes), child=CHILD)


def is_running(process_id: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE)
    return False


async def written(path: Path) -> int:
    """The number that a process has written."""
    while not path.exists() or not path.read_text():
        await asyncio.sleep(0.01)
    return int(path.read_text())


def ends(process_id: int) -> None:
    """Wait for the end of somebody else's process."""
    deadline_s = time.monotonic() + 20
    while is_running(process_id):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


async def test_a_kernel_is_made(tmp_path: Path) -> None:
    """The process runs at low priority, keeps its temporary files to itself, and its answer names the kernel."""
    made = await worker(tmp_path).compile(job("succeed"))
    assert isinstance(made, Compiled)
    assert made.folder == tmp_path / "jobs" / ("k" * 64) / "kernel"
    assert KernelFiles.read(made.folder).artifact_id == made.artifact_id
    told = json.loads((tmp_path / "jobs" / ("k" * 64) / "answer.json").read_text())
    assert told["niceness"] == min(19, os.nice(0) + 10)
    assert Path(told["tmp"]).is_relative_to(tmp_path)
    assert not Path(told["tmp"]).exists()


async def test_a_refusal_is_told(tmp_path: Path) -> None:
    """What the compiler says comes back in its words."""
    assert await worker(tmp_path).compile(job("refuse")) == Failure("no such blueprint", is_final=True)


async def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    """A process that is ended by a signal costs one attempt; the signal and the last line of its log are told."""
    failure = await worker(tmp_path).compile(job("die"))
    assert failure == Failure("the compiling process was ended by SIGABRT: a last word")


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """A process that takes more than it may fails, and the machine keeps its memory."""
    failure = await worker(tmp_path, memory_bytes=1 << 30).compile(job("grow"))
    assert failure == Failure("the compiling process left with 1: MemoryError")


async def test_time_is_bounded(tmp_path: Path) -> None:
    """After its time it is killed with all that it has started."""
    folder = tmp_path / "jobs" / ("k" * 64)
    compiling = asyncio.create_task(worker(tmp_path, timeout_s=5.0).compile(job("hang")))
    compiler = await written(folder / "compiler")
    assert await compiling == Failure("it was not done after 5 s")
    ends(compiler)
    assert not is_running(int((folder / "pid").read_text()))


async def test_a_cancellation_leaves_nothing(tmp_path: Path) -> None:
    """A service that is asked to leave takes its processes with it."""
    folder = tmp_path / "jobs" / ("k" * 64)
    compiling = asyncio.create_task(worker(tmp_path).compile(job("hang")))
    compiler = await written(folder / "compiler")
    compiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compiling
    ends(compiler)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_killed_service_takes_its_process_along(tmp_path: Path) -> None:
    """A compiling process does not outlive a service that was killed."""
    code = (
        "import asyncio, sys; from pathlib import Path; "
        "from tests.unit.tezzeret.test_worker import job, worker; "
        "asyncio.run(worker(Path(sys.argv[1])).compile(job('hang')))"
    )
    service = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    folder = tmp_path / "jobs" / ("k" * 64)
    try:
        compiler = asyncio.run(asyncio.wait_for(written(folder / "compiler"), 60))
    finally:
        service.kill()
        service.wait()
    ends(int((folder / "pid").read_text()))
    os.kill(compiler, signal.SIGKILL)


async def test_what_an_earlier_start_left_is_removed(tmp_path: Path) -> None:
    """Only directories of jobs that are still to be delivered stay."""
    compiling = worker(tmp_path)
    for key in ("old", "kept"):
        compiling.folder(key).mkdir(parents=True)
    compiling.clear_all_but(frozenset({"kept"}))
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["kept"]
