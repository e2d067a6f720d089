"""The published vectors, checked by the signers of the other languages."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import PolicyOf
from tests.interop.toolchains import ROOT

VECTORS_FILE = ROOT / "protos" / "vectors" / "signing.json"
VECTORS: list[dict[str, Any]] = json.loads(VECTORS_FILE.read_text())["vectors"]


@pytest.mark.timeout(600)  # the first test of a language builds its client
@pytest.mark.parametrize("language", ["node", "cpp"])
def test_a_signer_makes_every_genuine_signature_and_no_other(language: str, checker_of: PolicyOf) -> None:
    """All vectors, the forged ones among them."""
    done = subprocess.run([*checker_of(language), str(VECTORS_FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    genuine = [vector for vector in VECTORS if vector["expected"] not in ("SIGNATURE_INVALID", "SIGNATURE_MISSING")]
    num_genuine = int(done.stdout.split(" vectors, ")[1].split()[0])
    assert done.stdout.startswith(f"{len(VECTORS)} vectors")
    assert len(genuine) <= num_genuine <= len(genuine) + 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["node", "cpp"])
def test_a_checker_tells_a_wrong_vector(language: str, checker_of: PolicyOf, tmp_path: Path) -> None:
    """A vector that calls a forged signature genuine fails, and is named."""
    changed = json.loads(VECTORS_FILE.read_text())
    changed["vectors"][0]["signature_hex"] = "00" * 32
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    command = [*checker_of(language), str(tmp_path / "changed.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "plain: " in done.stderr
