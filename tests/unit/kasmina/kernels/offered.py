"""Kernels as the loop side hands them over: in a private folder, signed, reported on; and who judges them."""

import shutil
from pathlib import Path

from esperd.leyline import kernel_documents
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import MANIFEST_DOMAIN, REPORT_DOMAIN, artifact_id_of, is_signed, sign_document
from esperd.leyline.kernels import KernelDocuments, KernelReport, Signature
from esperd.leyline.vocabulary import HandlingClass, HazardBand

COMPILER, VALIDATOR = b"c" * 32, b"v" * 32


class Witness:
    """Trusts the two keys of these tests."""

    def check(self, documents: KernelDocuments) -> None:
        artifact_id = artifact_id_of(documents.manifest)
        if not is_signed(COMPILER, MANIFEST_DOMAIN, documents.manifest, documents.manifest_signature.hmac):
            raise EsperdError("KERNEL_SIGNATURE_INVALID", artifact_id=artifact_id, detail="other bytes")
        signature = documents.report_signature
        if signature is None or not is_signed(VALIDATOR, REPORT_DOMAIN, documents.report, signature.hmac):
            raise EsperdError("KERNEL_REPORT_INVALID", detail="there is none")


def offered(compiled: Path, into: Path) -> str:
    """Put a compiled kernel into `into`/<artifact id>, signed, with a report; returns the artifact id."""
    manifest = (compiled / kernel_documents.MANIFEST_NAME).read_bytes()
    artifact_id = artifact_id_of(manifest)
    folder = into / artifact_id
    folder.mkdir(parents=True, mode=0o700)
    for file in kernel_documents.read_manifest(manifest).files.values():
        shutil.copyfile(compiled / file.name, folder / file.name)
    report = kernel_documents.write_report(report_on(artifact_id))
    (folder / kernel_documents.MANIFEST_NAME).write_bytes(manifest)
    (folder / kernel_documents.MANIFEST_SIGNATURE_NAME).write_bytes(_signature(COMPILER, MANIFEST_DOMAIN, manifest))
    (folder / kernel_documents.REPORT_NAME).write_bytes(report)
    (folder / kernel_documents.REPORT_SIGNATURE_NAME).write_bytes(_signature(VALIDATOR, REPORT_DOMAIN, report))
    return artifact_id


def report_on(artifact_id: str) -> KernelReport:
    """A report that speaks well of a kernel."""
    band, handling = HazardBand.LOW, HandlingClass.STANDARD
    return KernelReport(artifact_id, "1", (), 2.0, 1.0, 0.8, 0.8, 1e-6, 1 << 20, 0.0, band, handling, 1.0)


def _signature(secret: bytes, domain: bytes, document: bytes) -> bytes:
    return kernel_documents.write_signature(Signature("key", sign_document(secret, domain, document)))
