"""What a seed waits for when its kernel is in memory already, and what training waits for while one is being fetched.

The training thread is this one; the loader is the daemon's own, with its thread.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import torch
from torch import nn

from esperd.bridge.kernel_orders import KernelOrders
from esperd.kasmina.kernels.attached import Attached
from esperd.kasmina.kernels.cache import KernelCache
from esperd.kasmina.kernels.loader import KernelLoader
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline.kernel_documents import artifact_id_of
from esperd.leyline.kernels import KernelOrder
from tests.bench.kernels.duel import spread
from tests.bench.kernels.sealing import sealed_copy, trust
from tests.bench.kernels.subjects import Subject
from tests.bench.report import Row
from tests.own_time import OwnTime

NUM_HITS = 2000
WIDTH, BATCH_SIZE = 256, 64
"""Of the model that trains while kernels are fetched: a step of about a millisecond."""
QUIET_STEPS = 40
"""Between two fetches."""
CPU = torch.device("cpu")


class Silent:
    """Hears of fallbacks and faults, of which there are none."""

    def fell_back(self, seed_id: int, reason: str) -> None:
        """Not here."""
        raise AssertionError(reason)

    def failed(self, seed_id: int, detail: str) -> None:
        """Not here."""
        raise AssertionError(detail)


def hit_rows(subject: Subject) -> list[Row]:
    """A hit in the cache, with joining the kernel to a seed's module: all that a swap at a safe point takes."""
    kernel = open_kernel(subject.folder, trust(), this_machine(CPU))
    module, listener = subject.descriptor.build(subject.shape), Silent()
    cache = KernelCache(max_bytes=1 << 30, max_kernels=32, ttl_s=600, in_use=frozenset, on_closed=lambda *_: None)
    cache.put(kernel, 0.0)
    hits_us, joins_us = [], []
    for _ in range(NUM_HITS):
        began_s = time.perf_counter()
        found = cache.get(kernel.artifact_id, 0.0)
        hit_s = time.perf_counter()
        assert found is not None
        Attached(found, module, 1, listener)
        joins_us.append((time.perf_counter() - hit_s) * 1e6)
        hits_us.append((hit_s - began_s) * 1e6)
    return [
        Row("cache hit", *spread(hits_us), "us"),
        Row("joining a kernel to a seed", *spread(joins_us), "us"),
    ]


def delay_rows(subjects: Sequence[Subject], num_fetches: int, work: Path) -> list[Row]:
    """The longest step that meets a fetch, beside the longest of as many steps just before, fetch by fetch.

    By the clock on the wall, and without what the training thread waited for a processor.
    """
    during: list[tuple[float, float]] = []
    before: list[tuple[float, float]] = []
    steps = _steps()
    with _loader() as (loader, orders):
        for number, subject in zip(range(num_fetches), cycle(subjects), strict=False):
            folder = sealed_copy(subject.folder, work / f"fetch-{number}")
            artifact_id = artifact_id_of((folder / "manifest.binpb").read_bytes())
            quiet = [next(steps) for _ in range(QUIET_STEPS)]
            orders.open(KernelOrder(artifact_id, str(folder)))
            met = list(_until_fetched(loader, steps))
            during.append(_longest(met))
            before.append(_longest(quiet[-len(met) :]))
    return [
        row
        for name, number in (("", 0), (", no wait for a processor", 1))
        for row in _compared(name, [one[number] for one in during], [one[number] for one in before])
    ]


def _longest(steps: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(wall_ms for wall_ms, _ in steps), max(own_ms for _, own_ms in steps)


def _compared(name: str, during_ms: Sequence[float], before_ms: Sequence[float]) -> list[Row]:
    ratios = [during / before for during, before in zip(during_ms, before_ms, strict=True)]
    return [
        Row(f"longest step beside a fetch{name}", *spread(during_ms), "ms"),
        Row(f"longest of as many steps before it{name}", *spread(before_ms), "ms"),
        Row(f"the one over the other{name}", *spread(ratios), "ratio"),
    ]


@contextmanager
def _loader() -> Iterator[tuple[KernelLoader, KernelOrders]]:
    judge, machine, orders = trust(), this_machine(CPU), KernelOrders(lambda: None)
    loader = KernelLoader(orders, lambda folder: open_kernel(folder, judge, machine), CPU, time.perf_counter)
    loader.start()
    try:
        yield loader, orders
    finally:
        loader.close()


def _until_fetched(loader: KernelLoader, steps: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Step until the kernel is there, and then once more; the loader's results stay open with the caller's."""
    while True:
        fetched = loader.take()
        yield next(steps)
        if fetched:
            assert not fetched[0].loaded.error_reason, fetched[0].loaded.detail
            return


def _steps() -> Iterator[tuple[float, float]]:
    """Train for ever; the milliseconds of each step, and those without waiting for a processor."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(BATCH_SIZE, WIDTH)
    own_ms = OwnTime()
    for _ in itertools.count():
        began_s, began_ms = time.perf_counter(), own_ms()
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        yield (time.perf_counter() - began_s) * 1e3, own_ms() - began_ms
