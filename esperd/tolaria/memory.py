"""What happens when a step does not fit into the device's memory: the newest seed goes, the step is tried once more.

Training thread only. The trainer runs the part of a step that may be done again through `MemoryRelief.run`: everything
from the executor's `before_step` to its `after_backward`, and nothing of the host's own optimizer step, which must not
be done twice. Knows no file: what the device's allocator says goes to a callable.
"""

import gc
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent
from esperd.tolaria.emergency import EmergencyEvent, ExecutorFailed, MemoryExhausted
from esperd.tolaria.task import describe

_T = TypeVar("_T")

CAUSE = "out_of_memory"
"""The cause of the cull."""


class Seeds(Protocol):
    """The seed executor, as far as memory goes."""

    def cull_newest(self, step: int, cause: str) -> int | None:
        """Cull the youngest live seed; its id, None when nothing is live."""
        ...


class Level(Protocol):
    """The run's safety, as far as memory goes."""

    def handle(self, event: EmergencyEvent, step: int) -> bool:
        """Take in an event."""
        ...


class MemoryRelief:
    """Runs steps that may run out of memory."""

    def __init__(
        self,
        seeds: Seeds,
        safety: Level,
        device: torch.device,
        *,
        clear_gradients: Callable[[], None],
        keep_summary: Callable[[int, str], str],
        report: Callable[[NoticeEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """`clear_gradients` forgets those of the host and of every seed; `keep_summary` takes a step and a text, keeps
        it in the run's directory and returns where.
        """
        self._seeds = seeds
        self._safety = safety
        self._device = device
        self._clear_gradients = clear_gradients
        self._keep_summary = keep_summary
        self._report = report
        self._clock = clock

    def run(self, work: Callable[[], _T], step: int) -> _T | None:
        """What `work` returns; None when it did not fit even after the newest seed had gone: the run is then halted,
        and the trainer leaves the step out as it leaves out one whose loss is not finite.

        Raises:
            EsperdError: OUT_OF_MEMORY, when no seed is live that could go: the host alone does not fit.
        """
        try:
            return work()
        except torch.OutOfMemoryError as error:
            detail = describe(error)
        # From here on the error is gone, and with its traceback everything that the step held.
        self._make_room(detail, step)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            detail = describe(error)
        self._free()
        self._safety.handle(MemoryExhausted(f"not even without the newest seed: {detail}"), step)
        return None

    def _make_room(self, detail: str, step: int) -> None:
        kept_at = self._keep_summary(step, self._summary(detail))
        seed_id = self._seeds.cull_newest(step, CAUSE)
        self._free()
        if seed_id is None:
            raise EsperdError("OUT_OF_MEMORY", device=self._device, detail=detail)
        message = f"step {step} did not fit into the memory of {self._device}: seed {seed_id} is culled"
        attributes = {"seed_id": str(seed_id), "summary": kept_at, "detail": detail}
        self._report(NoticeEvent("memory.exhausted", message, "error", step, 0, self._clock(), attributes))
        self._safety.handle(ExecutorFailed(message), step)

    def _free(self) -> None:
        self._clear_gradients()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _summary(self, detail: str) -> str:
        """What the allocator says, before anything is freed."""
        if self._device.type != "cuda":
            return detail + "\n"
        return f"{detail}\n\n{torch.cuda.memory_summary(self._device)}\n"
