"""One kernel as the daemon knows it, whole: a wish that nobody has met, or an artifact with what has become of it.

Pure values, and how they are shown to clients.
"""

from dataclasses import dataclass

from esper.leyline.v1 import kernel_pb2

from esperd.control.shown import timestamp, wire
from esperd.leyline.kernel_documents import variant_message, write_report
from esperd.leyline.kernels import KernelReport, KernelVariant
from esperd.leyline.vocabulary import BlueprintTier, KernelState
from esperd.urza.stored import StoredKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """See `Kernel` in the contract for each field."""

    variant_key: str
    state: KernelState
    variant: KernelVariant
    hint_batch: int
    tier: BlueprintTier
    update_unix_s: float
    artifact_id: str = ""
    min_batch: int = 0
    max_batch: int = 0
    sites: tuple[str, ...] = ()
    num_waiting_seeds: int = 0
    seed_ids: tuple[int, ...] = ()
    num_bytes: int = 0
    pinned: bool = False
    principal: str = ""
    report: KernelReport | None = None
    detail: str = ""
    num_attempts: int = 0
    resident: bool = False

    @property
    def name(self) -> str:
        """What tells it from every other row: a wish is named by its key until there is an artifact."""
        return self.artifact_id or self.variant_key


def rank(row: KernelRow) -> tuple[bool, int, float]:
    """Where a row stands in a list: in use first, then the further on its way the earlier, then the newest."""
    return (not row.seed_ids, _RANKS[row.state], -row.update_unix_s)


_RANKS = {
    state: number
    for number, state in enumerate(
        (
            KernelState.OFFERED,
            KernelState.VALIDATING,
            KernelState.UPLOADING,
            KernelState.COMPILING,
            KernelState.WANTED,
            KernelState.COMPILE_FAILED,
            KernelState.QUARANTINED,
            KernelState.REMOVED,
            KernelState.UNSPECIFIED,
        )
    )
}


def artifact_row(kernel: StoredKernel) -> KernelRow:
    """What the library knows of a kernel; what the run adds is not in it."""
    manifest = kernel.manifest
    return KernelRow(
        variant_key=manifest.key,
        state=kernel.state,
        variant=manifest.variant,
        hint_batch=manifest.hint_batch,
        tier=BlueprintTier.UNSPECIFIED,
        update_unix_s=kernel.update_unix_s,
        artifact_id=kernel.artifact_id,
        min_batch=manifest.min_batch,
        max_batch=manifest.max_batch,
        num_bytes=manifest.num_bytes,
        pinned=kernel.pinned,
        principal=kernel.principal,
        report=kernel.report,
        detail=kernel.detail,
    )


def kernel_message(row: KernelRow) -> kernel_pb2.Kernel:
    """The row as clients see it."""
    message = kernel_pb2.Kernel(
        artifact_id=row.artifact_id,
        variant_key=row.variant_key,
        state=wire(row.state),
        variant=variant_message(row.variant),
        hint_batch=row.hint_batch,
        min_batch=row.min_batch,
        max_batch=row.max_batch,
        sites=row.sites,
        num_waiting_seeds=row.num_waiting_seeds,
        seed_ids=[str(seed_id) for seed_id in row.seed_ids],
        num_bytes=row.num_bytes,
        pinned=row.pinned,
        principal=row.principal,
        detail=row.detail,
        num_attempts=row.num_attempts,
        update_time=timestamp(row.update_unix_s),
        resident=row.resident,
        tier=wire(row.tier),
    )
    if row.report is not None:
        message.report.ParseFromString(write_report(row.report))
    return message
