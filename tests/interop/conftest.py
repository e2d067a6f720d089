"""Fixtures: the three policies as commands, built once for all tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.daemon.conftest import folder, start_daemon
from tests.interop import toolchains

__all__ = ["folder", "start_daemon"]

PolicyOf = Callable[[str], list[str]]
"""The command of a language's policy."""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is laid out as the repository is, where the clients are built."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture(scope="session")
def node_client(workshop: Path) -> Path:
    """The folder of the Node client, installed."""
    return toolchains.build_node(workshop)


@pytest.fixture(scope="session")
def cpp_client(workshop: Path) -> Path:
    """The folder of the C++ client, compiled."""
    return toolchains.build_cpp(workshop)


@pytest.fixture
def policy_of(request: pytest.FixtureRequest) -> PolicyOf:
    """The command that runs the policy of a language."""

    def command(language: str) -> list[str]:
        if language == "node":
            return ["node", str(request.getfixturevalue("node_client") / "policy.mjs")]
        if language == "cpp":
            return [str(request.getfixturevalue("cpp_client") / "build" / "policy")]
        return [sys.executable, "-m", "esperd.examples.policy_in_python"]

    return command


@pytest.fixture
def checker_of(request: pytest.FixtureRequest) -> PolicyOf:
    """The command that checks the test vectors in a language that has its own signer here."""

    def command(language: str) -> list[str]:
        if language == "node":
            return ["node", str(request.getfixturevalue("node_client") / "check_vectors.mjs")]
        return [str(request.getfixturevalue("cpp_client") / "build" / "check_vectors")]

    return command
