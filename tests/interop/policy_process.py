"""A policy under test: a process that writes one line for each thing that happens.

One event loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

EVENT_S = 60.0
"""How long a line may take to come."""


class PolicyProcess:
    """One running policy."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.complaints = ""

    async def until(self, start: str, times: int = 1) -> None:
        """Read until so many lines begin with these words."""
        async with asyncio.timeout(EVENT_S):
            while sum(line.startswith(start) for line in self.lines) < times:
                if not await self._read():
                    raise AssertionError(f"not {times} times {start!r}: {self.lines} {await self._stderr()}")

    async def end(self) -> int:
        """Read to the end; the exit status."""
        async with asyncio.timeout(EVENT_S):
            while await self._read():
                pass
            self.complaints = await self._stderr()
            return await self.process.wait()

    async def _read(self) -> bool:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if line:
            self.lines.append(line.decode().strip())
        return bool(line)

    async def _stderr(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@contextlib.asynccontextmanager
async def running(*command: str | Path, folder: Path | None = None) -> AsyncIterator[PolicyProcess]:
    """Run a policy, or another process, in a folder; it does not outlive the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=pipe, stderr=pipe, cwd=folder)
    try:
        yield PolicyProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
