"""The kernels of a run as the trainer sees them: taken in at safe points, their troubles counted, their numbers told.

Training thread only. What is open and what computes is Kasmina's affair (`stock.py`, `swapping.py`).
"""

from typing import TYPE_CHECKING

from esperd.kasmina.kernels.loader import Fetched
from esperd.kasmina.kernels.stock import KernelStock

if TYPE_CHECKING:
    from esperd.tolaria.parts import Parts


class RunKernels:
    """Between the stock of kernels and the run; there is no stock where kernels are switched off."""

    def __init__(self, parts: "Parts", stock: KernelStock | None) -> None:
        self._parts = parts
        self._stock = stock
        self._budget_ms = parts.settings.kernels.fetch_budget_ms
        self._is_exact = parts.settings.training.deterministic

    def start(self) -> None:
        """Begin to fetch kernels."""
        if self._stock is not None:
            self._stock.start()

    def close(self) -> None:
        """Fetch no more of them."""
        if self._stock is not None:
            self._stock.close()

    def tend(self) -> None:
        """At a safe point: take in what was fetched, close what is to be closed."""
        if self._stock is None:
            self._parts.bridge.kernel_orders.take_to_close()  # nothing is open; orders must not wait at every step
            return
        for fetched in self._stock.tend():
            self._note(fetched)

    def end_epoch(self) -> None:
        """Close what nobody has used for long."""
        if self._stock is not None:
            self._stock.end_epoch()

    def _note(self, fetched: Fetched) -> None:
        parts, loaded = self._parts, fetched.loaded
        step = parts.progress.global_step
        if loaded.error_reason:
            parts.note_change(parts.safety.note_failure("kernel", step, loaded.detail))
            return
        fetch_ms = fetched.order.copy_ms + loaded.load_ms
        if fetch_ms > self._budget_ms:
            self._note_slow(loaded.artifact_id, fetch_ms, step)
        self._emit("kasmina.prewarm.latency_ms", loaded.prewarm_ms, step)
        self._emit("kasmina.kernel.fetch_ms", fetch_ms, step)
        if self._stock is not None:
            self._emit("kasmina.kernel.num_open", float(len(self._stock.cache)), step)
            self._emit("kasmina.kernel.open_bytes", float(self._stock.cache.num_bytes), step)

    def _note_slow(self, artifact_id: str, fetch_ms: float, step: int) -> None:
        text = (
            f"kernel {artifact_id} took {fetch_ms:.1f} ms to be fetched, {self._budget_ms:g} ms are allowed; it is used"
        )
        self._parts.note("kernel.fetch_slow", text, "warning", artifact_id=artifact_id)
        if not self._is_exact:  # else no clock decides anything
            self._parts.note_change(self._parts.safety.note_failure("kernel", step, text))

    def _emit(self, name: str, value: float, step: int) -> None:
        self._parts.bridge.emit((name, 0, step, value, self._parts.unix_ns()))
