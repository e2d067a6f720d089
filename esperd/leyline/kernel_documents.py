"""Manifests and reports of kernels as the exact bytes that are signed: read, written, named and proven.

Any thread; knows neither torch nor files. They are serialised `KernelManifest` and `KernelReport` messages of the
contract; nothing is ever signed or named by bytes that were made again.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from esper.leyline.v1 import kernel_pb2 as pb
from google.protobuf.message import DecodeError

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import (
    KernelCheck,
    KernelFile,
    KernelInput,
    KernelManifest,
    KernelReport,
    KernelVariant,
    SavedTensor,
    Signature,
)
from esperd.leyline.vocabulary import HandlingClass, HazardBand, KernelFileRole, KernelInputKind

MANIFEST_DOMAIN = b"esper.leyline.v1.KernelManifest\0"
REPORT_DOMAIN = b"esper.leyline.v1.KernelReport\0"
SCHEMA = 1
MANIFEST_NAME = "manifest.binpb"
MANIFEST_SIGNATURE_NAME = "manifest.sig.json"
REPORT_NAME = "report.binpb"
REPORT_SIGNATURE_NAME = "report.sig.json"
"""What the documents are called in a kernel's directory, beside its libraries."""


def artifact_id_of(manifest: bytes) -> str:
    """The name of the kernel that has this manifest."""
    return hashlib.sha256(manifest).hexdigest()


def sign_document(secret: bytes, domain: bytes, document: bytes) -> bytes:
    """HMAC-SHA256 over the domain and the document's bytes."""
    return hmac.digest(secret, domain + document, "sha256")


def is_signed(secret: bytes, domain: bytes, document: bytes, signature: bytes) -> bool:
    """Whether the signature is of these bytes; takes the same time either way."""
    return hmac.compare_digest(sign_document(secret, domain, document), signature)


def read_manifest(data: bytes) -> KernelManifest:
    """The manifest that these bytes are.

    Its fields are within the contract's bounds only where that was checked at the door; what depends on several fields
    is checked here.

    Raises:
        EsperdError: KERNEL_MANIFEST_INVALID.
    """
    message = pb.KernelManifest()
    try:
        message.ParseFromString(data)
        manifest = _manifest(message, artifact_id_of(data))
    except (DecodeError, ValueError) as error:
        raise EsperdError("KERNEL_MANIFEST_INVALID", detail=error) from None
    wrong = next(_contradictions(manifest), "")
    if wrong:
        raise EsperdError("KERNEL_MANIFEST_INVALID", detail=wrong)
    return manifest


def read_report(data: bytes) -> KernelReport:
    """The report that these bytes are. Raises EsperdError KERNEL_REPORT_INVALID."""
    message = pb.KernelReport()
    try:
        message.ParseFromString(data)
        return _report(message)
    except (DecodeError, ValueError) as error:
        raise EsperdError("KERNEL_REPORT_INVALID", detail=error) from None


def write_report(report: KernelReport) -> bytes:
    """The bytes of a report, to be signed and kept as they are."""
    band: Any = int(report.hazard_band)
    handling: Any = int(report.handling_class)
    message = pb.KernelReport(
        artifact_id=report.artifact_id,
        validator_version=report.validator_version,
        checks=[
            pb.KernelCheck(
                name=check.name, passed=check.passed, value=check.value, limit=check.limit, unit=check.unit,
                detail=check.detail,
            )
            for check in report.checks
        ],
        load_ms=report.load_ms,
        first_ms=report.first_ms,
        step_ratio=report.step_ratio,
        parameter_step_ratio=report.parameter_step_ratio,
        max_error=report.max_error,
        resident_bytes=report.resident_bytes,
        risk_score=report.risk_score,
        hazard_band=band,
        handling_class=handling,
    )  # fmt: skip
    message.create_time.FromNanoseconds(int(report.create_unix_s * 1e9))
    return message.SerializeToString(deterministic=True)


def write_signature(signature: Signature) -> bytes:
    """The signature as it lies beside its document."""
    return (json.dumps({"key_id": signature.key_id, "hmac": signature.hmac.hex()}) + "\n").encode()


def read_signature(data: bytes) -> Signature:
    """The signature that these bytes are. Raises ValueError when they are none."""
    try:
        content = json.loads(data)
        return Signature(str(content["key_id"]), bytes.fromhex(content["hmac"]))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no signature: {error}") from None


