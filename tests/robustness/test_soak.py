"""A short soak: random commands while the daemon is killed, stopped and denied its disk; then all is looked at."""

import time
from pathlib import Path

import pytest

from tests.robustness.processes import PreloadedLauncher
from tests.robustness.soak import small_disk, soak


@pytest.mark.timeout(0)
def test_a_run_survives_what_is_done_to_it(
    request: pytest.FixtureRequest, folder: Path, launcher: PreloadedLauncher
) -> None:
    """No command lost or applied twice, one outcome each, and the weights of the same commands undisturbed."""
    seconds = 60.0 * request.config.getoption("--soak-minutes")
    random_seed = time.time_ns() % 1_000_000
    with small_disk(folder / "disk") as disk:
        report = soak(folder, launcher, random_seed, seconds, disk)
    print("\n".join(report.lines()))
    assert report.violations == ()
