"""The kernels that are open: a few, shared by all seeds, the longest unused closed first.

Training thread only. Counts bytes and kernels; what a seed uses stays, whatever the limits say. A kernel that has
failed here is not opened again. Times are passed in.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from esperd.kasmina.kernels.kernel import Kernel

OnClosed = Callable[[str, str], None]
"""(artifact id, cause): a kernel has left."""


@dataclass(slots=True)
class _Entry:
    kernel: Kernel
    used_s: float


class KernelCache:
    """Open kernels by artifact id.

    `in_use` tells the artifact ids that seeds compute by; `on_closed` hears of each kernel that leaves, with its cause
    (`asked`, `idle`, `room`, `failed`).
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_kernels: int,
        ttl_s: float,
        in_use: Callable[[], Collection[str]],
        on_closed: OnClosed,
    ) -> None:
        self._max_bytes, self._max_kernels, self._ttl_s = max_bytes, max_kernels, ttl_s
        self._in_use = in_use
        self._on_closed = on_closed
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._failed: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, artifact_id: object) -> bool:
        return artifact_id in self._entries

    @property
    def num_bytes(self) -> int:
        """Memory that all of them take."""
        return sum(entry.kernel.resident_bytes for entry in self._entries.values())

    def failure(self, artifact_id: str) -> str:
        """How the kernel has failed in this process; empty when it has not."""
        return self._failed.get(artifact_id, "")

    def get(self, artifact_id: str, now_s: float) -> Kernel | None:
        """The kernel, used now; None when it is not open."""
        entry = self._entries.get(artifact_id)
        if entry is None:
            return None
        entry.used_s = now_s
        self._entries.move_to_end(artifact_id)
        return entry.kernel

    def put(self, kernel: Kernel, now_s: float) -> None:
        """Take in a kernel that was just opened, and make room for it; one that is there already stays instead."""
        if kernel.artifact_id not in self._entries and kernel.artifact_id not in self._failed:
            self._entries[kernel.artifact_id] = _Entry(kernel, now_s)
        self._make_room(kernel.artifact_id)

    def close(self, artifact_id: str) -> bool:
        """Close it as somebody asked; False when a seed uses it, or it is not open."""
        if artifact_id not in self._entries or artifact_id in self._in_use():
            return False
        self._drop(artifact_id, "asked")
        return True

    def fail(self, artifact_id: str, detail: str) -> None:
        """It has failed while a seed computed by it: it leaves, and is not taken in again."""
        self._failed[artifact_id] = detail
        if artifact_id in self._entries:
            self._drop(artifact_id, "failed")

    def tidy(self, now_s: float) -> None:
        """Close what no seed has used for too long, at an epoch's end. What is in use counts as used now."""
        used = self._in_use()
        for artifact_id, entry in list(self._entries.items()):
            if artifact_id in used:
                entry.used_s = now_s
            elif now_s - entry.used_s >= self._ttl_s:
                self._drop(artifact_id, "idle")

    def _make_room(self, newest: str) -> None:
        used = self._in_use()
        for artifact_id in list(self._entries):
            if len(self._entries) <= self._max_kernels and self.num_bytes <= self._max_bytes:
                return
            if artifact_id != newest and artifact_id not in used:
                self._drop(artifact_id, "room")

    def _drop(self, artifact_id: str, cause: str) -> None:
        del self._entries[artifact_id]
        self._on_closed(artifact_id, cause)
