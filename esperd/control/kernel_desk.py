"""Where kernels are taken in, judged, handed to seeds and let go: joins the library, the validator and the trainer.

Event loop only; what blocks is done by the library's thread. Everything that changes goes to the board, which clients
see, and what a person should know of becomes a notice.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import KernelSettings
from esperd.control.kernel_board import KernelBoard
from esperd.control.kernel_notices import kernel_notice
from esperd.control.kernel_rows import KernelRow
from esperd.control.kernel_swaps import KernelSwaps
from esperd.control.kernel_validation import ValidationQueue
from esperd.control.library_thread import LibraryThread
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import artifact_id_of
from esperd.leyline.kernels import KernelClosed, KernelDocuments, KernelLoaded, Signature
from esperd.leyline.verify import Verified
from esperd.leyline.views import NoticeEvent, Snapshot
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.library import Library
from esperd.urza.stored import Cause, CompilationReport, KernelChange, LibraryLimits, StoredKernel

PART_BYTES = 256 << 10
"""Of a library in one message of a download."""
MAX_DOWNLOADS = 8
"""At once: each holds a library in memory, which its reader may be slow to take. Others wait."""
MAX_FAULT_CHARS = 1000
"""Of what is kept of a kernel's fault: a native library may say much."""
TIDY_S = 60.0
"""How often quota and age are looked at, besides at each upload."""
DAY_S = 86_400.0

Tell = Callable[[str, str, str, Mapping[str, str]], None]
"""Makes a notice: kind, words, level and facts."""


@dataclass(frozen=True, slots=True)
class DownloadPart:
    """A part of one library."""

    role: KernelFileRole
    offset: int
    data: bytes


def limits_of(settings: KernelSettings) -> LibraryLimits:
    """What the library may hold."""
    return LibraryLimits(settings.quota_bytes, settings.keep_days * DAY_S, settings.max_kernel_bytes)


