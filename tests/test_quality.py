"""Format, lint, types, layers and protos: part of the tests, so that one command proves a change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports"],
        ["buf", "lint", "protos"],
        # What was released stays valid; at a release: buf build protos --exclude-source-info -o protos/released.binpb
        ["buf", "breaking", "protos", "--against", "protos/released.binpb"],
    ],
    ids=lambda command: " ".join(command),
)
def test_the_code_passes(command: list[str]) -> None:
    """Each tool, with the settings of pyproject.toml, has nothing to say."""
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    result = subprocess.run(
        [str(folder / command[0]), *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_too_long() -> None:
    """About 100 to 250 lines are pleasant; beyond 450 a file is asked to be two."""
    long = {
        str(path.relative_to(ROOT)): length
        for folder in ("esperd", "clients")
        for path in (ROOT / folder).rglob("*.py")
        if "_pb2" not in path.name and (length := len(path.read_text().splitlines())) > 450
    }
    assert long == {}


def test_ci_runs_the_command_of_the_readme() -> None:
    """`.ci/run` finds exactly one test command in the README."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv ")]
    assert len([line for line in lines if ".venv-test" in line]) == 1
    assert lines[0].endswith("esperd demo")
