"""The kernel under trial with all that it is compared with: eager modules, activations, double precision.

The validator's own process. Everything made up here comes from seeds that are passed in, so that a finding can be
found again.
"""

import contextlib
import copy
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.machine import Machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.kasmina.kernels.variant import autocast_named, dtype_named
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    is_signed,
    sign_document,
    write_signature,
)
from esperd.leyline.kernels import KernelDocuments, KernelManifest, Signature

MAX_ELEMENTS = 1 << 18
"""Of an activation beyond the hint's batch size: larger ones are not tried, since they show nothing more."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of a kernel's files: a library that is opened under another name is a library that is opened anew."""

    folders: tuple[Path, ...]
    secret: bytes
    """Signs them: opening takes the time that it takes in the daemon. Who vouches for the kernel was found out before
    this process was started."""

    def check(self, documents: KernelDocuments) -> None:
        """Raise EsperdError KERNEL_SIGNATURE_INVALID unless the manifest is the one that was copied."""
        if not is_signed(self.secret, MANIFEST_DOMAIN, documents.manifest, documents.manifest_signature.hmac):
            raise EsperdError("KERNEL_SIGNATURE_INVALID", artifact_id="", detail="the copy has changed")


class Specimen:
    """A kernel's copies on disk, and everything that its manifest says it computes."""

    def __init__(
        self, manifest: KernelManifest, copies: Copies, descriptor: BlueprintDescriptor, machine: Machine
    ) -> None:
        self.manifest = manifest
        self.copies = copies
        self.descriptor = descriptor
        self.machine = machine
        self.device = torch.device(machine.device_type)
        variant = manifest.variant
        self.dtype = dtype_named(variant.dtype)
        self.weight_dtype = dtype_named(variant.weight_dtype)
        self.autocast_dtype = autocast_named(variant.autocast_dtype)

    def open(self, folder: Path | None = None) -> Kernel:
        """Open one of its copies, the first if none is named, in the order of trust."""
        return open_kernel(self.copies.folders[0] if folder is None else folder, self.copies, self.machine)

    def batches(self) -> tuple[int, ...]:
        """The batch sizes to try: both ends, one, the hint, and an odd one."""
        m = self.manifest
        per_sample = math.prod(m.variant.tail_shape)
        largest = min(m.max_batch, max(m.hint_batch, MAX_ELEMENTS // per_sample))
        odd = next((b for b in (m.hint_batch + 1, m.hint_batch - 1) if b % 2 and m.min_batch <= b <= largest), largest)
        return tuple(sorted({m.min_batch, max(1, m.min_batch), m.hint_batch, odd, largest}))

    def fresh_module(self, seed: int) -> nn.Module:
        """A module as it grows at a site, in training."""
        variant = self.manifest.variant
        with torch.random.fork_rng(), self.device:
            torch.manual_seed(seed)
            module = self.descriptor.build((self.manifest.hint_batch, *variant.tail_shape), variant.parameters)
        return module.to(self.weight_dtype).train()

    def module(self, seed: int) -> nn.Module:
        """A module whose every parameter matters: nothing is zero, as a fresh one's last layer is."""
        module = self.fresh_module(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
                parameter.normal_(std=fan_in**-0.5, generator=generator)
        return module

    def activation(self, batch: int, seed: int) -> Tensor:
        """Normal numbers of the activation's shape and dtype."""
        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (batch, *self.manifest.variant.tail_shape)
        return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

    @contextlib.contextmanager
    def conditions(self) -> Iterator[None]:
        """The autocast under which the kernel runs."""
        autocast: AbstractContextManager[object] = contextlib.nullcontext()
        if self.autocast_dtype is not None:
            autocast = torch.autocast(self.device.type, self.autocast_dtype)
        with autocast:
            yield

    def synchronize(self) -> None:
        """Wait until everything is computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def double(module: nn.Module) -> nn.Module:
    """The same module in double precision."""
    return copy.deepcopy(module).double()


def make_copies(folder: Path, manifest: KernelManifest, into: Path, number: int) -> Copies:
    """Copy a kernel's files so many times into a directory."""
    secret, data = os.urandom(32), (folder / MANIFEST_NAME).read_bytes()
    signature = Signature("copy", sign_document(secret, MANIFEST_DOMAIN, data))
    folders = tuple(into / f"copy-{index}" for index in range(number))
    for own in folders:
        own.mkdir(mode=0o700)
        (own / MANIFEST_NAME).write_bytes(data)
        (own / MANIFEST_SIGNATURE_NAME).write_bytes(write_signature(signature))
        for file in manifest.files.values():
            shutil.copyfile(folder / file.name, own / file.name)
    return Copies(folders, secret)