class KernelDesk:
    """The kernels of one daemon."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        board: KernelBoard,
        library: LibraryThread,
        validation: ValidationQueue | None,
        swaps: KernelSwaps,
        folders: tuple[Path, ...],
        settings: KernelSettings,
        tell: Tell,
        clock: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`folders` are those of local copies and of scratch copies; none, and no validation, without a library."""
        self._port = port
        self._board = board
        self._library = library
        self._validation = validation
        self._swaps = swaps
        self._folders = folders
        self.settings = settings
        """Those in force: a reload replaces them."""
        self._tell = tell
        self._clock = clock
        self._log = log
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)
        self._chores: set[asyncio.Task[Any]] = set()
        self._next_tidy_s = 0.0

    async def start(self) -> None:
        """Show what the library holds, and go on where an earlier start has stopped."""
        if not self._library.is_open:
            return
        local, scratch = self._folders
        library = self._library.library
        barred = [k.artifact_id for k in library.kernels.values() if k.state is KernelState.QUARANTINED]
        await asyncio.to_thread(_prepare, local, scratch, barred)
        self._board.compiles(*library.compilations.values())
        self._board.put(*library.kernels.values())
        self.look(self._port.snapshot())
        for kernel in library.kernels.values():
            if kernel.state is KernelState.VALIDATING and self._validation is not None:
                self._validation.add(kernel)
        self.rescan()

    def rescan(self) -> None:
        """Have everything in the store judged again, by the keys as they are now."""
        if self._library.is_open:
            self._begin(self._library.do(Library.rescan))

    def set_settings(self, settings: KernelSettings) -> None:
        """Put other limits in force."""
        self.settings = settings
        if self._library.is_open:
            self._library.library.set_limits(limits_of(settings))

    async def close(self) -> None:
        """Begin nothing more; what is being validated is so again at the next start."""
        self._swaps.close()
        if self._validation is not None:
            await self._validation.close()
        await self._library.close()
        self._board.feed.close("draining")

    # What clients ask for

    @property
    def stored_bytes(self) -> int:
        """Bytes that the library holds."""
        return self._library.library.stored_bytes if self._library.is_open else 0

    @property
    def quota_bytes(self) -> int:
        """Bytes that it may hold; 0 where there is none."""
        return self.settings.quota_bytes if self._library.is_open else 0

    @property
    def num_validating(self) -> int:
        """Kernels that are not judged yet."""
        return 0 if self._validation is None else self._validation.num_waiting

    async def compiles(
        self, variant_key: str, state: KernelState, attempt: int, detail: str, *, principal: str
    ) -> KernelRow:
        """Note what a compiler says of a wish. Raises EsperdError KERNEL_NOT_WANTED or KERNELS_DISABLED."""
        self._board.wish(variant_key)
        report = CompilationReport(variant_key, state, attempt, detail, principal, self._clock())
        await self._library.do(lambda library: library.report_compilation(report))
        self._board.compiles(report)
        row = self._board.wish(variant_key)
        if state is KernelState.COMPILE_FAILED:
            facts = {"variant_key": variant_key, "blueprint_id": row.variant.blueprint_id, "principal": principal}
            text = f"no kernel for {row.variant.blueprint_id}: attempt {attempt} to compile it failed: {detail}"
            self._tell("kernel.compile_failed", text, "warning", facts)
        return row

    async def create_upload(self, manifest: bytes, signature: Signature, by: Verified) -> StoredKernel:
        """Begin an upload, or find where it stands. Raises EsperdError."""
        if signature.key_id != by.key_id:
            detail = f"it is signed by {signature.key_id}, the upload by {by.key_id}"
            raise EsperdError("KERNEL_SIGNATURE_INVALID", artifact_id=artifact_id_of(manifest), detail=detail)
        in_use = self._in_use()
        return await self._library.do(lambda library: library.create_upload(manifest, signature, by.principal, in_use))

    async def add_chunk(self, artifact_id: str, role: KernelFileRole, offset: int, data: bytes) -> None:
        """Take a part of a library; it is durable when this returns. Raises EsperdError."""
        await self._library.do(lambda library: library.add_chunk(artifact_id, role, offset, data))

    async def finish_upload(self, artifact_id: str) -> StoredKernel:
        """The client has sent what it has: when that is all, the kernel is to be validated. Raises EsperdError."""
        return await self._library.do(lambda library: library.finish(artifact_id))

    def documents(self, artifact_id: str) -> KernelDocuments:
        """All that proves a kernel. Raises EsperdError KERNEL_UNKNOWN."""
        return self._library.library.find(artifact_id).documents

    async def read(self, artifact_id: str) -> AsyncGenerator[DownloadPart]:
        """The parts of a kernel's libraries, each library proven before its first part. Raises EsperdError.

        Close it: others may wait for their turn.
        """
        roles = sorted(self._library.library.find(artifact_id).manifest.files)
        async with self._downloads:
            for role in roles:
                data = await self._library.do(partial(Library.read_library, artifact_id=artifact_id, role=role))
                for offset in range(0, len(data), PART_BYTES):
                    yield DownloadPart(role, offset, data[offset : offset + PART_BYTES])

    async def verify(self, artifact_id: str) -> tuple[str, ...]:
        """What is wrong with a kernel's bytes and documents; corrupt ones are removed."""
        return await self._library.do(lambda library: library.verify(artifact_id))

    async def delete(self, artifact_id: str, reason: str, *, principal: str) -> KernelRow:
        """Remove a kernel. Raises EsperdError KERNEL_IN_USE."""
        row = self._board.artifact(artifact_id)
        if row.seed_ids or artifact_id in self._swaps.artifacts:
            seeds = ", ".join(map(str, row.seed_ids))
            detail = f"the seeds {seeds} run it" if seeds else "a seed is about to run it"
            raise EsperdError("KERNEL_IN_USE", artifact_id=artifact_id, detail=detail)
        words = f"deleted by {principal}{f': {reason}' if reason else ''}"
        in_use = self._in_use()
        self._swaps.forget(artifact_id)  # no seed is given it while its files go
        try:
            await self._library.do(lambda library: library.delete(artifact_id, words, in_use))
        except EsperdError:
            self._swaps.offered(artifact_id)
            raise
        return self._board.artifact(artifact_id)

    async def pin(self, artifact_id: str, *, pinned: bool) -> KernelRow:
        """Keep a kernel whatever quota and age say, or no longer."""
        await self._library.do(lambda library: library.pin(artifact_id, pinned))
        return self._board.artifact(artifact_id)

    # What the trainer tells

    def look(self, snapshot: Snapshot) -> None:
        """Take in the newest state of the run."""
        self._board.look(snapshot)
        self._swaps.look()

    def loaded(self, event: KernelLoaded) -> None:
        """A kernel was opened on the training side, or could not be."""
        self._swaps.loaded(event)
        if event.error_reason:
            self._refused(event)
            return
        self._board.set_resident(event.artifact_id, event.resident_bytes)
        self._swaps.look()

    def closed(self, event: KernelClosed) -> None:
        """A kernel has left the training side's memory."""
        self._board.set_resident(event.artifact_id, None)

    def noticed(self, event: NoticeEvent) -> None:
        """Something worth a line has happened in the run; a kernel that failed in a seed is never used again."""
        artifact_id = event.attributes.get("artifact_id", "")
        if event.kind == "kernel.failed" and artifact_id:
            self._quarantine(artifact_id, event.message)

    def tick(self) -> None:
        """Let time pass: quota, age, compilers that have gone silent."""
        now_s = self._clock()
        if now_s < self._next_tidy_s or not self._library.is_open:
            return
        self._next_tidy_s = now_s + TIDY_S
        self._board.tick()
        self._swaps.retry()
        self._begin(self._retain())

    # What the library tells

    def changed(self, change: KernelChange) -> None:
        """A kernel of the library is another than it was."""
        kernel = change.kernel
        self._board.put(kernel)
        notice = kernel_notice(change)
        if notice is not None:
            self._tell(*notice)
        if kernel.state is KernelState.VALIDATING and self._validation is not None:
            self._validation.add(kernel)
        elif kernel.state is KernelState.OFFERED and change.cause is not Cause.PIN:
            self._swaps.offered(kernel.artifact_id)
        elif kernel.state in (KernelState.QUARANTINED, KernelState.REMOVED):
            self._let_go(kernel.artifact_id)
        self._swaps.look()

    async def _retain(self) -> None:
        in_use, over = self._in_use(), self._over()

        def retain(library: Library) -> None:
            library.retain(in_use)
            for variant_key in over:
                library.forget_compilation(variant_key)

        await self._library.do(retain)
        library = self._library.library
        self._board.keep(library.kernels, library.compilations)

    def _over(self) -> list[str]:
        """Wishes that a compiler has spoken of, and that nobody has had for a day: runs come and go."""
        wishes, before_s = self._board.needs.wishes, self._clock() - DAY_S
        told = self._library.library.compilations.values()
        return [one.variant_key for one in told if one.variant_key not in wishes and one.update_unix_s < before_s]

    def _let_go(self, artifact_id: str) -> None:
        """No seed is given it any more, and none that has it loses it; its private copy goes with it."""
        self._swaps.forget(artifact_id)
        if self._validation is not None:
            self._validation.drop(artifact_id)
        if artifact_id not in self._in_use():
            self._port.close_kernel(artifact_id)
            self._begin(asyncio.to_thread(shutil.rmtree, self._folders[0] / artifact_id, ignore_errors=True))

    def _refused(self, event: KernelLoaded) -> None:
        """The training side could not open a kernel; which of its proofs failed decides what becomes of it."""
        self._log.warning("a kernel was not opened", artifact_id=event.artifact_id, error=event.detail)
        if event.error_reason == "KERNEL_UNLOADABLE":
            self._quarantine(event.artifact_id, event.detail)
            return
        self._swaps.forget(event.artifact_id)
        self._begin(asyncio.to_thread(shutil.rmtree, self._folders[0] / event.artifact_id, ignore_errors=True))
        self._begin(self._library.do(lambda library: library.verify(event.artifact_id)))

    def _quarantine(self, artifact_id: str, detail: str) -> None:
        self._swaps.forget(artifact_id)
        self._begin(self._library.do(lambda library: library.quarantine(artifact_id, detail[:MAX_FAULT_CHARS])))

    def _in_use(self) -> frozenset[str]:
        return frozenset(self._board.needs.users) | self._swaps.artifacts

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something that nobody waits for; its failure is logged."""
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _logged(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except EsperdError as error:
            if error.reason != "DRAINING":
                self._log.warning("work on kernels failed", error=error.message)


def _prepare(local: Path, scratch: Path, barred: Iterable[str]) -> None:
    """The run's private folders; what was left half done in the scratch folder is removed.

    So are copies of kernels that are never to be used again: a run that is resumed opens what lies there by itself.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    for artifact_id in barred:
        shutil.rmtree(local / artifact_id, ignore_errors=True)
    for folder in (local, scratch):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
