"""Which kernels may go: a pure rule over what there is.

Any thread; knows no files. Pinned kernels, and those in use, stay whatever quota and age say.
"""

from collections.abc import Collection, Iterable

from esperd.leyline.vocabulary import KernelState
from esperd.urza.stored import Cause, LibraryLimits, StoredKernel

UPLOAD_KEEP_S = 86_400.0
"""An upload that nobody went on with for so long is given up."""
REMOVED_KEEP_S = 30 * 86_400.0
"""What is known of a kernel that is gone is kept for so long."""
MAX_REMOVED = 1000
"""Kernels that are gone and still known, at most."""

MAX_KERNELS = 1000
"""Kernels that are here or coming in, at most: small ones take little of the quota, and each takes time and memory."""
MAX_OWN_UPLOADS = 16
"""Uploads that one principal may have open."""
IDLE_UPLOAD_S = 600.0
"""An upload that nobody went on with for so long makes room for another one of the same principal."""


def leaving(
    kernels: Iterable[StoredKernel],
    limits: LibraryLimits,
    in_use: Collection[str],
    now_unix_s: float,
    needed_bytes: int = 0,
) -> list[tuple[StoredKernel, Cause]]:
    """Those that go, with the cause: uploads that were abandoned, what is too old, then what is least worth its room.

    Args:
        kernels: all that the library knows.
        limits: quota and age.
        in_use: artifact ids that seeds of this run use.
        now_unix_s: the time.
        needed_bytes: room that is needed below the quota.
    """
    present = [kernel for kernel in kernels if kernel.state is not KernelState.REMOVED]
    going: list[tuple[StoredKernel, Cause]] = []
    free: list[StoredKernel] = []
    for kernel in present:
        if kernel.state is KernelState.UPLOADING:
            if now_unix_s - kernel.update_unix_s > UPLOAD_KEEP_S:
                going.append((kernel, Cause.ABANDONED))
        elif not kernel.pinned and kernel.artifact_id not in in_use:
            if 0 < limits.keep_s < now_unix_s - kernel.last_use_unix_s:
                going.append((kernel, Cause.AGE))
            else:
                free.append(kernel)
    excess = sum(k.num_bytes for k in present) - sum(k.num_bytes for k, _ in going) + needed_bytes - limits.quota_bytes
    num_too_many = len(present) - len(going) + (needed_bytes > 0) - MAX_KERNELS
    for kernel in sorted(free, key=_worth):
        if excess <= 0 and num_too_many <= 0:
            break
        going.append((kernel, Cause.QUOTA))
        excess -= kernel.num_bytes
        num_too_many -= 1
    return going


def crowding(kernels: Iterable[StoredKernel], principal: str, now_unix_s: float) -> tuple[StoredKernel | None, str]:
    """Whether somebody has too many uploads open to begin another one.

    Returns:
        The one that is given up for it, if that is so, else why there may be no other; both empty when there is room.
    """
    own = [k for k in kernels if k.state is KernelState.UPLOADING and k.principal == principal]
    if len(own) < MAX_OWN_UPLOADS:
        return None, ""
    longest = min(own, key=lambda kernel: kernel.update_unix_s)
    if now_unix_s - longest.update_unix_s > IDLE_UPLOAD_S:
        return longest, ""
    return None, f"{principal} has {len(own)} uploads open already"


def forgettable(kernels: Iterable[StoredKernel], now_unix_s: float) -> list[StoredKernel]:
    """Those that are gone and need not be known any longer."""
    removed = sorted((k for k in kernels if k.state is KernelState.REMOVED), key=lambda k: k.update_unix_s)
    num_too_many = max(len(removed) - MAX_REMOVED, 0)
    return [k for i, k in enumerate(removed) if i < num_too_many or now_unix_s - k.update_unix_s > REMOVED_KEEP_S]


def _worth(kernel: StoredKernel) -> tuple[bool, float, str]:
    """What nobody may use goes first, then what was not used for longest."""
    return (kernel.state is not KernelState.QUARANTINED, kernel.last_use_unix_s, kernel.artifact_id)
