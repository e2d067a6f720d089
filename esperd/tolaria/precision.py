"""How torch is set up for a run: device, precision, threads, determinism, random seeds.

Training thread, before the task function runs. A device or a mode that is not there is an error, never a silent move.
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.amp import GradScaler

from esperd.config.settings import RunSettings, TrainingSettings
from esperd.leyline.errors import EsperdError


def configure_torch(run: RunSettings, training: TrainingSettings) -> torch.device:
    """Apply the process-wide settings and seed every generator; returns the device.

    The number of threads holds for the calling thread only, so call it in the one that trains. Raises EsperdError
    DEVICE_UNAVAILABLE or CONFIG_INVALID.
    """
    device = resolve_device(training.device)
    if run.num_threads > 0:
        torch.set_num_threads(run.num_threads)
    torch.set_float32_matmul_precision(training.matmul_precision)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = training.matmul_precision != "highest"
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(training.deterministic)
    seed_everything(run.random_seed)
    return device


def seed_everything(random_seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(random_seed)
    np.random.seed(random_seed % 2**32)
    torch.manual_seed(random_seed)


def resolve_device(name: str) -> torch.device:
    """The device named in `[training] device`; `auto` is CUDA where there is one. Raises DEVICE_UNAVAILABLE."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        detail = "torch knows no device of that name"
        raise EsperdError("DEVICE_UNAVAILABLE", device=name, detail=detail) from error
    if device.type not in ("cpu", "cuda"):
        raise EsperdError("DEVICE_UNAVAILABLE", device=name, detail="esperd trains on cpu and cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EsperdError("DEVICE_UNAVAILABLE", device=name, detail="torch sees no CUDA device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        detail = f"torch sees {torch.cuda.device_count()} CUDA devices"
        raise EsperdError("DEVICE_UNAVAILABLE", device=name, detail=detail)
    return device


class Precision:
    """The number format of the forward pass: an autocast context, and a gradient scaler for fp16 alone."""

    def __init__(self, amp: str, device: torch.device) -> None:
        self.device = device
        self.dtype = _autocast_dtype(amp, device)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass and its loss; none at all in float32."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def new_scaler(self) -> Callable[[], GradScaler] | None:
        """Makes a gradient scaler; None except with fp16 (bf16 has the range of float32)."""
        if self.dtype is not torch.float16:
            return None
        return lambda: GradScaler(self.device.type)


def random_states() -> dict[str, Any]:
    """The states of every global generator: Python's, NumPy's, torch's on the CPU and on each CUDA device in use."""
    is_on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch does not type it
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if is_on_cuda else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put every global generator to a saved state."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


@contextlib.contextmanager
def untouched_rng() -> Iterator[None]:
    """Put the global random generators back: Python's, NumPy's, torch's on the CPU and on the current device."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    is_on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch does not type it
    devices = [torch.cuda.current_device()] if is_on_cuda else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    if amp == "off":
        return None
    if amp == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    if amp == "bf16":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise EsperdError("DEVICE_UNAVAILABLE", device=device, detail="it has no bf16")
        return torch.bfloat16
    return torch.float16
