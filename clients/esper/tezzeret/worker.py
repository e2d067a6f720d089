"""Compiles one kernel in a process of its own, so that whatever a compiler does, the service stays.

The loop thread of `esper tezzeret serve`. The process (`child.py`) gets its order as a file and leaves its answer as a
file beside it; it is limited in time and memory, runs at low priority, and is killed with all that it has started.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esper.tezzeret.queue import Job

ORDER_NAME = "order.json"
ANSWER_NAME = "answer.json"
LOG_NAME = "log.txt"
KERNEL_NAME = "kernel"
"""In the directory of a job: what is asked, what came of it, all that was printed meanwhile, and the kernel."""
CACHE_NAME = "cache"
"""What torch's compiler keeps between compilations; grows by some 1.5 MB each."""
CHILD = "esper.tezzeret.child"
MAX_DETAIL_CHARS = 1000
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What one compilation may take."""

    timeout_s: float = 600.0
    memory_bytes: int = 8 << 30
    """Of private memory, for each process of it; 0 sets no limit."""
    niceness: int = 10
    """Added to the priority number: training goes first."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel was made."""

    artifact_id: str
    folder: Path
    """Holds its manifest and its libraries."""


@dataclass(frozen=True, slots=True)
class Failure:
    """No kernel was made."""

    detail: str
    is_final: bool = False
    """Whether no other attempt of this process can fare better."""


class Worker:
    """Compiles jobs below a work directory."""

    def __init__(self, work_dir: Path, limits: Limits, *, child: str = CHILD) -> None:
        """`child` is the module that is run for each job."""
        self._work_dir = work_dir
        self._limits = limits
        self._child = child

    def folder(self, variant_key: str) -> Path:
        """The directory of a job."""
        return self._work_dir / "jobs" / variant_key

    def kernel_folder(self, variant_key: str) -> Path:
        """Where the kernel of a job lies once it is compiled."""
        return self.folder(variant_key) / KERNEL_NAME

    def clear(self, variant_key: str) -> None:
        """Remove the directory of a job."""
        shutil.rmtree(self.folder(variant_key), ignore_errors=True)

    def clear_all_but(self, keys: frozenset[str]) -> None:
        """Remove what an earlier start left behind: the directories of all other jobs, and torch's cache."""
        shutil.rmtree(self._work_dir / CACHE_NAME, ignore_errors=True)
        root = self._work_dir / "jobs"
        for path in root.iterdir() if root.is_dir() else ():
            if path.name not in keys:
                shutil.rmtree(path, ignore_errors=True)

    async def compile(self, job: Job) -> Compiled | Failure:
        """Compile a job; a cancellation kills the process and all that it has started.

        Raises:
            OSError: the work directory cannot be written.
        """
        folder = self._prepared(job)
        with (folder / LOG_NAME).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._child, str(folder), stdin=asyncio.subprocess.DEVNULL, stdout=log,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True, env=_environment(self._work_dir, folder),
            )  # fmt: skip
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                status = await process.wait()
        except TimeoutError:
            return Failure(f"it was not done after {self._limits.timeout_s:g} s")
        finally:
            # The group outlives its leader where that was killed: a C++ compiler may still be at work.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            shutil.rmtree(folder / "tmp", ignore_errors=True)
        return _outcome(folder, status)

    def _prepared(self, job: Job) -> Path:
        self.clear(job.variant_key)
        folder = self.folder(job.variant_key)
        (folder / "tmp").mkdir(parents=True)
        order = {
            "variant": base64.b64encode(job.variant).decode(),
            "hint_batch": job.hint_batch,
            "strategy": job.strategy,
            "memory_bytes": self._limits.memory_bytes,
            "niceness": self._limits.niceness,
            "parent_id": os.getpid(),
        }
        (folder / ORDER_NAME).write_text(json.dumps(order))
        return folder


def _environment(work_dir: Path, folder: Path) -> Mapping[str, str]:
    """That of this process, with all temporary files below the job's directory."""
    return {
        **os.environ,
        "TMPDIR": str(folder / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(work_dir / CACHE_NAME),
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


def _outcome(folder: Path, status: int) -> Compiled | Failure:
    answer = _answer(folder / ANSWER_NAME)
    if answer is None:
        return Failure(f"{_ending(status)}: {_last_words(folder / LOG_NAME)}")
    if "artifact_id" in answer:
        return Compiled(str(answer["artifact_id"]), folder / KERNEL_NAME)
    return Failure(str(answer.get("detail", ""))[:MAX_DETAIL_CHARS], is_final=bool(answer.get("is_final")))


def _answer(path: Path) -> dict[str, object] | None:
    """What the process answered, None when it ended without an answer."""
    try:
        found: dict[str, object] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found


def _ending(status: int) -> str:
    if status >= 0:
        return f"the compiling process left with {status}"
    return f"the compiling process was ended by {signal.Signals(-status).name}"


def _last_words(path: Path) -> str:
    """The last line of a log."""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return told[-1][:MAX_DETAIL_CHARS] if told else "it printed nothing"