def variant_message(variant: KernelVariant) -> pb.KernelVariant:
    """The variant as the contract shows it."""
    return pb.KernelVariant(**{**asdict(variant), "tail_shape": list(variant.tail_shape)})


def variant_of(message: pb.KernelVariant) -> KernelVariant:
    """The variant that a message states."""
    return KernelVariant(
        blueprint_id=message.blueprint_id,
        blueprint_sha256=message.blueprint_sha256,
        parameters=dict(message.parameters),
        tail_shape=tuple(message.tail_shape),
        dtype=message.dtype,
        weight_dtype=message.weight_dtype,
        autocast_dtype=message.autocast_dtype,
        device_type=message.device_type,
        capability=message.capability,
        machine=message.machine,
        torch_version=message.torch_version,
        memory_format=message.memory_format,
    )


def _manifest(message: pb.KernelManifest, artifact_id: str) -> KernelManifest:
    if message.schema != SCHEMA:
        raise ValueError(f"schema {message.schema} is not {SCHEMA}")
    files = [KernelFile(KernelFileRole(f.role), f.sha256.hex(), f.num_bytes) for f in message.files]
    return KernelManifest(
        artifact_id=artifact_id,
        variant=variant_of(message.variant),
        min_batch=message.min_batch,
        max_batch=message.max_batch,
        hint_batch=message.hint_batch,
        inputs=tuple(
            KernelInput(KernelInputKind(i.kind), i.name, i.dtype, tuple(i.shape), i.requires_grad)
            for i in message.inputs
        ),
        output_index=message.output_index,
        mutated_buffers=tuple(message.mutated_buffers),
        saved=tuple(SavedTensor(s.is_input, s.index) for s in message.saved),
        gradients=tuple(message.gradients),
        parameter_gradients=tuple(message.parameter_gradients),
        files={file.role: file for file in files},
        draws_random=message.draws_random,
        strategy=message.strategy,
        compile_s=message.compile_s,
        compiler=message.compiler,
        options=dict(message.options),
        create_unix_s=message.create_time.ToNanoseconds() / 1e9,
    )


def _report(message: pb.KernelReport) -> KernelReport:
    return KernelReport(
        artifact_id=message.artifact_id,
        validator_version=message.validator_version,
        checks=tuple(KernelCheck(c.name, c.passed, c.value, c.limit, c.unit, c.detail) for c in message.checks),
        load_ms=message.load_ms,
        first_ms=message.first_ms,
        step_ratio=message.step_ratio,
        parameter_step_ratio=message.parameter_step_ratio,
        max_error=message.max_error,
        resident_bytes=message.resident_bytes,
        risk_score=message.risk_score,
        hazard_band=HazardBand(message.hazard_band),
        handling_class=HandlingClass(message.handling_class),
        create_unix_s=message.create_time.ToNanoseconds() / 1e9,
    )


def _contradictions(manifest: KernelManifest) -> Iterator[str]:
    """What in a manifest cannot be, one line each."""
    roles = {KernelFileRole.FORWARD, KernelFileRole.BACKWARD, KernelFileRole.PARAMETER_BACKWARD}
    kinds = [i.kind for i in manifest.inputs]
    if set(manifest.files) != roles:
        yield "it needs one file of each role"
    if not manifest.min_batch <= manifest.hint_batch <= manifest.max_batch:
        yield f"the hint {manifest.hint_batch} is not in {manifest.min_batch} to {manifest.max_batch}"
    if kinds.count(KernelInputKind.ACTIVATION) != 1 or KernelInputKind.UNSPECIFIED in kinds:
        yield "exactly one input must be the activation"
    named = [i.name for i in manifest.inputs if i.kind is not KernelInputKind.ACTIVATION]
    if len(set(named)) != len(named) or "" in named:
        yield "every parameter and buffer needs a name of its own"
    if manifest.output_index != len(manifest.mutated_buffers):
        yield "the delta must be the first output after the buffers"
    if len(manifest.gradients) != len(kinds) or len(manifest.parameter_gradients) != len(kinds):
        yield "each input needs its place among the gradients"
    for places in (manifest.gradients, manifest.parameter_gradients):
        given = sorted(place for place in places if place >= 0)
        if given != list(range(len(given))):
            yield "the gradients must be numbered from 0 without a gap"
    if any(s.is_input and s.index >= len(kinds) for s in manifest.saved):
        yield "a saved tensor is no input"
