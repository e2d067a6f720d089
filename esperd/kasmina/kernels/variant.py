"""Which kernels fit a blueprint at a site: its variant, made from what is known where it grows.

Any thread that may import torch. The compiler, the validator and the seed executor all name variants by this one rule.
"""

from collections.abc import Mapping, Sequence

import torch

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.blueprints.source import source_sha256
from esperd.kasmina.kernels.machine import Machine
from esperd.leyline.kernels import KernelVariant


def variant_for(
    descriptor: BlueprintDescriptor,
    parameters: Mapping[str, float],
    tail_shape: Sequence[int],
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    autocast_dtype: torch.dtype | None,
    machine: Machine,
) -> KernelVariant:
    """The variant of the kernels that fit.

    Args:
        descriptor: the blueprint.
        parameters: its own parameters; defaults stand in for those not given.
        tail_shape: shape of the activation without the batch size.
        dtype: of the activation.
        weight_dtype: of the seed's weights.
        autocast_dtype: of the autocast under which it runs, None without.
        machine: where it runs.

    Raises:
        BlueprintParameterError: a parameter is unknown or out of bounds.
        SourceUnknownError: the source of the blueprint cannot be read.
    """
    return KernelVariant(
        blueprint_id=descriptor.blueprint_id,
        blueprint_sha256=source_sha256(descriptor),
        parameters=descriptor.resolve(parameters),
        tail_shape=tuple(int(size) for size in tail_shape),
        dtype=dtype_name(dtype),
        weight_dtype=dtype_name(weight_dtype),
        autocast_dtype="" if autocast_dtype is None else dtype_name(autocast_dtype),
        device_type=machine.device_type,
        capability=machine.capability,
        machine=machine.machine,
        torch_version=machine.torch_version,
    )


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as variants and manifests name it, e.g. `float32`."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> torch.dtype:
    """The dtype of that name. Raises ValueError when torch has none."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {name!r}")
    return dtype


def autocast_named(name: str) -> torch.dtype | None:
    """The dtype of an autocast as variants name it, None for the empty name. Raises ValueError when torch has none."""
    return dtype_named(name) if name else None
