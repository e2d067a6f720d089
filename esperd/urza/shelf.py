"""A kernel's folder in the store: what lies in it, under which names, and whether it is what its digests say.

A worker thread; blocking. Each validator's report has a file of its own, named by its key: daemons that share a store
do not overwrite each other's. Knows nothing of whose word counts.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.kernel_documents import (
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    artifact_id_of,
    read_manifest,
    read_signature,
    write_signature,
)
from esperd.leyline.kernels import KernelDocuments, KernelFile, KernelManifest, Signature
from esperd.leyline.vocabulary import KernelFileRole
from esperd.urza.store import Store, read_whole

FAULT_NAME = "fault.json"
"""There once somebody found a fault in the kernel: nobody who shares the store uses it."""
PIN_NAME = "pinned"
MAX_DOCUMENT_BYTES = 1 << 20
"""No document is larger; a larger file in its place is not read into memory."""
_ARTIFACT_ID = re.compile(r"[0-9a-f]{64}")


class CorruptKernelError(Exception):
    """A kernel's files are not what they must be; the text says how."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A kernel's documents as they lie in the store."""

    manifest: KernelManifest
    documents: KernelDocuments
    """With the report of the first of the asked validators that has one."""
    fault: str
    """Why nobody may use it; empty when no fault is known."""
    pinned: bool


class Shelf:
    """Kernels in a store. Methods raise EsperdError KERNEL_STORE_UNAVAILABLE when it cannot be used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self._store.place

    def kernels(self) -> dict[str, dict[str, int]]:
        """The files, with their sizes, of each kernel that is wholly there, by artifact id."""
        folders = self._store.folders()
        return {name: files for name, files in folders.items() if _ARTIFACT_ID.fullmatch(name) and _is_whole(files)}

    def files(self, artifact_id: str) -> dict[str, int]:
        """The files of one kernel; none unless it is wholly there."""
        files = self._store.files(artifact_id)
        return files if _is_whole(files) else {}

    def sweep(self, before_unix_s: float) -> None:
        """Remove what was half-written, or half-removed, before a time."""
        self._store.sweep(MANIFEST_NAME, before_unix_s)

    def put(
        self,
        manifest: KernelManifest,
        documents: KernelDocuments,
        library: Callable[[KernelFileRole], Iterator[bytes]],
    ) -> None:
        """Put a kernel in; it is there when the manifest is, which comes last."""
        for role, file in sorted(manifest.files.items()):
            self._store.write(manifest.artifact_id, file.name, library(role))
            failpoint("shelf.library_written")
        self.put_manifest_signature(manifest.artifact_id, documents.manifest_signature)
        failpoint("shelf.before_manifest")
        self._store.write(manifest.artifact_id, MANIFEST_NAME, [documents.manifest])

    def put_manifest_signature(self, artifact_id: str, signature: Signature) -> None:
        """Replace the signature of the manifest."""
        self._store.write(artifact_id, MANIFEST_SIGNATURE_NAME, [write_signature(signature)])

    def put_report(self, artifact_id: str, report: bytes, signature: Signature) -> None:
        """Write the report of a validator, in place of the one that it wrote before.

        Cut in between, the two files do not match: there is then no report, and the kernel is validated again.
        """
        self._store.write(artifact_id, f"report-{signature.key_id}.sig.json", [write_signature(signature)])
        self._store.write(artifact_id, f"report-{signature.key_id}.binpb", [report])

    def mark_fault(self, artifact_id: str, reason: str, unix_s: float) -> None:
        """Say to everybody who shares the store that it has a fault."""
        content = json.dumps({"reason": reason, "unix_s": unix_s}) + "\n"
        self._store.write(artifact_id, FAULT_NAME, [content.encode()])

    def pin(self, artifact_id: str, pinned: bool) -> None:
        """Keep it whatever quota and age say, or no longer."""
        if pinned:
            self._store.write(artifact_id, PIN_NAME, [b"pinned\n"])
        else:
            self._store.remove_file(artifact_id, PIN_NAME)

    def remove(self, artifact_id: str) -> None:
        """Remove a kernel."""
        self._store.remove(artifact_id, MANIFEST_NAME)

    def read(self, artifact_id: str, files: Mapping[str, int], validator_ids: tuple[str, ...]) -> Shelved:
        """A kernel's documents; of its libraries the names and sizes only.

        Args:
            artifact_id: its name.
            files: sizes of its files by name.
            validator_ids: whose reports count.

        Raises:
            CorruptKernelError: a document or a library is not what it must be.
            FileNotFoundError: it has been removed meanwhile.
        """
        data = self._document(artifact_id, files, MANIFEST_NAME)
        if artifact_id_of(data) != artifact_id:
            raise CorruptKernelError(f"{MANIFEST_NAME} has the digest {artifact_id_of(data)}")
        manifest = read_manifest(data)
        for file in manifest.files.values():
            if files.get(file.name) != file.num_bytes:
                raise CorruptKernelError(f"{file.name} has {files.get(file.name, 'no')} bytes, not {file.num_bytes}")
        try:
            signature = read_signature(self._document(artifact_id, files, MANIFEST_SIGNATURE_NAME))
        except ValueError as error:
            raise CorruptKernelError(f"{MANIFEST_SIGNATURE_NAME}: {error}") from error
        report, report_signature = self._report(artifact_id, files, validator_ids)
        return Shelved(
            manifest,
            KernelDocuments(data, signature, report, report_signature),
            self._fault(artifact_id, files),
            PIN_NAME in files,
        )

    def library(self, manifest: KernelManifest, role: KernelFileRole) -> Iterator[bytes]:
        """A library in parts; use none of them before the last has come, since only then its digest is known.

        Raises:
            CorruptKernelError: after the last part: these were not the bytes that the manifest names.
            FileNotFoundError: it is not there.
        """
        file = manifest.files[role]
        return proven(self._store.read(manifest.artifact_id, file.name), file)

    def _report(
        self, artifact_id: str, files: Mapping[str, int], validator_ids: tuple[str, ...]
    ) -> tuple[bytes, Signature | None]:
        for key_id in validator_ids:
            names = (f"report-{key_id}.binpb", f"report-{key_id}.sig.json")
            if all(name in files for name in names):
                report, signature = (self._document(artifact_id, files, name) for name in names)
                try:
                    return report, read_signature(signature)
                except ValueError:
                    continue  # as good as none: the kernel is validated again
        return b"", None

    def _document(self, artifact_id: str, files: Mapping[str, int], name: str) -> bytes:
        num_bytes = files.get(name, 0)
        if num_bytes > MAX_DOCUMENT_BYTES:
            raise CorruptKernelError(f"{name} has {num_bytes} bytes")
        return read_whole(self._store, artifact_id, name)

    def _fault(self, artifact_id: str, files: Mapping[str, int]) -> str:
        if FAULT_NAME not in files:
            return ""
        content = self._document(artifact_id, files, FAULT_NAME)
        try:
            return str(json.loads(content)["reason"]) or "a fault"
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"{FAULT_NAME} cannot be read"


def proven(parts: Iterator[bytes], file: KernelFile) -> Iterator[bytes]:
    """The same parts; after the last CorruptKernelError unless they were the bytes that a manifest names."""
    digest, num_bytes = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        num_bytes += len(part)
        yield part
    if (digest.hexdigest(), num_bytes) != (file.sha256, file.num_bytes):
        raise CorruptKernelError(f"{file.name} has {num_bytes} bytes with the digest {digest.hexdigest()}")


def _is_whole(files: Mapping[str, int]) -> bool:
    return MANIFEST_NAME in files


def corrupt(artifact_id: str, detail: object) -> EsperdError:
    """The catalogue's error for a kernel whose files are not what its manifest says."""
    return EsperdError("KERNEL_CORRUPT", artifact_id=artifact_id, detail=detail)
