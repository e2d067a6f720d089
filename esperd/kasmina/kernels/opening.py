"""Opening a kernel: everything about it is proven before its libraries, which are code, come into the process.

Loader thread, or the training thread while it catches up. The order of trust: read the bytes, digests, signatures and
report, the machine, and only then open. No pickle, no compiler and no Python code is on this path.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any, Protocol

import torch

from esperd.kasmina.kernels.kernel import Kernel, Runner
from esperd.kasmina.kernels.machine import Machine
from esperd.kasmina.kernels.native import held_open
from esperd.leyline import kernel_documents
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelDocuments, KernelFile, KernelManifest


class Trust(Protocol):
    """Who says whether a kernel's documents may be relied on."""

    def check(self, documents: KernelDocuments) -> None:
        """Raise EsperdError (KERNEL_SIGNATURE_INVALID, KERNEL_REPORT_INVALID ...) unless they may."""
        ...


def open_kernel(folder: Path, trust: Trust, machine: Machine, *, device: torch.device | None = None) -> Kernel:
    """Prove and open the kernel whose documents and libraries lie in a folder that nobody else can write to.

    Args:
        folder: as `kernel_documents` names its files, libraries by `KernelFile.name`.
        trust: judges the documents.
        machine: the facts of this process.
        device: where it will run; the machine's first one when not given.

    Raises:
        EsperdError: KERNEL_MANIFEST_INVALID, KERNEL_CORRUPT, KERNEL_MISFIT, KERNEL_UNLOADABLE, or what trust raises.
            No library has been opened then, save for KERNEL_UNLOADABLE.
    """
    documents = read_documents(folder)
    manifest = kernel_documents.read_manifest(documents.manifest)
    for file in manifest.files.values():
        _check_bytes(folder, manifest, file)
    trust.check(documents)
    _check_machine(manifest, machine)
    report = kernel_documents.read_report(documents.report) if documents.report else None
    device = torch.device(machine.device_type) if device is None else device
    # Read by the library at its first run: shapes, strides and dtypes of what it is given are checked, in about 2 us.
    os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"
    try:
        runners = {role: _opened(folder / file.name, device) for role, file in manifest.files.items()}
    except (RuntimeError, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EsperdError("KERNEL_UNLOADABLE", artifact_id=manifest.artifact_id, detail=detail) from error
    return Kernel(manifest, report, runners, device)


def read_documents(folder: Path) -> KernelDocuments:
    """The documents in a kernel's folder, unproven; without a report where there is none.

    Raises:
        EsperdError: KERNEL_MANIFEST_INVALID or KERNEL_REPORT_INVALID when they cannot be read.
    """
    try:
        manifest = (folder / kernel_documents.MANIFEST_NAME).read_bytes()
        signature = (folder / kernel_documents.MANIFEST_SIGNATURE_NAME).read_bytes()
        documents = KernelDocuments(manifest, kernel_documents.read_signature(signature))
    except (OSError, ValueError) as error:
        raise EsperdError("KERNEL_MANIFEST_INVALID", detail=error) from None
    try:
        report = (folder / kernel_documents.REPORT_NAME).read_bytes()
        signature = (folder / kernel_documents.REPORT_SIGNATURE_NAME).read_bytes()
        return KernelDocuments(
            manifest, documents.manifest_signature, report, kernel_documents.read_signature(signature)
        )
    except FileNotFoundError:
        return documents
    except (OSError, ValueError) as error:
        raise EsperdError("KERNEL_REPORT_INVALID", detail=error) from None


def _check_bytes(folder: Path, manifest: KernelManifest, file: KernelFile) -> None:
    try:
        data = (folder / file.name).read_bytes()
    except OSError as error:
        detail = f"{file.name} cannot be read: {error.strerror}"
        raise EsperdError("KERNEL_CORRUPT", artifact_id=manifest.artifact_id, detail=detail) from None
    if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), file.sha256):
        detail = f"{file.name} has another SHA-256"
        raise EsperdError("KERNEL_CORRUPT", artifact_id=manifest.artifact_id, detail=detail)


def _check_machine(manifest: KernelManifest, machine: Machine) -> None:
    pairs = ((name, getattr(manifest.variant, name), getattr(machine, name)) for name in Machine.__slots__)
    wrong = [f"{name} is {is_}, this process has {must}" for name, is_, must in pairs if is_ != must]
    if wrong:
        raise EsperdError("KERNEL_MISFIT", artifact_id=manifest.artifact_id, detail="; ".join(wrong))


def _opened(path: Path, device: torch.device) -> Runner:
    """Open one library. Its name is its content: an open library keeps its name for good.

    The system opens it first, in a call that lets other threads run: torch's own call keeps the interpreter to itself,
    some milliseconds that training would wait, and then finds the library open.
    """
    with held_open(path):  # if it does not open, torch says why
        return _runner(path, device)


def _runner(path: Path, device: torch.device) -> Runner:
    aoti: Any = torch._C._aoti
    runner: Runner
    if device.type == "cuda":
        # Called from one thread only, so that no call has to wait for an event of the one before.
        runner = aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device), str(path.parent), True)
    else:
        runner = aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    return runner
