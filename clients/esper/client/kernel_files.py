"""A compiled kernel as it lies in a directory: manifest, its signature and the libraries, read and written.

Any thread; blocks on the disk. `esper tezzeret compile` writes such a directory, `upload_kernel` reads it, and
`download_kernel` writes it again: `manifest.binpb`, `manifest.sig.json` (`{"key_id": ..., "hmac": hex}`), and each
library under a name that holds the SHA-256 of its bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from esper.client.errors import LeylineError, local_error
from esper.leyline.v1 import kernel_service_pb2 as kernel_pb
from esper.leyline.v1.kernel_pb2 import KernelFile, KernelFileRole, KernelManifest, KernelSignature

MANIFEST_NAME = "manifest.binpb"
MANIFEST_SIGNATURE_NAME = "manifest.sig.json"
REPORT_NAME = "report.binpb"
REPORT_SIGNATURE_NAME = "report.sig.json"
CHUNK_BYTES = 192 << 10
"""Bytes of a library in one message; the contract allows 262144."""


def file_name(file: KernelFile) -> str:
    """What a library is called wherever it lies: the same name never stands for other bytes."""
    role = KernelFileRole.Name(file.role).removeprefix("KERNEL_FILE_ROLE_").lower()
    return f"{role}-{file.sha256.hex()}.so"


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """A compiled kernel."""

    manifest: bytes
    """The exact bytes; their SHA-256 names the kernel."""
    signature: KernelSignature | None
    """Under the compiler's key; None when nobody has signed it yet."""
    paths: Mapping[KernelFileRole, Path]
    """Each library."""

    @property
    def artifact_id(self) -> str:
        """The kernel's name."""
        return hashlib.sha256(self.manifest).hexdigest()

    @classmethod
    def read(cls, directory: Path | str) -> "KernelFiles":
        """Read a directory. Raises LeylineError KERNEL_FOLDER_INVALID, naming what is wrong."""
        folder = Path(directory)
        manifest = _read(folder / MANIFEST_NAME)
        try:
            files = KernelManifest.FromString(manifest).files
        except DecodeError:
            raise _invalid(folder, f"{MANIFEST_NAME} is no manifest") from None
        paths = {file.role: folder / file_name(file) for file in files}
        missing = [path.name for path in paths.values() if not path.is_file()]
        if missing:
            raise _invalid(folder, f"{missing[0]} is missing")
        path = folder / MANIFEST_SIGNATURE_NAME
        return cls(manifest, _read_signature(path) if path.exists() else None, paths)

    def check(self) -> None:
        """Compare each library with the manifest. Raises LeylineError KERNEL_FOLDER_INVALID, naming what has changed.

        The daemon compares what it is sent; what it has already it is not sent.
        """
        for file in KernelManifest.FromString(self.manifest).files:
            path = self.paths[file.role]
            if hashlib.sha256(_read(path)).digest() != file.sha256:
                raise _invalid(path.parent, f"{path.name} is not what the manifest says")

    def chunks(self, progress: Iterable[kernel_pb.UploadProgress]) -> Iterator[kernel_pb.UploadChunk]:
        """What the daemon has not got, in order. Raises LeylineError KERNEL_FOLDER_INVALID."""
        for part in progress:
            data = _read(self.paths[part.role])
            for offset in range(part.num_received, part.num_bytes, CHUNK_BYTES):
                piece = data[offset : offset + CHUNK_BYTES]
                yield kernel_pb.UploadChunk(artifact_id=self.artifact_id, role=part.role, offset=offset, data=piece)


class KernelFolder:
    """A directory that a kernel is written into; each library is there under its name once it is whole and right."""

    def __init__(self, directory: Path | str, found: kernel_pb.GetKernelResponse) -> None:
        """Write what proves the kernel. Raises LeylineError KERNEL_FOLDER_INVALID when its manifest is none."""
        self._folder = Path(directory)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._files = {file.role: file for file in KernelManifest.FromString(found.manifest).files}
        except DecodeError:
            raise _invalid(self._folder, "the daemon's manifest is none") from None
        (self._folder / MANIFEST_NAME).write_bytes(found.manifest)
        self._write_signature(MANIFEST_SIGNATURE_NAME, found.manifest_signature)
        if found.report:
            (self._folder / REPORT_NAME).write_bytes(found.report)
            self._write_signature(REPORT_SIGNATURE_NAME, found.report_signature)
        for file in self._files.values():
            self._part(file).unlink(missing_ok=True)

    def write(self, part: kernel_pb.DownloadKernelResponse) -> None:
        """Add a part of a library; parts of one come in order."""
        file = self._files.get(part.role)
        if file is None:
            raise _invalid(self._folder, "the daemon sent a library that the manifest does not name")
        with self._part(file).open("ab") as target:
            if target.tell() != part.offset:
                raise _invalid(self._folder, f"a part of {file_name(file)} is missing")
            target.write(part.data)

    def finish(self) -> KernelFiles:
        """Compare every library with the manifest and give it its name. Raises KERNEL_FOLDER_INVALID."""
        for file in self._files.values():
            part = self._part(file)
            if not part.exists() or hashlib.sha256(part.read_bytes()).digest() != file.sha256:
                raise _invalid(self._folder, f"{file_name(file)} is not what the manifest says")
            part.rename(self._folder / file_name(file))
        return KernelFiles.read(self._folder)

    def _part(self, file: KernelFile) -> Path:
        return self._folder / f"{file_name(file)}.part"

    def _write_signature(self, name: str, signature: KernelSignature) -> None:
        text = json.dumps({"key_id": signature.key_id, "hmac": signature.hmac.hex()})
        (self._folder / name).write_text(text + "\n")


def _read_signature(path: Path) -> KernelSignature:
    try:
        content = json.loads(_read(path))
        return KernelSignature(key_id=content["key_id"], hmac=bytes.fromhex(content["hmac"]))
    except (ValueError, KeyError, TypeError):
        raise _invalid(path.parent, f"{path.name} is no signature") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(path.parent, f"{path.name}: {error.strerror or error}") from error


def _invalid(folder: Path, detail: str) -> LeylineError:
    return local_error("KERNEL_FOLDER_INVALID", path=folder, detail=detail)
