"""What of this process decides which kernels run in it: device, instruction set, machine, exact build of torch.

Any thread that may import torch.
"""

import platform
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts of a process that a kernel's variant names."""

    device_type: str
    """`cpu` or `cuda`."""
    capability: str
    """Instruction set of the CPU as torch names it, e.g. `AVX512`; compute capability of the GPU, e.g. `sm_90`."""
    machine: str
    """Of the host, e.g. `x86_64`."""
    torch_version: str
    """In full, e.g. `2.13.0+cpu`."""


def this_machine(device: torch.device) -> Machine:
    """The facts of this process, for computing on this device."""
    return Machine(device.type, _capability(device), platform.machine(), str(torch.__version__))


def _capability(device: torch.device) -> str:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm_{major}{minor}"
    return torch.backends.cpu.get_cpu_capability()
