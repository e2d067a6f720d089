"""A kernel's folder on the local disk, from which its libraries are opened: made whole, private, never rewritten.

A worker thread; blocking. The system's loader remembers names, so a name stands for the same bytes for ever: libraries
are named by their digest. Knows nothing of whose word counts.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from esperd.leyline.kernel_documents import (
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    REPORT_NAME,
    REPORT_SIGNATURE_NAME,
    write_signature,
)
from esperd.leyline.kernels import KernelDocuments, KernelFile, KernelManifest
from esperd.leyline.vocabulary import KernelFileRole


def copy_kernel(
    manifest: KernelManifest,
    documents: KernelDocuments,
    library: Callable[[KernelFileRole], Iterator[bytes]],
    folder: Path,
) -> None:
    """Have a kernel's documents and libraries in a folder of mode 0700, files of mode 0400.

    What is there already and sound stays; only the documents are brought up to date. Nothing waits for the disk: the
    store has it durably, and a copy that a power cut has torn is not sound, so it is made again.

    Args:
        manifest: of the kernel.
        documents: as they are to lie there.
        library: gives a library in parts, and raises after the last unless they were the right bytes.
        folder: is there whole or not at all; its parent is made.

    Raises:
        OSError, and what `library` raises; nothing is then left.
    """
    files = _documents(documents)
    if folder.is_dir() and all(_is_sound(folder, file) for file in manifest.files.values()):
        for name, content in files.items():
            if not (folder / name).exists() or (folder / name).read_bytes() != content:
                _replace(folder / name, content)
        return
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(mode=0o700, parents=True)
        for role, file in manifest.files.items():
            _write(fresh / file.name, library(role))
        for name, content in files.items():
            _write(fresh / name, iter([content]))
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(path: Path, parts: Iterator[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as file:
        for part in parts:
            file.write(part)


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    _write(fresh, iter([content]))
    fresh.replace(path)


def _documents(documents: KernelDocuments) -> dict[str, bytes]:
    files = {
        MANIFEST_NAME: documents.manifest,
        MANIFEST_SIGNATURE_NAME: write_signature(documents.manifest_signature),
    }
    if documents.report_signature is not None:
        files[REPORT_NAME] = documents.report
        files[REPORT_SIGNATURE_NAME] = write_signature(documents.report_signature)
    return files


def _is_sound(folder: Path, file: KernelFile) -> bool:
    try:
        with (folder / file.name).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    except FileNotFoundError:
        return False
