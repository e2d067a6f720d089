"""Calling a kernel's libraries through their C interface: what torch's own call gives, and nothing left behind."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from esperd.bridge.kernel_orders import KernelOrders
from esperd.kasmina.kernels import native
from esperd.kasmina.kernels.kernel import Kernel, Runner
from esperd.kasmina.kernels.loader import Fetched, KernelLoader
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline.kernels import KernelOrder
from esperd.leyline.vocabulary import KernelFileRole, KernelInputKind
from tests.kernels import compiled
from tests.unit.kasmina.kernels.offered import Witness, offered

pytestmark = pytest.mark.timeout(400)  # compiles the kernel, once on a machine
CPU = torch.device("cpu")
NUM_CYCLES = 200
LEAK_LIMIT_BYTES = 8 << 20
"""Half of the cycles that each leave a batch behind would take three times that."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the loader computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / offered(compiled("residual_conv", (16, 32, 16, 16)), tmp_path)


@pytest.fixture
def kernel(folder: Path) -> Kernel:
    return open_kernel(folder, Witness(), this_machine(CPU))


def paths_of(kernel: Kernel, folder: Path) -> dict[KernelFileRole, Path]:
    return {role: folder / file.name for role, file in kernel.manifest.files.items()}


def inputs_of(kernel: Kernel) -> list[torch.Tensor]:
    batch, activation = kernel.manifest.hint_batch, KernelInputKind.ACTIVATION
    shapes = [(batch, *one.shape) if one.kind is activation else one.shape for one in kernel.manifest.inputs]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def own(kernel: Kernel) -> dict[KernelFileRole, Runner]:
    """The libraries by torch's call."""
    return dict(kernel._runners)


def all_outputs(kernel: Kernel, runners: Mapping[KernelFileRole, Runner]) -> list[torch.Tensor]:
    with torch.inference_mode():
        inputs = inputs_of(kernel)
        outputs = runners[KernelFileRole.FORWARD].run(inputs)
        saved = [inputs[index] if is_input else outputs[index] for is_input, index in kernel.saved]
        given = [*saved, outputs[kernel.output_index].cos()]
        gradients = runners[KernelFileRole.BACKWARD].run(given)
        return [*outputs, *gradients, *runners[KernelFileRole.PARAMETER_BACKWARD].run(given)]


def test_both_ways_compute_the_same(kernel: Kernel, folder: Path):
    """Bit for bit: it is the same code."""
    with native.libraries(paths_of(kernel, folder)) as libraries:
        assert libraries is not None
        found = all_outputs(kernel, libraries)
    assert len(found) > len(kernel.manifest.inputs)
    assert all(map(torch.equal, found, all_outputs(kernel, own(kernel))))


@pytest.mark.slow
def test_nothing_is_left_behind(kernel: Kernel, folder: Path):
    """Inputs, outputs and containers of many cycles are gone."""
    for _ in range(5):
        warm_up(kernel, folder)
    before = psutil.Process().memory_info().rss
    for _ in range(NUM_CYCLES):
        warm_up(kernel, folder)
    assert psutil.Process().memory_info().rss - before < LEAK_LIMIT_BYTES


def warm_up(kernel: Kernel, folder: Path) -> None:
    with native.libraries(paths_of(kernel, folder)) as libraries:
        kernel.warm_up(libraries)


def test_a_refusal_is_an_error_that_tells_why(kernel: Kernel, folder: Path):
    """What the library has not taken stays in memory then: whether it has taken it, nobody can tell."""
    wrong = [tensor.double() for tensor in inputs_of(kernel)]
    with native.libraries(paths_of(kernel, folder)) as libraries, torch.inference_mode():
        assert libraries is not None
        with pytest.raises(RuntimeError, match="unmatched dtype"):
            libraries[KernelFileRole.FORWARD].run(wrong)


def test_another_number_of_inputs_never_reaches_the_library(kernel: Kernel, folder: Path):
    """It would end the process."""
    with native.libraries(paths_of(kernel, folder)) as libraries:
        assert libraries is not None
        with pytest.raises(RuntimeError, match="inputs, not"):
            libraries[KernelFileRole.FORWARD].run(inputs_of(kernel)[1:])


def test_a_library_that_is_not_open_is_not_opened(kernel: Kernel, folder: Path, tmp_path: Path):
    """Who may come into the process is decided elsewhere."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    with native.libraries(paths_of(kernel, copy)) as libraries:
        assert libraries is None


def test_what_fails_in_warming_up_makes_a_kernel_unloadable(folder: Path):
    """The order is answered, with what the library said."""
    loaded = fetched(folder, wrong_shape=True).loaded
    assert loaded.error_reason == "KERNEL_UNLOADABLE"
    assert "unmatched" in loaded.detail


@pytest.mark.parametrize("name", ["_HANDLES_OF", "_CALLS"])
def test_a_torch_without_the_names_warms_up_by_its_own_call(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Slower beside training, and right."""
    monkeypatch.setattr(native, name, {"NoSuchCall": []} if name == "_CALLS" else "no_such_function")
    result = fetched(folder)
    assert not result.loaded.error_reason
    assert result.kernel is not None
    with native.libraries(paths_of(result.kernel, folder)) as libraries:
        assert libraries is None


def fetched(folder: Path, *, wrong_shape: bool = False) -> Fetched:
    """What the loader makes of the kernel, whose manifest may lie about its first parameter."""

    def opened(path: Path) -> Kernel:
        kernel = open_kernel(path, Witness(), this_machine(CPU))
        if wrong_shape:
            first, *others = kernel.manifest.inputs
            lie = replace(first, shape=tuple(size + 1 for size in first.shape))
            kernel.manifest = replace(kernel.manifest, inputs=(lie, *others))
        return kernel

    loader = KernelLoader(KernelOrders(lambda: None), opened, CPU, time.monotonic)
    return loader.fetch(KernelOrder(folder.name, str(folder)))
