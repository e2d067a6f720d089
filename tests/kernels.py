"""Compiled kernels for tests: each made once on a machine, in a process of its own, and shared by all tests.

They lie in `$ESPERD_TEST_KERNELS`, else in a folder of the system's temporary directory, until the blueprint, torch,
the machine or the compiler's own sources change.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import esper.tezzeret
import torch

from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.variant import autocast_named, dtype_named, variant_for
from esperd.leyline.kernels import variant_key

COMPILE_LIMIT_S = 300


def compiled(
    blueprint_id: str,
    shape: tuple[int, ...],
    *,
    parameters: Mapping[str, float] | None = None,
    dtype: str = "float32",
    autocast_dtype: str = "",
    device_type: str = "cpu",
    strategy: str = "standard",
) -> Path:
    """The folder of a kernel for a site of this shape, batch size first: `manifest.binpb`, unsigned, and its libraries.

    Read only: copy it before changing anything. The first call on a machine takes some 20 seconds.
    """
    given = dict(parameters or {})
    weight_dtype = "float32" if autocast_dtype else dtype
    variant = variant_for(
        standard_registry().get(blueprint_id),
        given,
        shape[1:],
        dtype_named(dtype),
        dtype_named(weight_dtype),
        autocast_named(autocast_dtype),
        this_machine(torch.device(device_type)),
    )
    key = hashlib.sha256(f"{variant_key(variant, shape[0])} {strategy} {_compiler_digest()}".encode()).hexdigest()
    folder = cache_folder() / f"{blueprint_id}-{key[:24]}"
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "manifest.binpb").exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as building:
                casts = f",autocast={autocast_dtype}" if autocast_dtype else ""
                spec = f"{'x'.join(map(str, shape))},dtype={dtype}{casts}"
                values = [f"--parameter={name}={value}" for name, value in given.items()]
                how = [f"--site-spec={spec}", *values, f"--strategy={strategy}", f"--device={device_type}"]
                _compile(blueprint_id, *how, f"--output={building}")
                Path(building).rename(folder)
                Path(building).mkdir()
    return folder


def cache_folder() -> Path:
    """Where the kernels lie."""
    named = os.environ.get("ESPERD_TEST_KERNELS")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"esperd-test-kernels-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _compile(*arguments: str) -> None:
    command = [sys.executable, "-m", "esper.cli", "tezzeret", "compile", *arguments]
    without_key = {name: value for name, value in os.environ.items() if name != "ESPER_KEY"}
    done = subprocess.run(
        ["nice", *command], capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False, env=without_key
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


def _compiler_digest() -> str:
    digest = hashlib.sha256()
    for name in (
        "inside_torch.py",
        "capture.py",
        "parting.py",
        "lowering.py",
        "compile.py",
        "manifest.py",
        "stack_header.py",
    ):
        digest.update((Path(esper.tezzeret.__path__[0]) / name).read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
