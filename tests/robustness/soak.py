"""A soak: random commands for some minutes, while the daemon is killed, stopped, starved of disk, and started again.

`python -m tests.robustness.soak --minutes N --seed S` prints what it did and what the validators found; exit status 1
when they found anything, and the run's folder is then kept. Afterwards the run is performed once more from its journal,
command by command at the recorded steps and without any disturbance: it must end with the same weights.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from esper.client.errors import LeylineError

from tests.robustness.comparison import final_checkpoint
from tests.robustness.history import History
from tests.robustness.nemesis import Nemesis
from tests.robustness.performance import Performance
from tests.robustness.processes import Launcher, PreloadedLauncher
from tests.robustness.random_commands import RandomCommands
from tests.robustness.replay import replay, went_back_by_itself
from tests.robustness.script import OVERRIDES
from tests.robustness.validators import Violations, all_violations, weights_equal

STEP_S = 0.003
"""Pause in every step of the soak, so that its run stays short enough to be performed once more."""
_DISK_BYTES = 48 << 20
_FAULTS = ("Traceback", "an outcome was not recorded", "rows were lost")
_EXPLAINED = ("disk", "Errno")
_SOAK_OVERRIDES = (
    *(override for override in OVERRIDES if not override.startswith(("run.start_paused", "checkpoints.keep="))),
    f"run.task_options.step_s={STEP_S}",
    "checkpoints.keep=4",
    "control.training_share=1.0",
)


@dataclass(slots=True)
class Report:
    """What a soak did and what it found."""

    random_seed: int
    num_starts: int = 0
    num_steps: int = 0
    num_timelines: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """Commands by kind and outcome."""
    disturbances: dict[str, int] = field(default_factory=dict)
    """How often each was done."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How the starts have ended."""
    is_replayed: bool = True
    """Whether its weights could be compared; not those of a run that went back by a rule of its own."""
    violations: Violations = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        sizes = f"{self.num_starts} starts, {self.num_steps} steps, {self.num_timelines} timelines"
        yield f"seed {self.random_seed}: {sizes}"
        yield "disturbances: " + ", ".join(f"{name} {count}" for name, count in sorted(self.disturbances.items()))
        yield "ends: " + ", ".join(f"{name} {count}" for name, count in sorted(self.statuses.items()))
        yield "commands: " + ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        if not self.is_replayed:
            yield "the run went back by a rule of its own: its weights were not compared"
        yield from (f"WRONG {line}" for line in self.violations)
        yield "nothing was lost" if not self.violations else f"{len(self.violations)} violations"


def soak(folder: Path, launcher: Launcher, random_seed: int, seconds: float, disk: Path | None = None) -> Report:
    """One soak in a folder.

    Args:
        folder: where the runs go; must be short enough for a socket.
        launcher: starts the daemons.
        random_seed: decides what is done, though not what comes of it.
        seconds: how long commands are sent.
        disk: a small file system of its own for the run; None leaves disk-full to failpoints.
    """
    source = random.Random(random_seed)
    run_folder = disk or folder / "soaked"
    run_folder.mkdir(exist_ok=True)
    with closing(Performance(run_folder, launcher, _SOAK_OVERRIDES)) as performance:
        nemesis = Nemesis(performance, source, disk)
        commands = RandomCommands(performance, source)
        try:
            deadline_s = time.monotonic() + seconds
            while time.monotonic() < deadline_s:
                nemesis.maybe()
                commands.send_one()
        finally:
            nemesis.end()
        commands.bring_to_its_end()
        history = performance.history()
        found = list(all_violations(history))
        found += [f"log: {line}" for line in faults(performance.log)]
    if not went_back_by_itself(history):
        found += [f"WeightsEqual: {line}" for line in _replayed(folder, launcher, history, run_folder)]
    return _report(random_seed, performance, nemesis, history, tuple(found))


def _replayed(folder: Path, launcher: Launcher, history: History, soaked: Path) -> Violations:
    quiet = folder / "replayed"
    quiet.mkdir()
    try:
        replay(quiet, launcher, history, _SOAK_OVERRIDES)
        return weights_equal(final_checkpoint(soaked), final_checkpoint(quiet))
    except (AssertionError, LeylineError) as wrong:
        return (f"it cannot be performed again: {wrong}",)


def faults(log: str) -> list[str]:
    """Lines of the log that no disturbance explains: faults of the daemon's own."""
    return [line[:500] for line in log.splitlines()
            if any(words in line for words in _FAULTS) and not any(words in line for words in _EXPLAINED)]  # fmt: skip


def _report(
    random_seed: int, performance: Performance, nemesis: Nemesis, history: History, found: Violations
) -> Report:
    kinds = {row.command_id: row.kind for row in history.commands}
    names = ("", "", "applied", "rejected", "expired", "cancelled", "failed")
    outcomes = Counter(f"{kinds[row.command_id]} {names[row.state]}" for row in history.outcomes)
    return Report(
        random_seed,
        performance.num_starts,
        max(row.global_step for row in history.outcomes),
        1 + len(history.timelines),
        dict(outcomes),
        dict(nemesis.done),
        dict(Counter(map(str, performance.statuses))),
        not went_back_by_itself(history),
        found,
    )


@contextmanager
def small_disk(path: Path, num_bytes: int = _DISK_BYTES) -> Iterator[Path | None]:
    """A file system in memory of this size at `path`; None where this user may not mount one."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def main(arguments: Sequence[str]) -> int:
    """Soaks of about a minute each, until the time is over."""
    parser = argparse.ArgumentParser(description="Soak the daemon.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--round-s", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    deadline_s = time.monotonic() + 60.0 * asked.minutes
    random_seed, num_wrong = asked.seed, 0
    with closing(PreloadedLauncher()) as launcher:
        while time.monotonic() < deadline_s:
            seconds = min(asked.round_s, deadline_s - time.monotonic())
            num_wrong += _one_round(launcher, random_seed, seconds, as_json=asked.json)
            random_seed += 1
    return 1 if num_wrong else 0


def _one_round(launcher: Launcher, random_seed: int, seconds: float, *, as_json: bool) -> int:
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))
    with small_disk(folder / "disk") as disk:
        report = soak(folder, launcher, random_seed, seconds, disk)
        if report.violations and disk is not None:
            shutil.copytree(disk, folder / "kept", ignore=shutil.ignore_patterns("*.sock"))
    if as_json:
        print(json.dumps({name: getattr(report, name) for name in Report.__slots__}), flush=True)
    else:
        print("\n".join(report.lines()), flush=True)
    if report.violations:
        print(f"the folder is kept: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return len(report.violations)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
