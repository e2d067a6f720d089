"""A kernel that is fetched beside a training run takes neither steps nor the interpreter from it."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from esperd.bridge.kernel_orders import KernelOrders
from esperd.config.settings import KernelSettings
from esperd.kasmina.kernels.loader import KernelLoader
from esperd.kasmina.kernels.machine import this_machine
from esperd.kasmina.kernels.opening import open_kernel
from esperd.leyline.kernels import KernelLoaded, KernelOrder
from esperd.weatherlight.serve import SWITCH_INTERVAL_S
from tests.kernels import compiled
from tests.own_time import OwnTime
from tests.unit.kasmina.kernels.offered import Witness, offered
from tests.unit.tolaria.harness import Run, make_task
from tests.unit.tolaria.test_resuming import settings

pytestmark = pytest.mark.timeout(400)  # compiles the kernel, once on a machine
BLUEPRINT_ID, SHAPE = "residual_conv", (16, 32, 16, 16)
"""Warming it up computes for some 25 ms, in three calls."""
NUM_ROUNDS, NUM_FETCHES = 6, 15
"""Other programs may spoil a round; a cause in the fetch itself spoils all."""
NUM_WARM_STEPS = 100
NUM_LIBRARIES = 3
TICK_MS = 0.2
WIDTH = 128
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_in_the_daemon() -> Iterator[None]:
    """One thread computes a step, and threads take turns as they do in the daemon."""
    before = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], KernelOrder]:
    """Orders of a kernel that this process has not opened: each has its own copy."""
    folder = compiled(BLUEPRINT_ID, SHAPE)

    def order() -> KernelOrder:
        into = tmp_path / f"copy-{len(list(tmp_path.glob('copy-*')))}"
        return KernelOrder(artifact_id := offered(folder, into), str(into / artifact_id))

    return order


class Training:
    """A run whose steps are timed; this thread is its training thread."""

    def __init__(self, own_ms: OwnTime) -> None:
        chosen = replace(settings(), kernels=KernelSettings(fetch_budget_ms=1e6))
        model = nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))
        self.run = Run(make_task(model=model), chosen, kernel_trust=Witness())
        self._own_ms = own_ms

    def step_ms(self) -> float:
        began_ms = self._own_ms()
        self.run.trainer.step()
        return self._own_ms() - began_ms

    def beside(self, order: KernelOrder) -> list[float]:
        """The steps from an order to the safe point that takes the kernel in."""
        self.run.bridge.load_kernel(order)
        found = []
        while True:
            found.append(self.step_ms())
            for event in self.run.bridge.take_events(1 << 30):
                if isinstance(event, KernelLoaded):
                    assert not event.error_reason, event.detail
                    return found


@contextmanager
def training() -> Iterator[Training]:
    own_ms = OwnTime()
    made = Training(own_ms)
    made.run.begin()
    made.run.trainer.parts.kernels.start()
    try:
        yield made
    finally:
        made.run.trainer.parts.kernels.close()
        own_ms.close()


def test_a_fetch_delays_no_step_beyond_the_spread_of_the_control(fresh: Callable[[], KernelOrder]):
    """The longest step that meets a fetch is, typically, no longer than the longest ones do without any fetch."""
    told = []
    with training() as run:
        for _ in range(NUM_WARM_STEPS):
            run.step_ms()
        for _ in range(NUM_ROUNDS):
            beside_ms, without_ms = zip(*(pair(run, fresh()) for _ in range(NUM_FETCHES)), strict=True)
            told.append((statistics.median(beside_ms), max(without_ms)))
            if told[-1][0] <= told[-1][1]:
                return
    pytest.fail(f"beside a fetch and, at the most, without, ms: {told}")


def pair(run: Training, order: KernelOrder) -> tuple[float, float]:
    """The longest step beside a fetch, and the longest of as many without."""
    beside_ms = run.beside(order)
    return max(beside_ms), max(run.step_ms() for _ in beside_ms)


def test_the_interpreter_is_free_while_a_kernel_warms_up(fresh: Callable[[], KernelOrder]):
    """No other thread waits for it as long as a library computes: the work is native, and holds nothing."""
    told, own_ms, orders = [], OwnTime(), KernelOrders(lambda: None)
    loader = KernelLoader(orders, lambda folder: open_kernel(folder, Witness(), this_machine(CPU)), CPU, time.monotonic)
    loader.start()
    try:
        for _ in range(NUM_ROUNDS):
            held_ms, computed_ms = zip(
                *(waits(loader, orders, fresh(), own_ms) for _ in range(NUM_FETCHES)), strict=True
            )
            told.append((statistics.median(held_ms), statistics.median(computed_ms) / NUM_LIBRARIES / 2))
            if told[-1][0] < told[-1][1]:
                return
    finally:
        loader.close()
        own_ms.close()
    pytest.fail(f"waited for the interpreter, and half of what a library computes, ms: {told}")


def waits(loader: KernelLoader, orders: KernelOrders, order: KernelOrder, own_ms: OwnTime) -> tuple[float, float]:
    """The longest wait for the interpreter beside a fetch, and the processor time of warming that kernel up again."""
    orders.open(order)
    longest_ms = 0.0
    while not (fetched := loader.take()):
        began_ms = own_ms()
        time.sleep(TICK_MS / 1e3)
        longest_ms = max(longest_ms, own_ms() - began_ms - TICK_MS)
    kernel = fetched[0].kernel
    assert kernel is not None, fetched[0].loaded.detail
    began_s = time.thread_time()
    kernel.warm_up()
    return longest_ms, (time.thread_time() - began_s) * 1e3
