"""What a run has of kernels: those that are open, the thread that opens more, and the private folder they come from.

Training thread only; the loader's thread is inside. Knows no seed: whoever computes by a kernel says what is in use.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import torch

from esperd.bridge.kernel_orders import KernelOrders
from esperd.config.settings import KernelSettings
from esperd.kasmina.kernels.cache import KernelCache
from esperd.kasmina.kernels.kernel import Kernel
from esperd.kasmina.kernels.loader import Fetched, KernelLoader, Open
from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelClosed, KernelLoaded, KernelOrder


class KernelStock:
    """The kernels of one run."""

    def __init__(
        self,
        settings: KernelSettings,
        orders: KernelOrders,
        open_kernel: Open,
        local: Path,
        device: torch.device,
        record: Callable[[KernelLoaded | KernelClosed], None],
        clock: Callable[[], float],
    ) -> None:
        """Make an empty stock.

        Args:
            settings: how much may be open, and for how long.
            orders: the bridge's line.
            open_kernel: proves and opens the kernel in a folder.
            local: folder of the run's own copies, each under its artifact id.
            device: where kernels run.
            record: sends an event up the bridge.
            clock: monotonic seconds.
        """
        self._orders, self._local, self._record, self._clock = orders, local, record, clock
        self._loader = KernelLoader(orders, open_kernel, device, clock)
        self.in_use: Callable[[], Collection[str]] = frozenset
        """Artifact ids that seeds compute by; set by whoever knows the seeds."""
        self.cache = KernelCache(
            max_bytes=settings.cache_bytes,
            max_kernels=settings.cache_kernels,
            ttl_s=settings.cache_ttl_s,
            in_use=lambda: self.in_use(),
            on_closed=lambda artifact_id, cause: record(KernelClosed(artifact_id, cause)),
        )
        self._prewarm_ms: dict[str, float] = {}

    def start(self) -> None:
        """Begin to take orders from the bridge."""
        self._loader.start()

    def close(self) -> None:
        """Take no more of them."""
        self._loader.close()

    def tend(self) -> list[Fetched]:
        """At a safe point: take in what was opened, close what is to be closed; what was fetched meanwhile."""
        to_close = self._orders.take_to_close()
        fetched = self._loader.take()
        for one in fetched:
            self._take_in(one)
            self._record(one.loaded)
        for artifact_id in to_close:
            self.cache.close(artifact_id)
        return fetched

    def end_epoch(self) -> None:
        """Close what nobody has used for long."""
        self.cache.tidy(self._clock())

    def resident(self, artifact_id: str) -> Kernel:
        """The kernel, if it is open.

        Raises:
            EsperdError: KERNEL_UNLOADABLE when it has failed in this process, else KERNEL_NOT_RESIDENT.
        """
        failure = self.cache.failure(artifact_id)
        if failure:
            raise EsperdError("KERNEL_UNLOADABLE", artifact_id=artifact_id, detail=failure.rstrip("."))
        kernel = self.cache.get(artifact_id, self._clock())
        if kernel is None:
            raise EsperdError(
                "KERNEL_NOT_RESIDENT", artifact_id=artifact_id, detail="nobody has fetched it, or it left"
            )
        return kernel

    def fetched_now(self, artifact_id: str) -> Kernel:
        """The kernel, opened here and now if need be: for a past that is done again, in which it was open.

        Raises:
            EsperdError: what keeps it from being opened.
        """
        try:
            return self.resident(artifact_id)
        except EsperdError as error:
            if error.reason != "KERNEL_NOT_RESIDENT":
                raise
        fetched = self._loader.fetch(KernelOrder(artifact_id, str(self._local / artifact_id)))
        self._take_in(fetched)
        self._record(fetched.loaded)
        if fetched.kernel is None:
            detail = fetched.loaded.detail.rstrip(".")  # that of another error may be a sentence
            raise EsperdError("KERNEL_UNLOADABLE", artifact_id=artifact_id, detail=detail)
        return fetched.kernel

    def prewarm_ms(self, artifact_id: str) -> float:
        """What warming it up took when it was opened last."""
        return self._prewarm_ms.get(artifact_id, 0.0)

    def _take_in(self, fetched: Fetched) -> None:
        if fetched.kernel is not None:
            self._prewarm_ms[fetched.kernel.artifact_id] = fetched.loaded.prewarm_ms
            self.cache.put(fetched.kernel, self._clock())
