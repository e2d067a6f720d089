"""What waits for the validator: one kernel after the other is copied out, tried in a process of its own, and judged.

Event loop only. What the validator finds is signed here, under a key that no process that opens libraries ever sees.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from esperd.config.settings import KernelSettings
from esperd.control.library_thread import LibraryThread
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelManifest, KernelReport
from esperd.urabrask.validator import sign_report
from esperd.urza.stored import StoredKernel
from esperd.urza.validator_key import ValidatorKey

RETRY_S = 60.0
"""After a fault of the validator's own: it says nothing about the kernel, which is tried again."""
_PASSES_BY = ("KERNEL_STORE_UNAVAILABLE", "KERNEL_REPORT_INVALID")
"""The store, or the validator's process, could not be used."""


class Validates(Protocol):
    """Tries kernels."""

    async def validate(self, folder: Path, manifest: KernelManifest, settings: KernelSettings) -> KernelReport:
        """Run every trial on the kernel in a folder; what is wrong with it is in the report. May be cancelled."""


class ValidationQueue:
    """Kernels on their way from VALIDATING to OFFERED or QUARANTINED, one at a time."""

    def __init__(
        self,
        *,
        library: LibraryThread,
        validator: Validates,
        key: ValidatorKey,
        scratch: Path,
        settings: Callable[[], KernelSettings],
        sleep: Callable[[float], Awaitable[object]],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`scratch` is a private folder; `settings` gives the limits as they are now."""
        self._library = library
        self._validator = validator
        self._key = key
        self._scratch = scratch
        self._settings = settings
        self._sleep = sleep
        self._log = log
        self._waiting: dict[str, KernelManifest] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def num_waiting(self) -> int:
        """Kernels that are not judged yet."""
        return len(self._waiting)

    def add(self, kernel: StoredKernel) -> None:
        """Have a kernel tried, after those that wait already."""
        if self._is_closed:
            return
        self._waiting.setdefault(kernel.artifact_id, kernel.manifest)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="kernel validation")

    def drop(self, artifact_id: str) -> None:
        """A kernel need not be tried any more."""
        self._waiting.pop(artifact_id, None)

    async def close(self) -> None:
        """Stop; the kernel that is being tried is tried again at the next start."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while self._waiting:
            artifact_id, manifest = next(iter(self._waiting.items()))
            try:
                await self._judge(artifact_id, manifest)
            except EsperdError as error:
                if error.reason == "DRAINING":
                    return
                self._log.warning("a kernel could not be validated", artifact_id=artifact_id, error=error.message)
                if error.reason in _PASSES_BY:
                    await self._let_others_pass(artifact_id)
                    continue
            except Exception:  # noqa: BLE001 - logged whole; the kernel stays VALIDATING and is tried again
                self._log.exception("the validator has a fault; trying again", artifact_id=artifact_id)
                await self._let_others_pass(artifact_id)
                continue
            self._waiting.pop(artifact_id, None)

    async def _let_others_pass(self, artifact_id: str) -> None:
        """Try it again later, after those that wait: what stands in the way may be of this kernel alone."""
        await self._sleep(RETRY_S)
        if artifact_id in self._waiting:
            self._waiting[artifact_id] = self._waiting.pop(artifact_id)

    async def _judge(self, artifact_id: str, manifest: KernelManifest) -> None:
        folder = self._scratch / artifact_id
        await self._library.do(lambda library: library.copy_for_validation(artifact_id, folder))
        try:
            report = await self._validator.validate(folder, manifest, self._settings())
        finally:
            await asyncio.to_thread(partial(shutil.rmtree, folder, ignore_errors=True))
        data, signature = sign_report(self._key.key_id, self._key.secret, report)
        await self._library.do(lambda library: library.offer(artifact_id, data, signature))
