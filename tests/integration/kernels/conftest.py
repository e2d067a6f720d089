"""Fixtures: a daemon without a compiler and those who bring kernels, ended with their test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.kernels.beside import Beside


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option for the long form."""
    parser.addoption("--every-kernel", action="store_true", help="compile further shapes, dtypes and strategies too")


@pytest.fixture
def beside(folder: Path) -> Iterator[Beside]:
    """One run directory; shows the logs if the test failed."""
    made = Beside(folder)
    yield made
    made.close()
    print((folder / "daemon.log").read_text() if (folder / "daemon.log").exists() else "", made.compiler_log)
