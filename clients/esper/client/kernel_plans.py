"""What each method of KernelService asks, as a plan for either client.

Any thread, without I/O.
"""

from collections.abc import Sequence

from esper.client import calls
from esper.client.kernel_files import KernelFiles
from esper.client.plans import Plan
from esper.leyline.v1 import kernel_service_pb2 as kernel_pb
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandKernelSwap
from esper.leyline.v1.kernel_pb2 import KernelSignature, KernelState
from esper.leyline.v1.vocabulary_pb2 import BlueprintTier

VERIFY_S = 120.0
"""How long a verification may take: the files are read whole, from wherever the library is."""
UPLOAD_S = 300.0
"""How long an upload may take with all its attempts."""


def blueprints(site: str) -> Plan[kernel_pb.ListBlueprintsResponse]:
    """The blueprints, of one site unless it is empty."""
    return Plan(calls.LIST_BLUEPRINTS, kernel_pb.ListBlueprintsRequest(site=site))


def kernels(
    blueprint_id: str, site: str, states: Sequence[KernelState], tier: BlueprintTier, page_size: int, page_token: str
) -> Plan[kernel_pb.ListKernelsResponse]:
    """A page of kernels."""
    request = kernel_pb.ListKernelsRequest(
        blueprint_id=blueprint_id, site=site, states=states, tier=tier, page_size=page_size, page_token=page_token
    )
    return Plan(calls.LIST_KERNELS, request)


def kernel(artifact_id: str) -> Plan[kernel_pb.GetKernelResponse]:
    """One kernel."""
    return Plan(calls.GET_KERNEL, kernel_pb.GetKernelRequest(artifact_id=artifact_id))


def report_compilation(
    variant_key: str, state: KernelState, attempt: int, detail: str
) -> Plan[kernel_pb.ReportCompilationResponse]:
    """How compiling goes."""
    payload = kernel_pb.ReportCompilationPayload(variant_key=variant_key, state=state, attempt=attempt, detail=detail)
    return Plan(calls.REPORT_COMPILATION, payload)


def create_upload(files: KernelFiles, signature: KernelSignature) -> Plan[kernel_pb.CreateUploadResponse]:
    """Begin an upload, or see where it stands."""
    payload = kernel_pb.CreateUploadPayload(manifest=files.manifest, signature=signature)
    return Plan(calls.CREATE_UPLOAD, payload)


def verify_kernel(artifact_id: str, timeout_s: float) -> Plan[kernel_pb.VerifyKernelResponse]:
    """Have a kernel's files and signatures looked at again."""
    payload = kernel_pb.VerifyKernelPayload(artifact_id=artifact_id)
    return Plan(calls.VERIFY_KERNEL, payload, waits_s=timeout_s)


def delete_kernel(artifact_id: str, reason: str) -> Plan[kernel_pb.DeleteKernelResponse]:
    """Remove a kernel."""
    return Plan(calls.DELETE_KERNEL, kernel_pb.DeleteKernelPayload(artifact_id=artifact_id, reason=reason))


def pin_kernel(artifact_id: str, pinned: bool) -> Plan[kernel_pb.PinKernelResponse]:
    """Keep a kernel whatever the quota says, or no longer."""
    return Plan(calls.PIN_KERNEL, kernel_pb.PinKernelPayload(artifact_id=artifact_id, pinned=pinned))


def swap_kernel(seed_id: str, artifact_id: str, reason: str, request_id: str) -> AdaptationCommand:
    """The command that has a seed compute by a kernel, or by its eager module."""
    return AdaptationCommand(
        version=1,
        request_id=request_id,
        reason=reason,
        target_seed_id=seed_id,
        kernel_swap=CommandKernelSwap(artifact_id=artifact_id),
    )


def missing(progress: Sequence[kernel_pb.UploadProgress]) -> list[kernel_pb.UploadProgress]:
    """What the daemon has not got yet."""
    return [part for part in progress if part.num_received < part.num_bytes]


def sizes(progress: Sequence[kernel_pb.UploadProgress]) -> tuple[int, int]:
    """Bytes that are durable, and bytes that there will be."""
    return sum(part.num_received for part in progress), sum(part.num_bytes for part in progress)


def unwatched(_num_received: int, _num_bytes: int) -> None:
    """Nobody looks at an upload's progress."""
