"""Rounds of a few client processes against a daemon that is killed, stopped and badly connected: nothing is broken."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.robustness.processes import PreloadedLauncher
from tests.robustness.rounds.one_round import perform


@pytest.mark.timeout(0)
def test_a_round_breaks_no_promise(round_number: int, launcher: PreloadedLauncher) -> None:
    """Every promise by its name, whatever was done to the daemon and to its clients' connections."""
    folder = Path(tempfile.mkdtemp(prefix="round-", dir="/tmp"))
    report = perform(folder, launcher, time.time_ns() % 1_000_000_000 + round_number)
    print("\n".join(report.lines()))
    assert report.violations == (), f"judge it again: python -m tests.robustness.rounds --check {folder}"
    shutil.rmtree(folder)
