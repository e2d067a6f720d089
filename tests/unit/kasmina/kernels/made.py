"""Kernels without a compiler: manifests made by hand, and runners that compute with the module itself."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from esper.leyline.v1 import kernel_pb2 as pb
from torch import Tensor, nn
from torch.func import functional_call

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


def variant_at(blueprint_id: str, tail: tuple[int, ...]) -> KernelVariant:
    """Of a blueprint with its defaults in float32, here."""
    descriptor = standard_registry().get(blueprint_id)
    return variant_for(descriptor, {}, tail, torch.float32, torch.float32, None, this_machine(CPU))


def linear_variant() -> KernelVariant:
    """Of `residual_linear` at rows of four features."""
    return variant_at("residual_linear", (WIDTH,))


def manifest_bytes(
    variant: KernelVariant | None = None,
    libraries: Mapping[KernelFileRole, bytes] | None = None,
    hint_batch: int = 8,
) -> bytes:
    """The manifest of a blueprint's kernel for batches of 2 to 16, in which everything is saved for the backward."""
    variant = linear_variant() if variant is None else variant
    parameters = {name: tuple(p.shape) for name, p in _module(variant).named_parameters()}
    places = list(range(len(parameters)))
    message = pb.KernelManifest(
        schema=1,
        variant=variant_message(variant),
        min_batch=2,
        max_batch=16,
        hint_batch=hint_batch,
        output_index=0,
        saved=[pb.SavedTensor(is_input=True, index=index) for index in range(len(parameters) + 1)],
        gradients=[*places, len(places)],
        parameter_gradients=[*places, -1],
        strategy="standard",
    )
    for name, shape in parameters.items():
        kind = pb.KERNEL_INPUT_KIND_PARAMETER
        message.inputs.add(kind=kind, name=name, dtype="float32", shape=shape, requires_grad=True)
    kind, tail = pb.KERNEL_INPUT_KIND_ACTIVATION, variant.tail_shape
    message.inputs.add(kind=kind, dtype="float32", shape=tail, requires_grad=True)
    for role in ROLES:
        data = role.name.encode() if libraries is None else libraries[role]
        message.files.add(role=int(role), sha256=hashlib.sha256(data).digest(), num_bytes=len(data))  # type: ignore[arg-type]
    return message.SerializeToString()


class ModuleRunner:
    """One library that computes with a module, and for a backward computes the forward again."""

    def __init__(self, role: KernelFileRole, module: nn.Module) -> None:
        self.role, self.module = role, module
        self.names = [name for name, _ in module.named_parameters()]
        self.num_runs = 0

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.num_runs += 1
        if self.role is KernelFileRole.FORWARD:
            return [self._delta(inputs)]
        *saved, g = inputs
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [tensor.detach().clone().requires_grad_() for tensor in saved]
            wanted = leaves if self.role is KernelFileRole.BACKWARD else leaves[:-1]
            return list(torch.autograd.grad(self._delta(leaves), wanted, g.clone()))

    def _delta(self, inputs: Sequence[Tensor]) -> Tensor:
        *parameters, x = inputs
        delta: Tensor = functional_call(self.module, dict(zip(self.names, parameters, strict=True)), (x,))
        return delta


def module_kernel(variant: KernelVariant, **changes: Any) -> Kernel:
    """An open kernel of a blueprint; `changes` are of its manifest."""
    manifest: KernelManifest = replace(read_manifest(manifest_bytes(variant)), **changes)
    return Kernel(manifest, None, {role: ModuleRunner(role, _module(variant)) for role in ROLES}, CPU)


def linear_kernel(**changes: Any) -> Kernel:
    """The same of `residual_linear` at rows of four features."""
    return module_kernel(linear_variant(), **changes)


def _module(variant: KernelVariant) -> nn.Module:
    return standard_registry().get(variant.blueprint_id).build((1, *variant.tail_shape), variant.parameters)


def write_libraries(folder: Path, manifest: KernelManifest, libraries: Mapping[KernelFileRole, bytes]) -> None:
    """Put libraries where a manifest says that they are."""
    for role, data in libraries.items():
        file: KernelFile = manifest.files[role]
        (folder / file.name).write_bytes(data)
