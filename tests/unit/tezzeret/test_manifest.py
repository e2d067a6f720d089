"""Manifests as they are written."""

from dataclasses import replace

import pytest
from esper.tezzeret.manifest import write_manifest

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import artifact_id_of, read_manifest
from esperd.leyline.kernels import KernelFile, KernelInput, KernelManifest, KernelVariant, SavedTensor
from esperd.leyline.vocabulary import KernelFileRole, KernelInputKind

VARIANT = KernelVariant("b", "a" * 64, {"x": 2.0}, (8,), "float32", "float32", "", "cpu", "AVX2", "x86_64", "2.13.0")
ROLES = (KernelFileRole.FORWARD, KernelFileRole.BACKWARD, KernelFileRole.PARAMETER_BACKWARD)
MANIFEST = KernelManifest(
    artifact_id="",
    variant=VARIANT,
    min_batch=1,
    max_batch=64,
    hint_batch=4,
    inputs=(
        KernelInput(KernelInputKind.PARAMETER, "weight", "float32", (8, 8), True),
        KernelInput(KernelInputKind.BUFFER, "average", "float32", (8,), False),
        KernelInput(KernelInputKind.ACTIVATION, "", "float32", (8,), True),
    ),
    output_index=1,
    mutated_buffers=("average",),
    saved=(SavedTensor(True, 0), SavedTensor(False, 2)),
    gradients=(0, -1, 1),
    parameter_gradients=(0, -1, -1),
    files={role: KernelFile(role, f"{int(role):064x}", 10) for role in ROLES},
    draws_random=False,
    strategy="standard",
    compile_s=12.5,
    compiler="g++ 12",
    options={"cpp.march": "x86-64-v3"},
    create_unix_s=1_700_000_000.0,
)


def test_what_is_written_is_read() -> None:
    """Every field comes back, and the artifact id is the digest of the bytes."""
    data = write_manifest(MANIFEST)
    assert read_manifest(data) == replace(MANIFEST, artifact_id=artifact_id_of(data))


def test_the_same_manifest_is_the_same_bytes() -> None:
    """Nothing but the content decides the name; in whatever order maps were filled."""
    turned = replace(MANIFEST, files=dict(reversed(MANIFEST.files.items())))
    assert write_manifest(turned) == write_manifest(MANIFEST)


def test_a_contradiction_is_not_written() -> None:
    """A hint outside the range is found by the compiler, not by the daemon."""
    with pytest.raises(EsperdError, match="hint"):
        write_manifest(replace(MANIFEST, min_batch=8))
