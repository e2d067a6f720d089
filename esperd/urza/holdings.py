"""Keeps what the library knows and what lies in the store the same: judges, copies, removes.

One worker thread; blocking, perhaps on a network. What is corrupt on any read is quarantined, told and removed. Knows
nothing of uploads' parts nor of quota.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.kernels import KernelDocuments
from esperd.leyline.vocabulary import KernelState
from esperd.urza.contents import Contents
from esperd.urza.local_copy import copy_kernel
from esperd.urza.shelf import CorruptKernelError, Shelf, Shelved, corrupt
from esperd.urza.store import unavailable
from esperd.urza.stored import Cause, StoredKernel
from esperd.urza.trust import KernelTrust
from esperd.urza.verdict import judge

AnswerT = TypeVar("AnswerT")


class Holdings:
    """The kernels in a store, as one library knows them."""

    def __init__(self, contents: Contents, shelf: Shelf, trust: KernelTrust, clock: Callable[[], float]) -> None:
        self._contents = contents
        self._shelf = shelf
        self._trust = trust
        self._clock = clock

    def refresh_all(self) -> None:
        """Judge everything that lies in the store; what is no longer there is REMOVED."""
        present = self._shelf.kernels()
        for artifact_id, files in present.items():
            self._refresh(artifact_id, files, "", Cause.FOUND)
        for kernel in self._contents.kernels.values():
            if kernel.is_stored and kernel.artifact_id not in present:
                self._gone(kernel)

    def refresh(self, artifact_id: str, cause: Cause, principal: str = "") -> StoredKernel | None:
        """Judge a kernel by what lies in the store now; None when neither it nor its memory is there."""
        files = self._shelf.files(artifact_id)
        known = self._contents.kernels.get(artifact_id)
        if files:
            return self._refresh(artifact_id, files, principal, cause)
        return self._gone(known) if known is not None and known.is_stored else known

    def store(self, kernel: StoredKernel, cause: Cause) -> StoredKernel:
        """Keep a kernel whose files have just come to lie in the store, judged by its documents."""
        return self._judged(kernel, kernel.documents, "", cause)

    def end(self, kernel: StoredKernel, cause: Cause, detail: str) -> StoredKernel:
        """Remove a kernel's files from the store, if they are there, and know it as REMOVED."""
        if not kernel.is_stored:
            return self._removed(kernel, cause, detail)
        if cause is Cause.CORRUPT:
            # Whatever becomes of its files: it is not used from here on.
            kernel = replace(kernel, state=KernelState.QUARANTINED, detail=detail, update_unix_s=self._clock())
            self._contents.put(kernel, cause)
        self._shelf.remove(kernel.artifact_id)
        failpoint("library.before_removed_row")
        return self._removed(kernel, cause, detail)

    def copy(self, kernel: StoredKernel, folder: Path) -> None:
        """Have a kernel in a private local folder.

        Raises:
            EsperdError: KERNEL_CORRUPT, and it is removed; KERNEL_STORE_UNAVAILABLE, also for the folder's disk.
        """

        def copy() -> None:
            manifest = kernel.manifest
            copy_kernel(manifest, kernel.documents, lambda role: self._shelf.library(manifest, role), folder)

        try:
            self.read_sound(kernel, copy)
        except OSError as error:
            raise unavailable(str(folder), error) from error

    def read_sound(self, kernel: StoredKernel, read: Callable[[], AnswerT]) -> AnswerT:
        """What `read` reads of a kernel; it is read twice before it is called corrupt.

        Raises:
            EsperdError: KERNEL_CORRUPT, and it is removed.
        """
        try:
            try:
                return read()
            except CorruptKernelError:
                return read()
        except CorruptKernelError as error:
            self.end(kernel, Cause.CORRUPT, str(error))
            raise corrupt(kernel.artifact_id, error) from error
        except FileNotFoundError as error:
            self._gone(kernel)
            raise corrupt(kernel.artifact_id, "its files are no longer in the store") from error

    def _refresh(self, artifact_id: str, files: Mapping[str, int], principal: str, cause: Cause) -> StoredKernel | None:
        known = self._contents.kernels.get(artifact_id)
        try:
            shelved = self._read(artifact_id, files)
        except FileNotFoundError:
            return self._gone(known) if known is not None and known.is_stored else known
        except CorruptKernelError as error:
            if known is not None and known.is_stored:
                return self.end(known, Cause.CORRUPT, str(error))
            self._shelf.remove(artifact_id)
            return known
        except EsperdError as error:
            if error.reason != "KERNEL_MANIFEST_INVALID":
                raise
            return known  # a sound manifest of another version of the contract: not this daemon's to remove
        if known is None or not known.is_stored:
            known = self._found(shelved, principal or (known.principal if known else ""))
        return self._judged(replace(known, pinned=shelved.pinned), shelved.documents, shelved.fault, cause)

    def _read(self, artifact_id: str, files: Mapping[str, int]) -> Shelved:
        try:
            return self._shelf.read(artifact_id, files, self._trust.validator_ids)
        except CorruptKernelError:
            return self._shelf.read(artifact_id, files, self._trust.validator_ids)

    def _found(self, shelved: Shelved, principal: str) -> StoredKernel:
        """What has come into the store, by this daemon or another one, since it was last looked at."""
        now_unix_s = self._clock()
        return StoredKernel(
            manifest=shelved.manifest,
            documents=shelved.documents,
            state=KernelState.UNSPECIFIED,
            create_unix_s=now_unix_s,
            update_unix_s=now_unix_s,
            last_use_unix_s=now_unix_s,
            principal=principal or self._trust.principal_of(shelved.documents.manifest_signature.key_id),
        )

    def _judged(self, kernel: StoredKernel, documents: KernelDocuments, fault: str, cause: Cause) -> StoredKernel:
        verdict = judge(documents, fault, self._trust)
        known = self._contents.kernels.get(kernel.artifact_id)
        judged = replace(
            kernel,
            state=verdict.state,
            detail=verdict.detail,
            documents=verdict.documents,
            report=verdict.report,
            received=(),
        )
        if judged == known:
            return known
        if verdict.state is not kernel.state:
            judged = replace(judged, update_unix_s=self._clock())
        return self._contents.put(judged, cause)

    def _gone(self, kernel: StoredKernel) -> StoredKernel:
        return self._removed(kernel, Cause.MISSING, "its files are no longer in the store")

    def _removed(self, kernel: StoredKernel, cause: Cause, detail: str) -> StoredKernel:
        gone = replace(
            kernel,
            state=KernelState.REMOVED,
            detail=detail,
            pinned=False,
            received=(),
            update_unix_s=self._clock(),
        )
        return self._contents.put(gone, cause)
