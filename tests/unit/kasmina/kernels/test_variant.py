"""What decides which kernel fits: the same facts give the same variant, and any other fact another one."""

import platform

import pytest
import torch

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import dtype_name, dtype_named, variant_for
from esperd.leyline.kernels import KernelVariant, misfits, variant_key

CPU = torch.device("cpu")


def variant(
    parameters: dict[str, float] | None = None,
    tail: tuple[int, ...] = (8,),
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> KernelVariant:
    descriptor = standard_registry().get("residual_mlp")
    return variant_for(descriptor, parameters or {}, tail, dtype, torch.float32, autocast, this_machine(CPU))


def test_a_default_and_the_same_value_given_are_one_variant():
    """All parameters are in it, as numbers of one kind."""
    assert variant() == variant({"expansion": 4})
    assert variant_key(variant(), 8) == variant_key(variant({"expansion": 4}), 8)
    assert variant_key(variant(), 8) != variant_key(variant(), 16)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (variant({"expansion": 2}), "parameters"),
        (variant(tail=(9,)), "tail_shape"),
        (variant(dtype=torch.float64), "dtype"),
        (variant(autocast=torch.bfloat16), "autocast_dtype"),
    ],
)
def test_every_fact_counts(other: KernelVariant, name: str):
    """And the misfit names it."""
    (line,) = misfits(other, variant())
    assert line.startswith(f"{name} is ")


def test_the_facts_of_this_process():
    """As torch names them, the build of torch in full."""
    machine = this_machine(CPU)
    assert machine.torch_version == str(torch.__version__)
    assert type(machine.torch_version) is str
    assert (machine.device_type, machine.machine) == ("cpu", platform.machine())
    assert machine.capability == torch.backends.cpu.get_cpu_capability()


def test_dtypes_have_the_names_of_torch():
    """There and back; no other attribute of torch passes for one."""
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        assert dtype_named(dtype_name(dtype)) is dtype
    for name in ("float33", "nn", "Tensor"):
        with pytest.raises(ValueError, match=name):
            dtype_named(name)
