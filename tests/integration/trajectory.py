"""Daemons that train the recorded task: how they are laid out, and what they wrote down."""

import shutil
from pathlib import Path

from tests.integration import recorded

RECORDED = (
    f"run.random_seed={recorded.RANDOM_SEED}",
    f"growth.sites=['{recorded.SITE}']",
    "training.device=cpu",
)
"""Overrides under which a daemon's run equals `recorded.bare_trajectory`."""


def lay_out_recorded_task(folder: Path) -> None:
    """Put the task where a daemon in this folder finds it, as `recorded:build`."""
    shutil.copy(recorded.__file__, folder / "recorded.py")


def recorded_lines(folder: Path) -> list[str]:
    """What the run has written down so far: one line for every step of the host's optimizer."""
    text = (folder / recorded.TRAJECTORY).read_text()
    return text[: text.rfind("\n") + 1].splitlines()
