"""Kernels are opened beside training and handed over at a safe point; every order is answered."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from esperd.bridge.kernel_orders import KernelOrders
from esperd.config.settings import KernelSettings
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.stock import KernelStock
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelClosed, KernelLoaded, KernelOrder
from esperd.leyline.vocabulary import KernelFileRole
from tests.unit.kasmina.kernels.made import CPU, linear_kernel

PATIENCE_S = 20.0


def gives_up(_inputs: Sequence[Tensor]) -> list[Tensor]:
    """A library that fails."""
    raise ZeroDivisionError


class Store:
    """A stock whose kernels are named by their folder."""

    def __init__(self, open_kernel: Callable[[Path], Kernel] | None = None) -> None:
        self.events: list[KernelLoaded | KernelClosed] = []
        self.threads: list[str] = []
        self.woken = 0
        self.orders = KernelOrders(self._wake)
        self.stock = KernelStock(
            KernelSettings(),
            self.orders,
            open_kernel or self._open,
            Path("local"),
            CPU,
            self.events.append,
            time.monotonic,
        )

    def _wake(self) -> None:
        self.woken += 1

    def _open(self, folder: Path) -> Kernel:
        self.threads.append(threading.current_thread().name)
        return linear_kernel(artifact_id=folder.name)

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.orders.has_mail:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_an_order_is_carried_out_beside_training():
    """On the loader's thread; nothing is there before the safe point takes it in; the wait of a paused run ends."""
    store = Store()
    store.stock.start()
    store.orders.open(KernelOrder("a", "elsewhere/a"))
    store.wait()
    with pytest.raises(EsperdError, match="not in memory"):
        store.stock.resident("a")
    (fetched,) = store.stock.tend()
    assert fetched.loaded == store.events[0]
    assert store.stock.resident("a").artifact_id == "a"
    assert store.threads == ["kernel-loader"]
    assert not store.orders.has_mail
    assert store.woken == 1
    store.stock.close()


def test_closing_waits_for_a_safe_point_and_tells():
    """Only the training thread knows what is in use."""
    store = Store()
    store.stock.fetched_now("a")
    store.orders.close("a")
    assert store.orders.has_mail
    store.stock.tend()
    assert store.events[-1] == KernelClosed("a", "asked")
    assert not store.orders.has_mail


def test_what_cannot_be_opened_is_answered_with_its_reason():
    """An error of the catalogue, or whatever a library raises at its first run."""

    def refuse(folder: Path) -> Kernel:
        if folder.name == "tampered":
            raise EsperdError("KERNEL_CORRUPT", artifact_id="tampered", detail="other bytes")
        kernel = linear_kernel(artifact_id=folder.name if folder.name != "swapped" else "another")
        kernel._runners[KernelFileRole.BACKWARD].run = gives_up  # type: ignore[method-assign]
        return kernel

    store = Store(refuse)
    for name in ("tampered", "swapped", "raises"):
        store.orders.open(KernelOrder(name, f"local/{name}"))
    store.stock.start()
    store.stock.close()
    store.stock.tend()
    reasons = {event.artifact_id: event.error_reason for event in store.events if isinstance(event, KernelLoaded)}
    assert reasons == {"tampered": "KERNEL_CORRUPT", "swapped": "KERNEL_CORRUPT", "raises": "KERNEL_UNLOADABLE"}
    assert len(store.stock.cache) == 0


def test_the_past_opens_what_it_needs_here_and_now():
    """From the run's own folder, on the thread that asks; what is open is taken as it is."""
    store = Store()
    first = store.stock.fetched_now("a")
    assert store.stock.fetched_now("a") is first
    assert store.threads == [threading.current_thread().name]
    store.stock.cache.fail("a", "it raised")
    with pytest.raises(EsperdError, match="it raised"):
        store.stock.fetched_now("a")


def test_a_kernel_that_draws_is_not_warmed_up():
    """Its draws would come from training's own generator."""

    def open_kernel(folder: Path) -> Kernel:
        kernel = linear_kernel(artifact_id=folder.name, draws_random=True)
        kernel._runners[KernelFileRole.FORWARD].run = gives_up  # type: ignore[method-assign]
        return kernel

    assert Store(open_kernel).stock.fetched_now("a").manifest.draws_random
