"""The process of one validation: reads its order, gives up what it does not need, carries out every trial.

Started by `esperd.urabrask.process`; speaks on its standard output (`channel.py`). It has no key and no say: whether
what it measured is good enough is judged where it was started.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from esperd.kasmina.kernels.kernel import Kernel
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import MANIFEST_NAME, read_manifest
from esperd.urabrask.worker import equality, memory, must_fail, opening, speed, steps
from esperd.urabrask.worker.channel import Channel, Stopped
from esperd.urabrask.worker.confinement import confine, limit
from esperd.urabrask.worker.sight import hide_files
from esperd.urabrask.worker.specimen import Specimen, make_copies

NUM_COPIES = 7
COMPILER_MODULES = ("torch._dynamo", "torch._inductor.codegen", "torch._inductor.codecache")

Trial = Callable[[Specimen, Kernel, Channel], None]
TRIALS: dict[str, Trial] = {
    "equality": equality.equality,
    "layouts": equality.layouts,
    "refused_inputs": must_fail.refused_inputs,
    "fallbacks": must_fail.fallbacks,
    "not_a_number": steps.not_a_number,
    "frozen_parameters": steps.frozen_parameters,
    "other_thread": steps.other_thread,
    "shared": steps.shared,
    "leak": memory.leak,
    "speed": speed.speed,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is to do."""

    folder: Path
    artifact_id: str
    memory_bytes: int
    cpu_s: float
    num_steps: int


def main() -> int:
    """Carry out the order on the standard input."""
    channel = Channel.instead_of_standard_output()
    content = json.load(sys.stdin)
    order = Order(**{**content, "folder": Path(content["folder"])})
    try:
        _try_out(order, channel)
    except Stopped:
        channel.stopped()
    return 0


def _try_out(order: Order, channel: Channel) -> None:
    manifest = read_manifest((order.folder / MANIFEST_NAME).read_bytes())
    on_cuda = manifest.variant.device_type == "cuda"
    limit(order.memory_bytes, order.cpu_s, on_cuda=on_cuda)
    torch.set_num_threads(1)
    channel.began("imports")
    if manifest.artifact_id != order.artifact_id:
        channel.measured("imports", 1, f"the folder holds kernel {manifest.artifact_id}")
        raise Stopped
    opening.imports(order.folder, manifest, channel)
    channel.began("fits")
    descriptor, machine = opening.fits(manifest, channel)
    specimen = Specimen(manifest, make_copies(order.folder, manifest, Path.cwd(), NUM_COPIES), descriptor, machine)
    _warm_torch(specimen)
    before = set(sys.modules)
    hide_files(Path.cwd())
    why_not = confine(on_cuda=on_cuda)
    channel.measured("confinement", 1 if why_not else 0, why_not)
    if why_not:
        raise Stopped
    _open_and_run(specimen, order, channel)
    brought = [name for name in set(sys.modules) - before if name.startswith(COMPILER_MODULES)]
    channel.measured("compiler_modules", len(brought), ", ".join(sorted(brought)[:5]))
    channel.done()


def _open_and_run(specimen: Specimen, order: Order, channel: Channel) -> None:
    """Everything that runs code of the kernel."""
    trial = "opening"
    channel.began(trial)
    try:
        opening.opening(specimen, channel)
        kernel = specimen.open()
        for trial, carry_out in TRIALS.items():
            channel.began(trial)
            carry_out(specimen, kernel, channel)
        trial = "training"
        channel.began(trial)
        steps.training(specimen, kernel, channel, order.num_steps)
        del kernel
        trial = "leak_reopened"
        channel.began(trial)
        memory.leak_reopened(specimen, channel)
    except (EsperdError, RuntimeError, ValueError, IndexError, MemoryError) as error:
        channel.failed(trial, f"{type(error).__name__}: {error}")
        raise Stopped from error


def _warm_torch(specimen: Specimen) -> None:
    """One step of the eager module: the first backward of a process brings in modules, and takes their time."""
    module = specimen.module(0)
    with specimen.conditions():
        delta = module(specimen.activation(specimen.manifest.hint_batch, 0).requires_grad_())
    delta.sum().backward()
    torch.optim.AdamW(module.parameters()).step()
    specimen.synchronize()


if __name__ == "__main__":
    sys.exit(main())
