"""What is measured: every standard blueprint at one site of its kind, compiled once for all benchmarks and tests.

Knows nothing of time. Compiling is done, or found done, by `tests.kernels`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from esperd.kasmina.blueprints.descriptor import BlueprintDescriptor, Shape
from esperd.kasmina.blueprints.registry import standard_registry
from esperd.leyline.kernel_documents import MANIFEST_NAME, read_manifest
from esperd.leyline.kernels import KernelManifest
from tests.bench.kernels.sealing import sealed_copy
from tests.kernels import compiled

SHAPES: dict[int, Shape] = {2: (64, 128), 3: (8, 64, 128), 4: (16, 32, 16, 16)}
"""The site of each rank: rows, sequences, images; batch size first."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One blueprint with its kernel."""

    descriptor: BlueprintDescriptor
    shape: Shape
    folder: Path
    manifest: KernelManifest

    @property
    def name(self) -> str:
        """The blueprint's id."""
        return self.descriptor.blueprint_id


def subjects(work: Path, names: Sequence[str] = ()) -> Iterator[Subject]:
    """Those blueprints, or all; each compiled when it is its turn, and sealed in a folder of its own."""
    for descriptor in standard_registry():
        if names and descriptor.blueprint_id not in names:
            continue
        shape = SHAPES[min(descriptor.ranks)]
        folder = sealed_copy(compiled(descriptor.blueprint_id, shape), work / descriptor.blueprint_id)
        yield Subject(descriptor, shape, folder, read_manifest((folder / MANIFEST_NAME).read_bytes()))
