"""A compiler and a validator that vouch for whatever they are given, and the daemon's own trust in both.

So that opening a kernel takes every check that it takes in the daemon. The secrets are no secrets: they stand here.
"""

import shutil
import time
from pathlib import Path

from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    REPORT_DOMAIN,
    REPORT_NAME,
    REPORT_SIGNATURE_NAME,
    artifact_id_of,
    sign_document,
    write_report,
    write_signature,
)
from esperd.leyline.kernels import KernelReport, Signature
from esperd.leyline.keyring import Key, KeyRing
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import HandlingClass, HazardBand, Permission
from esperd.urza.trust import KernelTrust

COMPILER, COMPILER_SECRET = "compiler-bench", bytes(32)
VALIDATOR, VALIDATOR_SECRET = "validator-bench", bytes(range(32))


def trust() -> KernelTrust:
    """Trusts the two above."""
    ring = KeyRing([Key(COMPILER, "compiler", frozenset({Permission.COMPILE}), Secret(COMPILER_SECRET))])
    return KernelTrust(lambda: ring, {VALIDATOR: Secret(VALIDATOR_SECRET)}, time.time)


def sealed_copy(folder: Path, into: Path) -> Path:
    """A kernel's folder with both documents signed; copied, so that its libraries are loaded by themselves."""
    shutil.copytree(folder, into)
    manifest = (into / MANIFEST_NAME).read_bytes()
    report = write_report(_praise(artifact_id_of(manifest)))
    (into / REPORT_NAME).write_bytes(report)
    for name, domain, key_id, secret, document in (
        (MANIFEST_SIGNATURE_NAME, MANIFEST_DOMAIN, COMPILER, COMPILER_SECRET, manifest),
        (REPORT_SIGNATURE_NAME, REPORT_DOMAIN, VALIDATOR, VALIDATOR_SECRET, report),
    ):
        (into / name).write_bytes(write_signature(Signature(key_id, sign_document(secret, domain, document))))
    return into


def _praise(artifact_id: str) -> KernelReport:
    return KernelReport(
        artifact_id=artifact_id,
        validator_version="bench",
        checks=(),
        load_ms=0.0,
        first_ms=0.0,
        step_ratio=1.0,
        parameter_step_ratio=1.0,
        max_error=0.0,
        resident_bytes=0,
        risk_score=0.0,
        hazard_band=HazardBand.LOW,
        handling_class=HandlingClass.STANDARD,
        create_unix_s=time.time(),
    )
