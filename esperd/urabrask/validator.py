"""Tries out uploaded kernels, one after the other, and writes the reports on them.

Event loop only; files are copied and removed on worker threads. The process that opens a kernel has no key: what it
measured is judged and signed here. A validation survives nothing: after a restart of the daemon it begins again.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from esperd.config.settings import KernelSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import REPORT_DOMAIN, sign_document, write_report
from esperd.leyline.kernels import KernelManifest, KernelReport, Signature
from esperd.leyline.secret import Secret
from esperd.urabrask.judge import began, judge
from esperd.urabrask.process import COMMAND, run


class Validator:
    """Validates one kernel at a time; whoever asks meanwhile waits for their turn."""

    def __init__(
        self,
        unix_s: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Date reports by `unix_s`; `command` is the program that tries kernels out."""
        self._unix_s = unix_s
        self._log = log
        self._command = command
        self._turn = asyncio.Lock()

    async def validate(self, folder: Path, manifest: KernelManifest, settings: KernelSettings) -> KernelReport:
        """Try out the kernel whose manifest, its signature and libraries lie in the folder.

        A cancelled caller ends the process. A kernel that is slow, wrong, or the end of the process is no error: the
        report says so.

        Args:
            folder: laid out as a kernel's directory is (`kernel_documents`); it is only read. While it lasts, the
                process has a directory of its own beside it.
            manifest: the one in it.
            settings: limits as they are now.

        Raises:
            EsperdError: KERNEL_REPORT_INVALID when the process ended before it looked at the kernel.
        """
        async with self._turn:
            own = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="trial-", dir=folder.parent))
            try:
                return await self._validate(folder, manifest, settings, own)
            finally:
                await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)

    async def _validate(
        self, folder: Path, manifest: KernelManifest, settings: KernelSettings, own: Path
    ) -> KernelReport:
        order = {
            "folder": str(folder.absolute()),
            "artifact_id": manifest.artifact_id,
            "memory_bytes": settings.validation_memory_bytes,
            "cpu_s": settings.validation_timeout_s,
            "num_steps": settings.validation_steps,
        }
        self._log.info("validation started", artifact_id=manifest.artifact_id)
        try:
            ending = await run(order, own, settings.validation_timeout_s, command=self._command)
        except OSError as error:
            raise EsperdError("KERNEL_REPORT_INVALID", detail=f"the validator cannot be started: {error}") from error
        if not began(ending):
            said = f": {ending.last_words.splitlines()[-1]}" if ending.last_words else ""
            detail = f"the validator's process looked at nothing, {ending.words}{said}"
            raise EsperdError("KERNEL_REPORT_INVALID", detail=detail)
        report = judge(manifest, ending, settings, self._unix_s())
        failed = [check.name for check in report.checks if not check.passed]
        self._log.info(
            "validation ended", artifact_id=manifest.artifact_id, band=report.hazard_band.name, failed=failed
        )
        return report


def sign_report(key_id: str, secret: Secret, report: KernelReport) -> tuple[bytes, Signature]:
    """The bytes of a report, to be kept exactly as they are, and the validator's signature over them."""
    document = write_report(report)
    return document, Signature(key_id, sign_document(secret.reveal(), REPORT_DOMAIN, document))
