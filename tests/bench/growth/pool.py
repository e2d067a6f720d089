"""Runs independent training jobs in worker processes, one torch thread each.

One thread each keeps results bit-reproducible and lets the arms share a machine without slowing each other.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_jobs(function: Callable[[JobT], ResultT], jobs: Iterable[JobT], num_workers: int) -> list[ResultT]:
    """Results of `function` over `jobs`, in order; the function must be importable (workers are spawned)."""
    listed = list(jobs)
    if num_workers <= 1 or len(listed) <= 1:
        return [function(job) for job in listed]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(num_workers, len(listed)), mp_context=context, initializer=_one_thread
    ) as pool:
        return list(pool.map(function, listed))


def default_workers() -> int:
    """As many workers as there are processors."""
    return len(os.sched_getaffinity(0))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
