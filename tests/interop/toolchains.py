"""Builds the Node and the C++ client in a temporary folder, with what their users have: npm, make, g++ and protoc.

Any thread. Where a tool is missing the tests are skipped with its name; under CI they fail instead, so that nobody
takes silence for proof.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_S = 500.0


def require(*tools: str) -> None:
    """Skip, or fail under CI, unless every tool is there."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        unavailable(f"no {', '.join(missing)} here")


def unavailable(reason: str) -> None:
    """Skip the test for a reason; fail it under CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; under CI every client is tested")
    pytest.skip(reason)


def build_node(folder: Path) -> Path:
    """Install the Node client with npm; returns its folder."""
    require("node", "npm")
    target = _copied("node", folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    made = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if made.returncode != 0:
        unavailable(f"npm cannot install the packages: {made.stderr.strip()[-400:]}")
    return target


def build_cpp(folder: Path) -> Path:
    """Compile the C++ client; returns its folder."""
    require("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "libcrypto"], check=False).returncode != 0:
        unavailable("no libgrpc++-dev or libssl-dev here")
    target = _copied("cpp", folder)
    command = ["make", "--silent", f"-j{os.cpu_count() or 1}", "CXXFLAGS=-O0"]
    made = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert made.returncode == 0, made.stderr
    return target


def _copied(language: str, folder: Path) -> Path:
    """The client's sources below `folder`, which is laid out as the repository is."""
    target = folder / "clients" / language
    shutil.copytree(ROOT / "clients" / language, target, ignore=shutil.ignore_patterns("node_modules", "build"))
    for name in ("protos", "esperd"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return target
