"""Compiles a blueprint for one variant: captured, lowered, and described in a manifest.

The compiler's process only: it starts a C++ compiler and takes seconds to minutes. Signs nothing and uploads nothing.
"""

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from esper.tezzeret.capture import Captured, capture
from esper.tezzeret.inside_torch import MIN_TRACED_BATCH
from esper.tezzeret.lowering import Strategy, compiler_words, lower, options_for
from esper.tezzeret.manifest import write_manifest
from esper.tezzeret.stack_header import without_executable_stack
from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import autocast_named, dtype_named, variant_for
from esperd.leyline.kernel_documents import artifact_id_of
from esperd.leyline.kernels import KernelFile, KernelManifest, KernelVariant
from esperd.leyline.vocabulary import KernelFileRole

MAX_BATCH_RATIO = 16
"""Most that the largest batch size is of the hint: what nobody trains at is neither promised nor has to be tried."""


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What is to be compiled."""

    descriptor: BlueprintDescriptor
    tail_shape: tuple[int, ...]
    """Shape of the activation without the batch size."""
    hint_batch: int
    """The batch size to compile for; a range around it comes out."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    dtype: str = "float32"
    """Of the activation."""
    autocast_dtype: str = ""
    """Of the autocast at the site; empty without."""
    device_type: str = "cpu"
    strategy: Strategy = Strategy.STANDARD

    @property
    def weight_dtype(self) -> str:
        """Of the seed's weights: as the activation, float32 under autocast."""
        return "float32" if self.autocast_dtype else self.dtype


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel that has been made."""

    manifest: bytes
    files: Mapping[KernelFileRole, Path]

    @property
    def artifact_id(self) -> str:
        """The kernel's name."""
        return artifact_id_of(self.manifest)


def compile_kernel(request: CompileRequest, folder: Path) -> CompiledKernel:
    """Compile, and put the libraries into the folder under the names that their content gives them.

    Raises:
        BlueprintParameterError: a parameter is unknown or out of bounds.
        SiteNotAdmissibleError: the blueprint cannot grow at this shape.
        CaptureError: the blueprint's module is none that can be compiled.
        Exception: whatever torch's compiler raises.
    """
    began_s = time.monotonic()
    captured = _captured(request)
    built = lower(captured, request.strategy, request.device_type)
    # Read now: compiling narrows it.
    min_batch, max_batch = captured.world.batch_range()
    files = {role: _kept(role, Path(path), folder) for role, path in built.items()}
    options = {name: str(value) for name, value in options_for(request.strategy, request.device_type).items()}
    manifest = KernelManifest(
        artifact_id="",
        variant=wanted_variant(request),
        min_batch=min_batch,
        max_batch=max_batch,
        hint_batch=request.hint_batch,
        inputs=captured.inputs,
        output_index=len(captured.mutated_buffers),
        mutated_buffers=captured.mutated_buffers,
        saved=captured.saved,
        gradients=captured.gradients,
        parameter_gradients=captured.parameter_gradients,
        files=files,
        draws_random=captured.draws_random,
        strategy=request.strategy.value,
        compile_s=time.monotonic() - began_s,
        compiler=compiler_words(),
        options=options,
        create_unix_s=time.time(),
    )
    return CompiledKernel(write_manifest(manifest), {role: folder / file.name for role, file in files.items()})


def wanted_variant(request: CompileRequest) -> KernelVariant:
    """The variant that comes out of a request on this machine."""
    return variant_for(
        request.descriptor,
        request.parameters,
        request.tail_shape,
        dtype_named(request.dtype),
        dtype_named(request.weight_dtype),
        autocast_named(request.autocast_dtype),
        this_machine(torch.device(request.device_type)),
    )


def _captured(request: CompileRequest) -> Captured:
    shape = (max(MIN_TRACED_BATCH, request.hint_batch), *request.tail_shape)
    device = torch.device(request.device_type)
    with device:
        module = request.descriptor.build(shape, request.parameters).to(device, dtype_named(request.weight_dtype))
        example = torch.zeros(shape, dtype=dtype_named(request.dtype))
    autocast_dtype = autocast_named(request.autocast_dtype)
    return capture(module.train(), example, MAX_BATCH_RATIO * shape[0], autocast_dtype)


def _kept(role: KernelFileRole, path: Path, folder: Path) -> KernelFile:
    data = without_executable_stack(path.read_bytes())
    file = KernelFile(role, hashlib.sha256(data).hexdigest(), len(data))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{file.name}.{random.getrandbits(32):08x}"
    partial.write_bytes(data)
    partial.replace(folder / file.name)
    return file
