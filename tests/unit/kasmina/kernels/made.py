"""Kernels without a compiler: manifests made by hand, and runners that compute a linear map in Python."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from esper.leyline.v1 import kernel_pb2 as pb
from torch import Tensor

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import variant_for
from esperd.leyline.kernel_documents import read_manifest, variant_message
from esperd.leyline.kernels import KernelFile, KernelManifest, KernelVariant
from esperd.leyline.vocabulary import KernelFileRole

WIDTH = 4
ROLES = (KernelFileRole.FORWARD, KernelFileRole.BACKWARD, KernelFileRole.PARAMETER_BACKWARD)
CPU = torch.device("cpu")


def linear_variant() -> KernelVariant:
    """Of `residual_linear` at rows of four features, here."""
    descriptor = standard_registry().get("residual_linear")
    return variant_for(descriptor, {}, (WIDTH,), torch.float32, torch.float32, None, this_machine(CPU))


def manifest_bytes(
    variant: KernelVariant | None = None,
    libraries: Mapping[KernelFileRole, bytes] | None = None,
    hint_batch: int = 8,
) -> bytes:
    """The manifest of a linear map for batches of 2 to 16."""
    message = pb.KernelManifest(
        schema=1,
        variant=variant_message(linear_variant() if variant is None else variant),
        min_batch=2,
        max_batch=16,
        hint_batch=hint_batch,
        output_index=0,
        saved=[pb.SavedTensor(is_input=True, index=0), pb.SavedTensor(is_input=True, index=2)],
        gradients=[0, 1, 2],
        parameter_gradients=[0, 1, -1],
        strategy="standard",
    )
    parameter, activation = pb.KERNEL_INPUT_KIND_PARAMETER, pb.KERNEL_INPUT_KIND_ACTIVATION
    for kind, name, shape in ((parameter, "weight", (4, 4)), (parameter, "bias", (4,)), (activation, "", (4,))):
        message.inputs.add(kind=kind, name=name, dtype="float32", shape=shape, requires_grad=True)
    for role in ROLES:
        data = role.name.encode() if libraries is None else libraries[role]
        message.files.add(role=int(role), sha256=hashlib.sha256(data).digest(), num_bytes=len(data))  # type: ignore[arg-type]
    return message.SerializeToString()


class LinearRunner:
    """One library of the map y = x W^T + b."""

    def __init__(self, role: KernelFileRole) -> None:
        self.role = role
        self.num_runs = 0

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.num_runs += 1
        if self.role is KernelFileRole.FORWARD:
            weight, bias, x = inputs
            return [torch.nn.functional.linear(x, weight, bias)]
        weight, x, g = inputs
        gradients = [g.T @ x, g.sum(0)]
        return [*gradients, g @ weight] if self.role is KernelFileRole.BACKWARD else gradients


def linear_kernel(**changes: Any) -> Kernel:
    """An open kernel of that map; `changes` are of its manifest."""
    manifest: KernelManifest = replace(read_manifest(manifest_bytes()), **changes)
    return Kernel(manifest, None, {role: LinearRunner(role) for role in ROLES}, CPU)


def write_libraries(folder: Path, manifest: KernelManifest, libraries: Mapping[KernelFileRole, bytes]) -> None:
    """Put libraries where a manifest says that they are."""
    for role, data in libraries.items():
        file: KernelFile = manifest.files[role]
        (folder / file.name).write_bytes(data)
