"""What has become of a kernel, in words for those who watch what happens.

Pure.
"""

from collections.abc import Mapping

from esperd.leyline.vocabulary import KernelState
from esperd.urza.stored import Cause, KernelChange


def kernel_notice(change: KernelChange) -> tuple[str, str, str, Mapping[str, str]] | None:
    """Kind, words, level and facts; None where nobody need be told."""
    kernel = change.kernel
    if kernel.state is change.previous:
        return None
    variant = kernel.manifest.variant
    facts = {
        "artifact_id": kernel.artifact_id,
        "variant_key": kernel.manifest.key,
        "blueprint_id": variant.blueprint_id,
        "principal": kernel.principal,
        "cause": str(change.cause),
    }
    name = f"kernel {kernel.artifact_id} for {variant.blueprint_id}"
    match kernel.state:
        case KernelState.OFFERED:
            ratio = "" if kernel.report is None else f"; a step takes {kernel.report.step_ratio:.2f} of the eager one's"
            return "kernel.offered", f"{name} is offered{ratio}", "info", facts
        case KernelState.QUARANTINED:
            return "kernel.quarantined", f"{name} is quarantined: {kernel.detail}", "warning", facts
        case KernelState.REMOVED:
            is_lost = change.cause in (Cause.CORRUPT, Cause.MISSING)
            return "kernel.evicted", f"{name} is gone: {kernel.detail}", "error" if is_lost else "info", facts
    return None
