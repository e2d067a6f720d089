"""Each target is fuzzed for some seconds; `python -m tests.fuzz TARGET --seconds N` goes on for longer."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("config", "envelope", "filters", "keyring", "payloads", "tokens")
SECONDS = 10
MIN_INPUTS = 200

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris, the fuzzer, is not made for this Python"
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    """Every input is read, or refused by an error that is stated for it; memory stays what it was."""
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(SECONDS), "--findings", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=150, check=False)
    told = done.stderr.decode(errors="replace")
    assert done.returncode == 0, told[-6000:]
    num_inputs = re.search(r"number_of_executed_units: *(\d+)", told)
    assert num_inputs is not None, told[-2000:]
    assert int(num_inputs[1]) >= MIN_INPUTS, "hardly anything was tried"
