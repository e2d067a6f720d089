"""What was acknowledged survives SIGKILL, and what was not leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_anywhere(tmp_path: Path) -> None:
    """At every place where a file or a row is about to be written: nothing promised is lost, and life goes on."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.integration.urza.life", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert len(done.stdout.splitlines()) >= 25
