"""The parts of libraries that are coming in: plain files, each flushed to the disk before a byte counts as received.

A worker thread; blocking. How much of a file counts is the catalogue's to know: what a cut left beyond that is written
again. Knows neither signatures nor the store.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.private_files import sync_directory
from esperd.leyline.vocabulary import KernelFileRole
from esperd.urza.store import PART_BYTES, unavailable
from esperd.urza.stored import StoredKernel


class PartFiles:
    """One directory, with a folder for each upload."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, artifact_id: str, role: KernelFileRole, offset: int, data: bytes) -> None:
        """Write bytes at their place, durably. Raises EsperdError KERNEL_STORE_UNAVAILABLE."""
        path = self._path(artifact_id, role)
        try:
            is_new = not path.exists()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _write_all(descriptor, data, offset)
                failpoint("upload.before_fsync")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                sync_directory(path.parent)
                sync_directory(self._directory)
        except OSError as error:
            raise unavailable(str(self._directory), error) from error

    def read(self, artifact_id: str, role: KernelFileRole) -> Iterator[bytes]:
        """What has come of a library, in parts; nothing when its file is gone. Raises EsperdError."""
        try:
            with self._path(artifact_id, role).open("rb", buffering=0) as file:
                while part := file.read(PART_BYTES):
                    yield part
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(str(self._directory), error) from error

    def drop(self, artifact_id: str) -> None:
        """Remove what has come of a kernel."""
        shutil.rmtree(self._directory / artifact_id, ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        """Remove what belongs to no upload. Raises EsperdError KERNEL_STORE_UNAVAILABLE."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                if path.name not in known:
                    shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            raise unavailable(str(self._directory), error) from error

    def _path(self, artifact_id: str, role: KernelFileRole) -> Path:
        return self._directory / artifact_id / f"{role.name.lower()}.part"


def missing_part(kernel: StoredKernel, role: KernelFileRole, offset: int, data: bytes) -> tuple[int, bytes]:
    """Where the bytes of a chunk that are not there yet begin, and those bytes; none when all are there.

    Raises:
        EsperdError: KERNEL_UPLOAD_GAP when bytes before it are missing; KERNEL_CORRUPT when it is longer than the
            manifest says.
    """
    part = next((part for part in kernel.progress if part.role is role), None)
    if part is None or offset + len(data) > part.num_bytes:
        size = f"{part.num_bytes} bytes" if part else "no such library"
        raise EsperdError(
            "KERNEL_CORRUPT", artifact_id=kernel.artifact_id, detail=f"a chunk ends at byte {offset + len(data)} of "
            f"{role.name}; the manifest says {size}",
        )  # fmt: skip
    if offset > part.num_received:
        raise EsperdError("KERNEL_UPLOAD_GAP", offset=offset, role=role.name, num_received=part.num_received)
    return part.num_received, data[part.num_received - offset :]


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        num_written = os.pwrite(descriptor, view, offset)
        view, offset = view[num_written:], offset + num_written
