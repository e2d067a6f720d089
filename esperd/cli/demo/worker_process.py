"""The demo's end of a worker process: send a job, await its result.

Event loop of the demo. The process is started with the first job and kept for the next ones, since loading torch
takes longer than some arms.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from esperd.cli.demo.children import Child, child_environment
from esperd.cli.demo.results import RunResult


class WorkerProcess:
    """One worker; takes one job at a time."""

    def __init__(self, name: str, log: Path) -> None:
        self._name, self._log = name, log
        self._child: Child | None = None

    async def train(self, job: Mapping[str, Any]) -> RunResult:
        """Have one arm trained. Raises EsperdError RUN_FAILED when the worker breaks."""
        child = self._child or await self._start()
        stdin, stdout = child.process.stdin, child.process.stdout
        assert stdin is not None  # both are pipes, see _start
        assert stdout is not None
        stdin.write(json.dumps(job).encode() + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            await child.process.wait()
            raise child.failure(f"{self._name} ended early with status {child.process.returncode}")
        return RunResult(**json.loads(line))

    async def stop(self) -> None:
        """End the process."""
        if self._child is not None:
            await self._child.terminate()

    async def _start(self) -> Child:
        with self._log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "esperd.cli.demo.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                env=child_environment(),
                start_new_session=True,
            )
        self._child = Child(self._name, process, self._log)
        return self._child
