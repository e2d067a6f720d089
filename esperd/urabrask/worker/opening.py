"""Trials of opening: what the libraries ask for, whether they are for this machine, how long opening takes.

The validator's own process. The first two look at bytes; with them wrong nothing is opened.
"""

import statistics
import time
from pathlib import Path

import torch

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.kasmina.kernels import native
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.machine import Machine, this_machine
from esperd.kasmina.kernels.variant import autocast_named, dtype_named, variant_for
from esperd.leyline.kernels import KernelManifest, misfits
from esperd.urabrask.elf import NotALibraryError, findings, read_library
from esperd.urabrask.worker.channel import Channel, Stopped
from esperd.urabrask.worker.memory import resident_bytes
from esperd.urabrask.worker.specimen import Specimen

MAX_SHOWN = 5


def imports(folder: Path, manifest: KernelManifest, channel: Channel) -> None:
    """What the libraries would take from others. Raises Stopped when one of them is nothing for a process."""
    found = []
    for file in manifest.files.values():
        try:
            facts = read_library((folder / file.name).read_bytes())
        except (NotALibraryError, OSError) as error:
            found.append(f"{file.role.name.lower()}: {error}")
            continue
        wrong = findings(facts, machine=manifest.variant.machine, device_type=manifest.variant.device_type)
        found += [f"{file.role.name.lower()}: {line}" for line in wrong]
    channel.measured("imports", len(found), "; ".join(found[:MAX_SHOWN]))
    if found:
        raise Stopped


def fits(manifest: KernelManifest, channel: Channel) -> tuple[BlueprintDescriptor, Machine]:
    """The blueprint and the machine, when the kernel is for both as they are here. Raises Stopped when it is not."""
    variant = manifest.variant
    try:
        machine = this_machine(torch.device(variant.device_type))
        descriptor = standard_registry().get(variant.blueprint_id)
        here = variant_for(
            descriptor,
            variant.parameters,
            variant.tail_shape,
            dtype_named(variant.dtype),
            dtype_named(variant.weight_dtype),
            autocast_named(variant.autocast_dtype),
            machine,
        )
    except (ValueError, RuntimeError, AssertionError) as error:  # the last is how torch says that it has no CUDA
        channel.measured("fits", 1, str(error))
        raise Stopped from None
    wrong = list(misfits(variant, here))
    if manifest.draws_random:
        wrong.append("it draws random numbers, and cannot be compared with the eager module")
    channel.measured("fits", len(wrong), "; ".join(wrong))
    if wrong:
        raise Stopped
    return descriptor, machine


def opening(specimen: Specimen, channel: Channel) -> None:
    """How long it takes to open each copy (that of the quicker quarter), and to compute for the first time; how much
    memory one takes.
    """
    took_ms, first_ms, kernels = [], [], []
    before = 0
    for folder in specimen.copies.folders:
        began = time.perf_counter()
        kernel = specimen.open(folder)
        opened = time.perf_counter()
        kernel.warm_up()
        specimen.synchronize()
        took_ms.append(1e3 * (opened - began))
        first_ms.append(1e3 * (time.perf_counter() - opened))
        kernels.append(kernel)
        _warm_up_as_the_daemon_does(specimen, kernel, folder)
        # What the first brings in for all of them (symbols, workspaces) is not what one more costs.
        before = before or resident_bytes()
    quick = statistics.quantiles(took_ms, n=4)[0]  # others that compute only ever add to it
    channel.measured("load", quick, f"of {', '.join(f'{ms:.1f}' for ms in took_ms)} ms")
    channel.measured("first_run", first_ms[0])
    more = len(kernels) - 1
    channel.measured("resident", max(0, resident_bytes() - before) / more if more else 0)


def _warm_up_as_the_daemon_does(specimen: Specimen, kernel: Kernel, folder: Path) -> None:
    """Its loader calls the libraries in another way than seeds do: what cannot take that must not end the daemon."""
    if specimen.device.type != "cuda":
        files = specimen.manifest.files
        with native.libraries({role: folder / file.name for role, file in files.items()}) as found:
            kernel.warm_up(found)
