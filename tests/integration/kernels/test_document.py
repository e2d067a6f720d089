"""`kernels.md`: what it names exists, what it signs is signed so, and its commands are those of the command lines."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from esper.cli import main as esper
from esper.ctl.main import main as esperctl
from esper.leyline.v1.kernel_pb2 import KernelState

from esperd.config.settings import KernelSettings
from esperd.leyline.errors import CATALOGUE

DOCUMENT = (Path(__file__).parents[3] / "esperd" / "docs" / "kernels.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_every_reason_is_in_the_catalogue() -> None:
    """What a reader is told to look for can come, and every reason of kernels that he may meet is there to be met."""
    named = set(re.findall(r"\bKERNELS?_[A-Z_]+\b", DOCUMENT))
    assert len(named) > 10
    assert named <= set(CATALOGUE)


def test_every_setting_and_state_is_told() -> None:
    """By its name."""
    for field in dataclasses.fields(KernelSettings):
        assert f"`{field.name}`" in DOCUMENT or f"[kernels] {field.name}`" in DOCUMENT, field.name
    for state in list(KernelState.keys())[1:]:
        assert f"| {state.removeprefix('KERNEL_STATE_')} |" in DOCUMENT


def test_the_shell_signs_a_manifest(tmp_path: Path) -> None:
    """The document's lines of bash and openssl print what it says they print."""
    (signer,) = [block for block in BLOCKS if "openssl dgst" in block]
    command = ["bash", "-euo", "pipefail", "-c", signer]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"It prints `{done.stdout.split()[-1]}`" in DOCUMENT


@pytest.mark.parametrize("line", sorted(set(re.findall(r"\b(?:esperctl|esper) [a-z-]+(?: [a-z-]+)*", DOCUMENT))))
def test_every_command_exists(line: str) -> None:
    """Each answers to --help."""
    program, *words = line.split()
    arguments = ["1" if word == "my" else word for word in words]
    if arguments[:2] == ["seed", "kernel"]:
        arguments = ["seed", "kernel", "1"]
    result = CliRunner().invoke(esperctl if program == "esperctl" else esper, [*arguments, "--help"])
    assert result.exit_code == 0, result.output
