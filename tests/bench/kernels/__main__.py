"""`python -m tests.bench.kernels`: what kernels cost to make, to load and to keep, and what a step with them takes.

Every standard blueprint on the CPU, one torch thread: compile time and size, loading and warming up in fresh processes,
a step against the eager module and against `torch.compile` in turns, error, memory of 32 open kernels, cost of a hit in
the cache, and the delay of training steps while kernels are loaded beside them. Kernels that were compiled before, by
this or by the tests, are taken from their cache: the compile time is the one that the manifest tells. The first run
takes about fifteen minutes, later ones ten; `--quick` measures one blueprint without `torch.compile`. `--only
compile,load,step,resident,cache,prefetch` picks.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from esperd.weatherlight.serve import SWITCH_INTERVAL_S
from tests.bench.kernels import loading, prefetching, steps
from tests.bench.kernels.subjects import Subject, subjects
from tests.bench.report import Row, arguments, publish

QUICK_NAMES = ("residual_mlp",)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    num_rounds: int
    num_processes: int
    num_fetches: int
    with_compile: bool


FULL = Effort(num_rounds=60, num_processes=7, num_fetches=70, with_compile=True)
QUICK = Effort(num_rounds=20, num_processes=3, num_fetches=20, with_compile=False)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--blueprints", default="", help="comma-separated ids; all of them unless given")
    options = parser.parse_args()
    parts = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    names = options.blueprints.split(",") if options.blueprints else QUICK_NAMES if options.quick else ()
    effort = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as work:
        found = list(subjects(Path(work), names))
        rows = [row for part in parts for row in PARTS[part](found, effort)]
    publish(rows, as_json=options.json)


def _compile(found: Sequence[Subject], _: Effort) -> list[Row]:
    rows = []
    for subject in found:
        took_s, size_mb = subject.manifest.compile_s, subject.manifest.num_bytes / 1e6
        batches = f"batch {subject.manifest.min_batch} to {subject.manifest.max_batch}"
        rows.append(Row(f"{subject.name}: compile ({batches})", took_s, took_s, took_s, "s"))
        rows.append(Row(f"{subject.name}: size", size_mb, size_mb, size_mb, "MB"))
    return rows


def _load(found: Sequence[Subject], effort: Effort) -> list[Row]:
    return loading.rows(found, effort.num_processes)


def _step(found: Sequence[Subject], effort: Effort) -> list[Row]:
    return [
        row for subject in found for row in steps.rows(subject, effort.num_rounds, with_compile=effort.with_compile)
    ]


def _resident(found: Sequence[Subject], _: Effort) -> list[Row]:
    with tempfile.TemporaryDirectory() as work:
        return loading.resident_rows(found, Path(work))


def _cache(found: Sequence[Subject], _: Effort) -> list[Row]:
    return prefetching.hit_rows(found[-1])


def _prefetch(found: Sequence[Subject], effort: Effort) -> list[Row]:
    with tempfile.TemporaryDirectory() as work:
        return prefetching.delay_rows(found, effort.num_fetches, Path(work))


PARTS: dict[str, Callable[[Sequence[Subject], Effort], list[Row]]] = {
    "compile": _compile,
    "load": _load,
    "step": _step,
    "resident": _resident,
    "cache": _cache,
    "prefetch": _prefetch,
}


if __name__ == "__main__":
    main()
