"""Fixtures of the robustness tests: one preloaded process for all daemons, and folders short enough for a socket."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.matrix import diagonals, whole_matrix
from tests.robustness.processes import PreloadedLauncher


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for the long forms."""
    parser.addoption("--whole-matrix", action="store_true", help="crash at every failpoint with every kind of command")
    parser.addoption("--rounds", type=int, default=6, help="how many rounds of 20 seconds")
    parser.addoption("--soak-minutes", type=float, default=0.5, help="how long the soak test lasts")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cells of the matrix, a selection or all; and the rounds."""
    if "cell" in metafunc.fixturenames:
        chosen = whole_matrix() if metafunc.config.getoption("--whole-matrix") else diagonals()
        cells = list(dict.fromkeys(chosen))
        metafunc.parametrize("cell", cells, ids=[cell.name for cell in cells])
    if "round_number" in metafunc.fixturenames:
        metafunc.parametrize("round_number", range(metafunc.config.getoption("--rounds")))


@pytest.fixture(scope="module")
def launcher() -> Iterator[PreloadedLauncher]:
    """Forks daemons that have torch loaded."""
    found = PreloadedLauncher()
    yield found
    found.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a Unix socket in it."""
    path = Path(tempfile.mkdtemp(prefix="crash-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def quiet_folder() -> Iterator[Path]:
    """The same for the undisturbed run."""
    path = Path(tempfile.mkdtemp(prefix="quiet-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def quiet_workers() -> Iterator[Path]:
    """The same for the undisturbed run with data workers."""
    path = Path(tempfile.mkdtemp(prefix="quiet-", dir="/tmp"))
    yield path
    shutil.rmtree(path)
