"""`python -m tests.robustness.rounds --minutes N --seed S`: round after round; a failing one keeps its folder.

`--check FOLDER` judges the files of an earlier round once more. Exit status 1 when anything was wrong.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.robustness.processes import PreloadedLauncher
from tests.robustness.rounds.one_round import ROUND_S, judge, perform


def main(arguments: Sequence[str]) -> int:
    """Rounds until the time is over."""
    parser = argparse.ArgumentParser(prog="tests.robustness.rounds", description="Rounds against a disturbed daemon.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--round-s", type=float, default=ROUND_S)
    parser.add_argument("--check", type=Path)
    asked = parser.parse_args(arguments)
    if asked.check is not None:
        _, violations = judge(asked.check)
        print("\n".join(violations) or "nothing is wrong")
        return 1 if violations else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    deadline_s = time.monotonic() + 60.0 * asked.minutes
    random_seed, num_wrong = asked.seed, 0
    with closing(PreloadedLauncher()) as launcher:
        while time.monotonic() < deadline_s:
            num_wrong += _one(launcher, random_seed, asked.round_s)
            random_seed += 1
    return 1 if num_wrong else 0


def _one(launcher: PreloadedLauncher, random_seed: int, seconds: float) -> int:
    folder = Path(tempfile.mkdtemp(prefix="round-", dir="/tmp"))
    try:
        report = perform(folder, launcher, random_seed, seconds)
    except BaseException:
        print(f"round {random_seed} broke off; its folder is kept: {folder}", flush=True)
        raise
    print("\n".join(report.lines()), flush=True)
    if not report.violations:
        shutil.rmtree(folder)
        return 0
    print(f"  its folder is kept, judge it again with --check {folder}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
