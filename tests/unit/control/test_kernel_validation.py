"""Kernels that wait for the validator."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import structlog

from esperd.config.settings import KernelSettings
from esperd.control.kernel_validation import ValidationQueue
from esperd.control.library_thread import LibraryThread
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelManifest, KernelReport
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import KernelState
from esperd.urza.stored import StoredKernel
from esperd.urza.validator_key import ValidatorKey
from tests.unit.urza.test_retention import kernel


class Stubborn:
    """A validator that has a fault with one kernel, the first times that it is asked."""

    def __init__(self, stubborn_id: str, fault: Exception, times: int) -> None:
        self._stubborn_id, self._fault, self._times = stubborn_id, fault, times
        self.asked: list[str] = []

    async def validate(self, folder: Path, manifest: KernelManifest, settings: KernelSettings) -> KernelReport:
        self.asked.append(manifest.artifact_id)
        if manifest.artifact_id == self._stubborn_id and self.asked.count(manifest.artifact_id) <= self._times:
            raise self._fault
        raise EsperdError("KERNEL_CORRUPT", artifact_id=manifest.artifact_id, detail="and that is that")


class Nothing:
    """A library whose work succeeds."""

    async def do(self, work: object) -> None:
        """Do it."""


async def asked(tmp_path: Path, fault: Exception) -> tuple[StoredKernel, StoredKernel, list[str]]:
    first, second = (replace(kernel(number, KernelState.VALIDATING)) for number in (0, 1))
    validator = Stubborn(first.artifact_id, fault, times=2)

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    queue = ValidationQueue(
        library=cast(LibraryThread, Nothing()),
        validator=validator,
        key=ValidatorKey("validator-0", Secret(b"s" * 32)),
        scratch=tmp_path,
        settings=KernelSettings,
        sleep=cast("Any", sleep),
        log=structlog.get_logger(),
    )
    queue.add(first)
    queue.add(second)
    while queue.num_waiting:
        await asyncio.sleep(0.001)
    await queue.close()
    return first, second, validator.asked


async def test_one_that_cannot_be_tried_lets_others_pass(tmp_path: Path) -> None:
    """Whether the validator or the store is at fault may depend on the kernel: it comes again after those that wait."""
    for fault in (ValueError("a fault"), EsperdError("KERNEL_REPORT_INVALID", detail="nothing was looked at")):
        first, second, order = await asked(tmp_path, fault)
        assert order == [first.artifact_id, second.artifact_id, first.artifact_id, first.artifact_id]
