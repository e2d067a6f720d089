"""Kernels for tests: manifests made from the contract's messages, with random bytes as libraries."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from esper.leyline.v1 import kernel_pb2 as pb

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import MANIFEST_DOMAIN, REPORT_DOMAIN, artifact_id_of, sign_document, write_report
from esperd.leyline.kernels import KernelCheck, KernelReport, Signature
from esperd.leyline.keyring import Key, KeyRing, KeyState
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import HandlingClass, HazardBand, KernelFileRole, Permission
from esperd.urza.library import Library
from esperd.urza.store import Store
from esperd.urza.stored import LibraryLimits, StoredKernel
from esperd.urza.trust import KernelTrust

ROLES = (KernelFileRole.FORWARD, KernelFileRole.BACKWARD, KernelFileRole.PARAMETER_BACKWARD)
COMPILER = Key("compiler-1", "tezzeret", frozenset({Permission.COMPILE}), Secret(bytes(range(32))))
OTHER_COMPILER = Key("compiler-2", "tibalt", frozenset({Permission.COMPILE}), Secret(bytes(range(1, 33))))
VALIDATOR_ID = "validator-0000aaaa"
VALIDATOR = Secret(bytes(range(2, 34)))
NOW_UNIX_S = 1_795_000_000.0


@dataclass(frozen=True)
class Made:
    """What a compiler has made."""

    manifest: bytes
    libraries: Mapping[KernelFileRole, bytes]
    signature: Signature

    @property
    def artifact_id(self) -> str:
        return artifact_id_of(self.manifest)


@dataclass
class World:
    """The time, the key ring and the validators' keys, which a test may change."""

    now_unix_s: float = NOW_UNIX_S
    keys: list[Key] = field(default_factory=lambda: [COMPILER, OTHER_COMPILER])
    validators: dict[str, Secret] = field(default_factory=lambda: {VALIDATOR_ID: VALIDATOR})
    opened: list[Library] = field(default_factory=list)

    def close(self) -> None:
        """Close every library that was opened in it; once more is nothing."""
        for run in self.opened:
            run.close()

    def clock(self) -> float:
        return self.now_unix_s

    def trust(self) -> KernelTrust:
        return KernelTrust(lambda: KeyRing(self.keys), self.validators, self.clock)


def make(
    seed: int = 0, num_bytes: int = 3000, key: Key = COMPILER, max_batch: int = 64, blueprint_id: str = "residual_mlp"
) -> Made:
    """A kernel; its libraries are of slightly different sizes."""
    source = random.Random(seed)
    libraries = {role: source.randbytes(num_bytes + int(role)) for role in ROLES}
    message = pb.KernelManifest(
        schema=1,
        variant=pb.KernelVariant(
            blueprint_id=blueprint_id,
            blueprint_sha256="ab" * 32,
            parameters={"width": 16.0},
            tail_shape=[8],
            dtype="float32",
            weight_dtype="float32",
            memory_format="contiguous",
            device_type="cpu",
            capability="AVX2",
            machine="x86_64",
            torch_version="2.13.0+cpu",
        ),
        min_batch=1,
        max_batch=max_batch,
        hint_batch=32,
        inputs=[
            pb.KernelInput(kind=pb.KERNEL_INPUT_KIND_PARAMETER, name="weight", dtype="float32", shape=[8, 8]),
            pb.KernelInput(kind=pb.KERNEL_INPUT_KIND_ACTIVATION, dtype="float32", shape=[8]),
        ],
        saved=[pb.SavedTensor(is_input=True, index=1)],
        gradients=[0, 1],
        parameter_gradients=[0, -1],
        files=[
            pb.KernelFile(role=role.value, sha256=hashlib.sha256(data).digest(), num_bytes=len(data))  # type: ignore[arg-type]
            for role, data in libraries.items()
        ],
        strategy="standard",
    )
    message.create_time.FromSeconds(int(NOW_UNIX_S) - seed)
    manifest = message.SerializeToString(deterministic=True)
    return Made(manifest, libraries, sign(manifest, key))


def sign(manifest: bytes, key: Key = COMPILER) -> Signature:
    return Signature(key.key_id, sign_document(key.secret.reveal(), MANIFEST_DOMAIN, manifest))


def report_on(
    artifact_id: str,
    handling: HandlingClass = HandlingClass.STANDARD,
    step_ratio: float = 0.8,
    validator_id: str = VALIDATOR_ID,
    secret: Secret = VALIDATOR,
) -> tuple[bytes, Signature]:
    """A report with its signature; one that says QUARANTINE has a failed check."""
    passed = handling is not HandlingClass.QUARANTINE
    report = write_report(
        KernelReport(
            artifact_id=artifact_id,
            validator_version="1",
            checks=(
                KernelCheck("imports", True),
                KernelCheck("forward", passed, 0.5, 1e-5, "relative error", "far off"),
            ),
            load_ms=2.0,
            first_ms=1.0,
            step_ratio=step_ratio,
            parameter_step_ratio=0.7,
            max_error=1e-6,
            resident_bytes=1 << 20,
            risk_score=0.1,
            hazard_band=HazardBand.LOW if passed else HazardBand.CRITICAL,
            handling_class=handling,
            create_unix_s=NOW_UNIX_S,
        )
    )
    return report, Signature(validator_id, sign_document(secret.reveal(), REPORT_DOMAIN, report))


def library(
    directory: Path,
    store: Store,
    world: World,
    quota_bytes: int = 1 << 20,
    keep_s: float = 0.0,
    max_kernel_bytes: int = 1 << 18,
) -> Library:
    """A library that has looked at its store."""
    opened = Library(directory, store, world.trust(), LibraryLimits(quota_bytes, keep_s, max_kernel_bytes), world.clock)
    world.opened.append(opened)
    opened.rescan()
    return opened


def upload(into: Library, made: Made, chunk_bytes: int = 1024) -> StoredKernel:
    """Send all of it."""
    kernel = into.create_upload(made.manifest, made.signature, "tezzeret")
    for part in kernel.progress:
        for offset in range(part.num_received, part.num_bytes, chunk_bytes):
            into.add_chunk(
                made.artifact_id, part.role, offset, made.libraries[part.role][offset : offset + chunk_bytes]
            )
    return into.finish(made.artifact_id)


def offered(into: Library, made: Made, step_ratio: float = 0.8) -> StoredKernel:
    """Upload it and have it found good."""
    upload(into, made)
    return into.offer(made.artifact_id, *report_on(made.artifact_id, step_ratio=step_ratio))


def refusal(call: object) -> EsperdError:
    """What a call is refused with."""
    with pytest.raises(EsperdError) as caught:
        call()  # type: ignore[operator]
    return caught.value


def revoked(key: Key) -> Key:
    return Key(key.key_id, key.principal, key.permissions, key.secret, declared=KeyState.REVOKED)
