"""How fast kernels come into fresh processes, and what many of them take.

Starts processes and reads what they tell; measures nothing itself.
"""

import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from tests.bench.kernels.fresh import Fetched
from tests.bench.kernels.subjects import Subject
from tests.bench.report import Row, median_row

LOAD_GOAL_MS = 2.5
NUM_RESIDENT = 32
RESIDENT_GOAL_MB = 512.0


def rows(subjects: Sequence[Subject], num_processes: int) -> list[Row]:
    """Loading and warming up, over all kernels and processes; the first kernel of a process is told apart."""
    order = random.Random(0)
    by_name: dict[str, list[Fetched]] = {subject.name: [] for subject in subjects}
    firsts: list[Fetched] = []
    modules: set[str] = set()
    for _ in range(num_processes):
        turn = order.sample(list(subjects), len(subjects))
        fetched, found = fetch([subject.folder for subject in turn])
        firsts.append(fetched[0])
        modules.update(found)
        for subject, one in zip(turn[1:], fetched[1:], strict=True):
            by_name[subject.name].append(one)
    all_ms = [one.load_ms for found in by_name.values() for one in found]
    return [
        *(_of(name, found) for name, found in by_name.items() if found),
        *([median_row("load, all kernels", all_ms, "ms", LOAD_GOAL_MS)] if all_ms else []),
        median_row("load, first kernel of a process", [one.load_ms for one in firsts], "ms"),
        median_row("pre-warm, first kernel of a process", [one.prewarm_ms for one in firsts], "ms"),
        Row("compiler modules in those processes", len(modules), len(modules), len(modules), "", 0.0),
    ]


def resident_rows(subjects: Sequence[Subject], work: Path) -> list[Row]:
    """Memory of many open kernels: those there are, and as many copies as it takes, each loaded by itself."""
    folders = [subject.folder for subject in subjects]
    for number, folder in enumerate(islice(cycle(folders), NUM_RESIDENT - len(folders))):
        folders.append(Path(shutil.copytree(folder, work / f"copy-{number}")))
    fetched, _ = fetch(folders[:NUM_RESIDENT])
    grown_mb = sum(one.resident_bytes for one in fetched) / 1e6
    file_mb = [subject.manifest.num_bytes / 1e6 for subject in subjects]
    return [
        Row(f"{NUM_RESIDENT} kernels resident", grown_mb, grown_mb, grown_mb, "MB", RESIDENT_GOAL_MB),
        median_row("files of one kernel", file_mb, "MB"),
    ]


def fetch(folders: Sequence[Path]) -> tuple[list[Fetched], list[str]]:
    """Have a fresh process open these kernels; what each took, and which compiler modules it then had."""
    command = [sys.executable, "-m", "tests.bench.kernels.fresh", *map(str, folders)]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return [Fetched(**one) for one in told["kernels"]], told["compiler_modules"]


def _of(name: str, fetched: Sequence[Fetched]) -> Row:
    load_ms, warm_ms = [one.load_ms for one in fetched], statistics.median(one.prewarm_ms for one in fetched)
    return median_row(f"{name}: load (pre-warm {warm_ms:.2g} ms)", load_ms, "ms")
