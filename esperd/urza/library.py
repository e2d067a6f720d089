"""The library of kernels: what there is, what comes in, what is offered, what goes.

What it inherits from `Contents` to read is for any thread, the event loop's too. Every method that is written here
works on files, perhaps over a network: call it on a worker thread, one call at a time (an executor of one thread).
Knows neither gRPC nor torch nor who calls.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.kernel_documents import read_manifest
from esperd.leyline.kernels import KernelDocuments, KernelManifest, Signature
from esperd.leyline.vocabulary import KernelFileRole, KernelState
from esperd.urza.catalogue import Catalogue
from esperd.urza.contents import Contents
from esperd.urza.holdings import Holdings
from esperd.urza.retention import MAX_KERNELS, crowding, forgettable, leaving
from esperd.urza.shelf import CorruptKernelError, Shelf, corrupt, proven
from esperd.urza.store import Store, unavailable
from esperd.urza.stored import Cause, LibraryLimits, StoredKernel
from esperd.urza.trust import KernelTrust
from esperd.urza.uploads import PartFiles, missing_part

CATALOGUE_NAME = "catalogue.sqlite"
UPLOADS_NAME = "uploads"
_SWEEP_AGE_S = 86_400.0
"""What is half-written in the store for so long has no writer any more."""
_USE_RESOLUTION_S = 60.0
"""A use is not noted again so soon."""
_WHY = {
    Cause.QUOTA: "the library was full, and it was not used for longest",
    Cause.AGE: "nobody has used it for as long as kernels are kept",
    Cause.ABANDONED: "nobody went on with its upload",
}


class Library(Contents):
    """Open from its making until `close`. Call `rescan` next: until then it knows only what it knew at the last start.

    Every method here raises EsperdError KERNEL_STORE_UNAVAILABLE when the files cannot be used; nothing is then half
    done that the next call does not take up again. Those that take an artifact id raise KERNEL_UNKNOWN, and where they
    need the kernel's files KERNEL_NOT_OFFERED when those are not here.
    """

    def __init__(
        self, directory: Path, store: Store, trust: KernelTrust, limits: LibraryLimits, clock: Callable[[], float]
    ) -> None:
        """Open the catalogue: blocking, but on local files only.

        Args:
            directory: of this run alone: catalogue and uploads.
            store: where kernels lie; other daemons may use it too.
            trust: whose word counts.
            limits: what it may hold.
            clock: seconds since 1970.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unavailable(str(directory), error) from error
        super().__init__(Catalogue(directory / CATALOGUE_NAME, clock()))
        self._shelf = Shelf(store)
        self._trust = trust
        self._clock = clock
        self._limits = limits
        self._holdings = Holdings(self, self._shelf, trust, clock)
        self._parts = PartFiles(directory / UPLOADS_NAME)

    @property
    def place(self) -> str:
        """Where the kernels lie, for people. Any thread."""
        return self._shelf.place

    @property
    def limits(self) -> LibraryLimits:
        """What it may hold. Any thread."""
        return self._limits

    def set_limits(self, limits: LibraryLimits) -> None:
        """Change what it may hold; `retain` acts by it. Any thread."""
        self._limits = limits

    def rescan(self) -> None:
        """Look at all that lies in the store, and judge it by the keys as they are now.

        For the start, after a reload of the key ring, and now and then when others use the same store. What somebody
        else put there is then known; what is gone, or is not what its digest says, is REMOVED; uploads whose last byte
        had come are finished.
        """
        self._parts.sweep([k.artifact_id for k in self.kernels.values() if k.state is KernelState.UPLOADING])
        self._shelf.sweep(self._clock() - _SWEEP_AGE_S)
        self._holdings.refresh_all()
        for kernel in self.query(KernelState.UPLOADING):
            try:
                self.finish(kernel.artifact_id)
            except EsperdError as error:
                if error.reason != "KERNEL_CORRUPT":  # which is told as a change
                    raise

    def create_upload(
        self, manifest: bytes, signature: Signature, principal: str, in_use: Collection[str] = ()
    ) -> StoredKernel:
        """Begin an upload, or go on with one: its `progress` says where. A kernel that is there is given as it is.

        Args:
            manifest: exact bytes, whose fields were held against the contract's bounds.
            signature: over them.
            principal: who sends it.
            in_use: artifact ids that seeds use: they are not removed to make room.

        Raises:
            EsperdError: KERNEL_MANIFEST_INVALID, KERNEL_SIGNATURE_INVALID, KERNEL_QUOTA.
        """
        documents = KernelDocuments(manifest, signature)
        parsed = read_manifest(manifest)
        self._trust.check_manifest(documents)
        known = self._lying(parsed.artifact_id, signature, principal)
        if known is None or known.state is KernelState.REMOVED:
            return self._begin(parsed, documents, principal, in_use)
        if known.state is KernelState.UPLOADING and not self._is_signed(known):
            self.put(replace(known, documents=documents, principal=principal), Cause.UPLOAD)
        return self.finish(known.artifact_id)

    def add_chunk(self, artifact_id: str, role: KernelFileRole, offset: int, data: bytes) -> StoredKernel:
        """Take a part of a library; it is durable on return. What is there already is passed over.

        Raises:
            EsperdError: KERNEL_UPLOAD_UNKNOWN, KERNEL_UPLOAD_GAP, KERNEL_CORRUPT when it is longer than its library.
        """
        kernel = self.kernels.get(artifact_id)
        if kernel is None or kernel.state is KernelState.REMOVED:
            raise EsperdError("KERNEL_UPLOAD_UNKNOWN", artifact_id=artifact_id)
        begin, missing = missing_part(kernel, role, offset, data)
        if not missing:
            return kernel
        self._parts.write(artifact_id, role, begin, missing)
        failpoint("upload.before_row")
        return self.receive(kernel, role, begin + len(missing), self._clock())

    def finish(self, artifact_id: str) -> StoredKernel:
        """Put a kernel of which every byte has come into the store; one that misses some is given as it is.

        Call it when a client has sent what it has.

        Raises:
            EsperdError: KERNEL_CORRUPT when the bytes are not those that the manifest names: what has come is dropped.
        """
        kernel = self.find(artifact_id)
        if kernel.state is not KernelState.UPLOADING or not kernel.is_complete:
            return kernel
        try:
            for role in kernel.manifest.files:
                _drain(self._received(kernel, role))  # before the first byte of any goes into the store
            self._shelf.put(kernel.manifest, kernel.documents, lambda role: self._received(kernel, role))
        except CorruptKernelError as error:
            self._end(kernel, Cause.CORRUPT, f"what was uploaded is something else: {error}")
            raise corrupt(artifact_id, error) from error
        failpoint("upload.before_finished_row")
        stored = self._holdings.store(kernel, Cause.UPLOAD)
        self._parts.drop(artifact_id)
        return stored

    def offer(self, artifact_id: str, report: bytes, signature: Signature) -> StoredKernel:
        """Take the validator's report: the kernel is then OFFERED, or QUARANTINED when the report says so.

        Raises:
            EsperdError: KERNEL_REPORT_INVALID.
        """
        kernel = self._present(artifact_id)
        self._trust.read_report(replace(kernel.documents, report=report, report_signature=signature))
        self._shelf.put_report(kernel.artifact_id, report, signature)
        failpoint("library.before_offered_row")
        return self._reread(kernel, Cause.VALIDATED)

    def quarantine(self, artifact_id: str, reason: str) -> StoredKernel:
        """Never let it be used again, here or by others who share the store: somebody found a fault in it."""
        kernel = self._present(artifact_id)
        self._shelf.mark_fault(kernel.artifact_id, reason, self._clock())
        return self._reread(kernel, Cause.FAULT)

    def pin(self, artifact_id: str, pinned: bool) -> StoredKernel:
        """Keep a kernel whatever quota and age say, or no longer; for all who share the store."""
        kernel = self._present(artifact_id)
        self._shelf.pin(kernel.artifact_id, pinned)
        return self._reread(kernel, Cause.PIN)

    def verify(self, artifact_id: str) -> tuple[str, ...]:
        """Read everything of a kernel again; what is not what it must be, one line each. What is corrupt is removed."""
        kernel = self._reread(self._present(artifact_id), Cause.FOUND)
        if kernel.is_stored:
            try:
                for role in kernel.manifest.files:
                    self.read_library(kernel.artifact_id, role)
            except EsperdError as error:
                if error.reason != "KERNEL_CORRUPT":
                    raise
                return (error.metadata["detail"],)
        # One that has a fault, by its report or in use, lies here as it must.
        is_faulty = kernel.state is KernelState.QUARANTINED and self._is_signed(kernel)
        return (kernel.detail,) if kernel.detail and not is_faulty else ()

    def delete(self, artifact_id: str, reason: str, in_use: Collection[str] = ()) -> StoredKernel:
        """Remove a kernel, or an upload, whatever its state. Raises EsperdError KERNEL_IN_USE."""
        kernel = self.find(artifact_id)
        if kernel.artifact_id in in_use:
            raise EsperdError("KERNEL_IN_USE", artifact_id=kernel.artifact_id, detail="a seed runs it")
        return kernel if kernel.state is KernelState.REMOVED else self._end(kernel, Cause.DELETED, reason)

    def retain(self, in_use: Collection[str]) -> None:
        """Note which kernels are in use, remove what quota and age let go, and forget what has long been gone."""
        now_unix_s = self._clock()
        for artifact_id in in_use:
            used = self.kernels.get(artifact_id)
            if used is not None and now_unix_s - used.last_use_unix_s >= _USE_RESOLUTION_S:
                self.keep(replace(used, last_use_unix_s=now_unix_s))
        for kernel, cause in leaving(self.kernels.values(), self._limits, in_use, now_unix_s):
            self._end(kernel, cause, _WHY[cause])
        for kernel in forgettable(self.kernels.values(), now_unix_s):
            self.forget(kernel.artifact_id)

    def open_local_copy(self, artifact_id: str, folder: Path) -> StoredKernel:
        """Have an OFFERED kernel in a private local folder, its digests compared, for a seed that is to use it.

        Raises:
            EsperdError: KERNEL_NOT_OFFERED; KERNEL_CORRUPT when it is not what its manifest says: it is then removed.
        """
        kernel = self.find(artifact_id)
        if kernel.state is not KernelState.OFFERED:
            raise _not_offered(kernel)
        self._holdings.copy(kernel, folder)
        return self.note_use(kernel, self._clock())

    def copy_for_validation(self, artifact_id: str, folder: Path) -> StoredKernel:
        """The same of a kernel in any state, for the validator."""
        kernel = self._present(artifact_id)
        self._holdings.copy(kernel, folder)
        return kernel

    def read_library(self, artifact_id: str, role: KernelFileRole) -> bytes:
        """The bytes of one library, digest compared. Raises EsperdError KERNEL_CORRUPT, and it is removed."""
        kernel = self._present(artifact_id)
        return self._holdings.read_sound(kernel, lambda: b"".join(self._shelf.library(kernel.manifest, role)))

    def _begin(
        self, manifest: KernelManifest, documents: KernelDocuments, principal: str, in_use: Collection[str]
    ) -> StoredKernel:
        needed, now_unix_s = manifest.num_bytes, self._clock()
        if needed > self._limits.max_kernel_bytes:
            raise _quota(needed, f"one may have {self._limits.max_kernel_bytes} bytes")
        given_up, too_many = crowding(self.kernels.values(), principal, now_unix_s)
        if too_many:
            raise _quota(needed, too_many)
        if given_up is not None:
            self._end(given_up, Cause.ABANDONED, _WHY[Cause.ABANDONED])
        going = leaving(self.kernels.values(), self._limits, in_use, now_unix_s, needed)
        if sum(kernel.state is not KernelState.REMOVED for kernel in self.kernels.values()) - len(going) >= MAX_KERNELS:
            raise _quota(needed, f"{MAX_KERNELS} kernels are pinned, in use, or coming in")
        room = self._limits.quota_bytes - self.stored_bytes + sum(kernel.num_bytes for kernel, _ in going)
        if needed > room:
            raise _quota(needed, f"{max(room, 0)} bytes are left beside what is pinned, in use, or coming in")
        for kernel, cause in going:
            self._end(kernel, cause, _WHY[cause])
        begun = StoredKernel(
            manifest=manifest,
            documents=documents,
            state=KernelState.UPLOADING,
            create_unix_s=now_unix_s,
            update_unix_s=now_unix_s,
            last_use_unix_s=now_unix_s,
            principal=principal,
        )
        return self.put(begun, Cause.UPLOAD)

    def _lying(self, artifact_id: str, signature: Signature, principal: str) -> StoredKernel | None:
        """The kernel as it lies in the store or is known; a signature that counts replaces one that does not."""
        kernel = self._holdings.refresh(artifact_id, Cause.FOUND, principal)
        if kernel is not None and kernel.is_stored and not self._is_signed(kernel):
            self._shelf.put_manifest_signature(artifact_id, signature)
            kernel = self._holdings.refresh(artifact_id, Cause.UPLOAD, principal)
        return kernel

    def _is_signed(self, kernel: StoredKernel) -> bool:
        try:
            self._trust.check_manifest(kernel.documents)
        except EsperdError:
            return False
        return True

    def _received(self, kernel: StoredKernel, role: KernelFileRole) -> Iterator[bytes]:
        return proven(self._parts.read(kernel.artifact_id, role), kernel.manifest.files[role])

    def _present(self, artifact_id: str) -> StoredKernel:
        kernel = self.find(artifact_id)
        if not kernel.is_stored:
            raise _not_offered(kernel)
        return kernel

    def _reread(self, kernel: StoredKernel, cause: Cause) -> StoredKernel:
        return self._holdings.refresh(kernel.artifact_id, cause) or kernel

    def _end(self, kernel: StoredKernel, cause: Cause, detail: str) -> StoredKernel:
        ended = self._holdings.end(kernel, cause, detail)
        self._parts.drop(kernel.artifact_id)
        return ended


def _drain(parts: Iterator[bytes]) -> None:
    for _ in parts:
        pass


def _not_offered(kernel: StoredKernel) -> EsperdError:
    detail = kernel.detail or "its files are not all here"
    return EsperdError("KERNEL_NOT_OFFERED", artifact_id=kernel.artifact_id, state=kernel.state.name, detail=detail)


def _quota(num_bytes: int, detail: str) -> EsperdError:
    return EsperdError("KERNEL_QUOTA", num_bytes=num_bytes, detail=detail)
