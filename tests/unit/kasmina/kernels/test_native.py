"""Libraries called through their C interface, beside torch's own way."""

from pathlib import Path

import pytest
import torch

from esperd.kasmina.kernels import native
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline.kernels import KernelDocuments
from tests.kernel_faults import make


class Anybody:
    """Trusts whatever it is shown."""

    def check(self, documents: KernelDocuments) -> None:
        """Raise nothing."""


def test_a_library_that_keeps_its_inputs_places(tmp_path: Path) -> None:
    """It owns what it was given, whether it says so or not: nothing is freed twice, run after run."""
    manifest = make(tmp_path / "k")
    kernel = open_kernel(tmp_path / "k", Anybody(), this_machine(torch.device("cpu")))
    paths = {role: tmp_path / "k" / file.name for role, file in manifest.files.items()}
    with native.libraries(paths) as found:
        if found is None:
            pytest.skip("this torch has not the names that it takes")
        for _ in range(200):
            kernel.warm_up(found)


def test_without_an_open_library_there_is_no_such_way(tmp_path: Path) -> None:
    """The kernel's own way is then taken, and nothing is opened that nobody has proven."""
    manifest = make(tmp_path / "k")
    with native.libraries({role: tmp_path / "k" / file.name for role, file in manifest.files.items()}) as found:
        assert found is None
