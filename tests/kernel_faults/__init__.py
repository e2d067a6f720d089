"""Kernels that are wrong on purpose, each in one way, and an honest one to compare with: made in under a second.

They are `residual_linear` by hand (`kernel.c`), so that nothing but the fault sets them apart from a good kernel.
"""

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from esper.tezzeret.manifest import write_manifest

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import variant_for
from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    read_manifest,
    sign_document,
    write_signature,
)
from esperd.leyline.kernels import KernelFile, KernelInput, KernelManifest, SavedTensor, Signature
from esperd.leyline.vocabulary import KernelFileRole, KernelInputKind

SOURCE = Path(__file__).with_name("kernel.c")
WIDTH, HINT_BATCH, MAX_BATCH = 16, 8, 64
LINKED = ("-L", str(Path(torch.__file__).parent / "lib"), "-Wl,--no-as-needed", "-ltorch_cpu", "-lm")
ROLES = (KernelFileRole.FORWARD, KernelFileRole.BACKWARD, KernelFileRole.PARAMETER_BACKWARD)


@dataclass(frozen=True, slots=True)
class Key:
    """Signs a manifest."""

    key_id: str = "nobody"
    secret: bytes = bytes(32)


def make(
    folder: Path,
    fault: str = "NONE",
    *,
    flags: tuple[str, ...] = (),
    key: Key | None = None,
    changes: Mapping[str, object] | None = None,
) -> KernelManifest:
    """Write a kernel of `residual_linear` at (8, 16) into a fresh folder: libraries, manifest and its signature.

    Args:
        folder: where; made.
        fault: one of `enum fault` in kernel.c, or `NONE`.
        flags: more options for the C compiler, e.g. `-DIMPORTS_SYSTEM`.
        key: signs the manifest; somebody whom nobody knows when not given.
        changes: fields of the manifest that are stated otherwise.
    """
    folder.mkdir(parents=True)
    files = {role: _library(folder, role, fault, flags) for role in ROLES}
    manifest = replace(_manifest(files), **(changes or {}))  # type: ignore[arg-type]
    return write(folder, manifest, key)


def write(folder: Path, manifest: KernelManifest, key: Key | None = None) -> KernelManifest:
    """Write a manifest with its signature into a kernel's folder."""
    document = write_manifest(manifest)
    key = key or Key()
    signature = Signature(key.key_id, sign_document(key.secret, MANIFEST_DOMAIN, document))
    (folder / MANIFEST_NAME).write_bytes(document)
    (folder / MANIFEST_SIGNATURE_NAME).write_bytes(write_signature(signature))
    return read_manifest(document)


def _library(folder: Path, role: KernelFileRole, fault: str, flags: tuple[str, ...]) -> KernelFile:
    built = folder / f"{role.name}.so"
    defined = (f"-DFAULT={fault}", f"-DROLE={int(role)}", f"-DWIDTH={WIDTH}")
    subprocess.run(
        ["gcc", "-O2", "-w", "-shared", "-fPIC", "-o", str(built), *defined, *flags, str(SOURCE), *LINKED],
        check=True,
        timeout=60,
    )
    data = built.read_bytes()
    file = KernelFile(role, hashlib.sha256(data).hexdigest(), len(data))
    built.rename(folder / file.name)
    (folder / file.name).chmod(0o400)
    return file


def _manifest(files: Mapping[KernelFileRole, KernelFile]) -> KernelManifest:
    descriptor = standard_registry().get("residual_linear")
    machine = this_machine(torch.device("cpu"))
    return KernelManifest(
        artifact_id="",
        variant=variant_for(descriptor, {}, (WIDTH,), torch.float32, torch.float32, None, machine),
        min_batch=1,
        max_batch=MAX_BATCH,
        hint_batch=HINT_BATCH,
        inputs=(
            KernelInput(KernelInputKind.PARAMETER, "weight", "float32", (WIDTH, WIDTH), True),
            KernelInput(KernelInputKind.PARAMETER, "bias", "float32", (WIDTH,), True),
            KernelInput(KernelInputKind.ACTIVATION, "", "float32", (WIDTH,), True),
        ),
        output_index=0,
        mutated_buffers=(),
        saved=(SavedTensor(True, 0), SavedTensor(True, 2)),
        gradients=(0, 1, 2),
        parameter_gradients=(0, 1, -1),
        files=files,
        draws_random=False,
        strategy="standard",
        compile_s=0.1,
        compiler="gcc",
        options={},
        create_unix_s=1_700_000_000.0,
    )
