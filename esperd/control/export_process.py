"""The process that exports a model: started for one caller, watched, its output kept within bounds, ended in time.

Event loop only. Torch, the task and the checkpoint's files are that process's affair; this knows its command line, the
file in which it says what came of it, and its last lines.
"""

import asyncio
import contextlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from esperd.leyline.errors import CATALOGUE, EsperdError

MAX_LINES = 40
MAX_LINE_BYTES = 2000
PRIORITY = 10
"""How far an export gives way to training, as `nice` counts."""
TERM_S = 5.0
"""Time for a process that is told to end, before it is killed."""
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file that was written."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """What an export wrote."""

    directory: str
    files: tuple[ExportedFile, ...]
    how_to_load: str


class ExportProcess:
    """Starts one export at a time."""

    def __init__(self, command: Sequence[str], log: structlog.stdlib.BoundLogger) -> None:
        """`command` is the program with its arguments up to the options of one export; empty: there is none."""
        self._command = command
        self._log = log
        self._running = ""
        self._task: asyncio.Task[ExportAnswer] | None = None
        self._is_closed = False

    async def run(self, checkpoint_id: str, options: Sequence[str]) -> ExportAnswer:
        """Export a checkpoint; a caller that is cancelled ends the process.

        Raises:
            EsperdError: EXPORT_BUSY, DRAINING, or what the process found.
        """
        if self._is_closed:
            raise EsperdError("DRAINING")
        if not self._command:
            raise EsperdError("EXPORT_FAILED", detail="this daemon was started without a configuration file")
        if self._running:
            raise EsperdError("EXPORT_BUSY", checkpoint_id=self._running)
        self._running = checkpoint_id
        self._task = asyncio.create_task(self._export(options))
        try:
            return await self._task
        except asyncio.CancelledError:
            if self._is_closed:  # it was not the caller who gave up
                raise EsperdError("DRAINING") from None
            raise
        finally:
            self._running, self._task = "", None

    async def close(self) -> None:
        """End the one that runs, and take no more."""
        self._is_closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _export(self, options: Sequence[str]) -> ExportAnswer:
        with tempfile.TemporaryDirectory(prefix="esperd-export-") as directory:
            answer = Path(directory) / "answer.json"
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *options,
                "--answer",
                str(answer),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # No look at the devices that train: a context of CUDA alone would take memory from them.
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,
            )
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, PRIORITY)
            self._log.info("export started", checkpoint_id=self._running, pid=process.pid)
            try:
                lines = await _last_lines(process)
                status = await process.wait()
            finally:
                await _end(process)
            self._log.info("export ended", checkpoint_id=self._running, status=status, last=lines[-1:] or "")
            return _read_answer(answer, status, lines)


async def _last_lines(process: asyncio.subprocess.Process) -> list[str]:
    """Everything it says, of which the end is kept."""
    assert process.stdout is not None
    lines: deque[bytes] = deque(maxlen=MAX_LINES)
    unfinished = b""
    while chunk := await process.stdout.read(_READ_BYTES):
        *whole, unfinished = (unfinished + chunk).split(b"\n")
        lines.extend(line[:MAX_LINE_BYTES] for line in whole)
        unfinished = unfinished[-MAX_LINE_BYTES:]
    lines.append(unfinished)
    return [text for line in lines if (text := line.decode(errors="replace").strip())]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that it is gone."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), TERM_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _read_answer(path: Path, status: int, lines: Sequence[str]) -> ExportAnswer:
    try:
        found: Any = json.loads(path.read_bytes())
        if found.get("reason") in CATALOGUE:
            raise EsperdError(found["reason"], **found["metadata"])
        files = tuple(ExportedFile(f["name"], f["num_bytes"], f["sha256"]) for f in found["files"])
        return ExportAnswer(found["directory"], files, found["how_to_load"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f": {lines[-1]}" if lines else ""
        detail = f"the process ended with status {status} and no answer{said}"
        raise EsperdError("EXPORT_FAILED", detail=detail) from error
