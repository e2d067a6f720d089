"""Compiles captured graphs into native libraries with AOTInductor.

The compiler's process only. Two strategies: *standard* lets Inductor fuse and vectorise as it does by default;
*conservative* has every operation computed on its own, by plain loops, for a blueprint at which the first one fails.
"""

import enum
import os
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import torch

from esper.tezzeret.capture import Captured, training_conditions
from esper.tezzeret.inside_torch import Options, known_options
from esperd.leyline.vocabulary import KernelFileRole

VERSION_S = 10.0
"""How long the C++ compiler may take to say its version."""
MAX_WORDS = 200


class Strategy(enum.StrEnum):
    """How daring the compiler is."""

    STANDARD = "standard"
    CONSERVATIVE = "conservative"


_COMMON: Options = {
    "aot_inductor.package": True,
    # Batch sizes 0 and 1 count as special in tracing; the kernel's own range says what is admitted.
    "aot_inductor.check_lowerbound": False,
    # Line tables name paths of this machine, and are three quarters of a library.
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
    # How many threads compute is the run's business, not the kernel's.
    "cpp.dynamic_threads": True,
}
_LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""What GCC may use where torch sees this instruction set: never all that the compiler's own machine has."""
_CUDA: Options = {"aot_inductor.embed_kernel_binary": True}
_STRATEGIES: Mapping[Strategy, Options] = {
    Strategy.STANDARD: {},
    Strategy.CONSERVATIVE: {"max_fusion_size": 1, "cpp.simdlen": 1, "epilogue_fusion": False, "pattern_matcher": False},
}


def options_for(strategy: Strategy, device_type: str) -> dict[str, Any]:
    """The options that shape the result, of those that this version of torch knows."""
    asked = {**_COMMON, **_STRATEGIES[strategy], **(_CUDA if device_type == "cuda" else {})}
    if platform.machine() == "x86_64":
        asked["cpp.march"] = _LEVELS.get(torch.backends.cpu.get_cpu_capability(), "x86-64")
    return known_options(asked)


def lower(captured: Captured, strategy: Strategy, device_type: str) -> dict[KernelFileRole, str]:
    """Compile all three libraries. Returns their paths in the compiler's cache.

    Raises:
        Exception: whatever the compiler raises.
    """
    options = options_for(strategy, device_type)
    graphs = {
        KernelFileRole.FORWARD: captured.forward,
        KernelFileRole.BACKWARD: captured.backward,
        KernelFileRole.PARAMETER_BACKWARD: captured.parameter_backward,
    }
    with training_conditions(device_type, None):
        return {role: captured.world.library(graph, options) for role, graph in graphs.items()}


def compiler_words() -> str:
    """The C++ compiler, in its own words; its name alone when it does not answer."""
    name = os.environ.get("CXX", "g++")
    try:
        told = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return name
    return told.stdout.split("\n")[0].strip()[:MAX_WORDS] or name
