"""The thread that opens kernels and warms them up, so that training waits for neither a disk nor a first call.

Takes orders from the bridge and hands opened kernels to the training thread, which looks at its next safe point.
Computes with one thread of its own, and on a CUDA device in a stream of its own, so that it takes little from training.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from esperd.bridge.kernel_orders import KernelOrders
from esperd.kasmina.kernels import native
from esperd.kasmina.kernels.kernel import Kernel
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelLoaded, KernelOrder

PATIENCE_S = 10.0
"""Opening takes milliseconds; a library that hangs while it is opened must not keep the daemon from leaving."""

Open = Callable[[Path], Kernel]
"""Proves and opens the kernel in a folder; raises EsperdError."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of an order."""

    order: KernelOrder
    loaded: KernelLoaded
    kernel: Kernel | None
    """None when there is an error."""


class KernelLoader:
    """Opens one kernel after another. `clock` gives monotonic seconds."""

    def __init__(
        self, orders: KernelOrders, open_kernel: Open, device: torch.device, clock: Callable[[], float]
    ) -> None:
        self._orders = orders
        self._open = open_kernel
        self._device = device
        self._clock = clock
        self._done: deque[Fetched] = deque()
        self._thread = threading.Thread(target=self._work, name="kernel-loader", daemon=True)

    # Training thread

    def start(self) -> None:
        """Begin to take orders."""
        self._thread.start()

    def close(self) -> None:
        """Take no more orders, and wait a little for the kernel that is being opened."""
        self._orders.end()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)

    def take(self) -> list[Fetched]:
        """What has come of orders since the last call."""
        taken = []
        while self._done:
            taken.append(self._done.popleft())
        return taken

    # Its own thread; `fetch` also the training thread, for a past that is done again

    def _work(self) -> None:
        torch.set_num_threads(1)  # holds for this thread
        while (order := self._orders.next_to_open()) is not None:
            self._done.append(self.fetch(order))
            self._orders.tell()

    def fetch(self, order: KernelOrder) -> Fetched:
        """Carry out one order; never raises what a kernel may."""
        began_s = self._clock()
        try:
            kernel = self._open(Path(order.folder))
            if kernel.artifact_id != order.artifact_id:
                detail = f"its folder holds {kernel.artifact_id}"
                raise EsperdError("KERNEL_CORRUPT", artifact_id=order.artifact_id, detail=detail)
            opened_s = self._clock()
            self._warm_up(kernel, Path(order.folder))
        except EsperdError as error:
            return Fetched(order, KernelLoaded(order.artifact_id, error.reason, error.message), None)
        except Exception as error:  # noqa: BLE001 - a native library may raise anything; the order must be answered
            detail = f"its first run raised {type(error).__name__}: {error}"
            refusal = EsperdError("KERNEL_UNLOADABLE", artifact_id=order.artifact_id, detail=detail)
            return Fetched(order, KernelLoaded(order.artifact_id, refusal.reason, refusal.message), None)
        load_ms, prewarm_ms = (opened_s - began_s) * 1e3, (self._clock() - opened_s) * 1e3
        loaded = KernelLoaded(order.artifact_id, "", "", load_ms, prewarm_ms, kernel.resident_bytes)
        return Fetched(order, loaded, kernel)

    def _warm_up(self, kernel: Kernel, folder: Path) -> None:
        if kernel.manifest.draws_random:
            return  # its draws would come from training's own generator
        if self._device.type != "cuda":
            with native.libraries({role: folder / file.name for role, file in kernel.manifest.files.items()}) as found:
                kernel.warm_up(found)
            return
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch does not type it
        with torch.cuda.stream(stream):
            kernel.warm_up()
        stream.synchronize()
