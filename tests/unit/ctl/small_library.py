"""The kernels of the small daemon: takes uploads, tells what a test put into it, and keeps what it was asked."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from esper.client.kernel_files import file_name
from esper.leyline.v1 import kernel_pb2 as kernel
from esper.leyline.v1 import kernel_service_pb2 as pb
from esper.leyline.v1 import kernel_service_pb2_grpc as pb_grpc
from esper.leyline.v1 import vocabulary_pb2 as v

from esperd.leyline.errors import EsperdError

if TYPE_CHECKING:
    from tests.unit.ctl.small_daemon import SmallDaemon


class SmallLibrary:
    """Kernels and wishes as a test wants them, and what came of them."""

    def __init__(self) -> None:
        self.kernels: dict[str, kernel.Kernel] = {}
        """By artifact id, a wish by its key."""
        self.blueprints: list[pb.BlueprintDescriptor] = []
        self.manifests: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytearray]] = {}
        """By artifact id and role: what has come of each library."""
        self.reports: list[pb.ReportCompilationPayload] = []
        self.findings: list[str] = []
        self.removed: list[str] = []
        self.signatures: list[kernel.KernelSignature] = []
        """Of the manifests that were uploaded."""
        self.judgement = kernel.KERNEL_STATE_OFFERED
        """What a whole kernel becomes."""
        self.refusals: list[EsperdError] = []
        """Of uploads, one each."""
        self.max_parts: int | None = None
        """Parts that the next stream may bring before it is cut."""
        self.quota_bytes = 2_000_000_000
        self._changed = threading.Condition()
        self._changes: list[str] = []
        self.is_closed = False

    def put(self, *kernels: kernel.Kernel) -> None:
        """Tell of kernels; watchers hear it."""
        with self._changed:
            for one in kernels:
                name = one.artifact_id or one.variant_key
                self.kernels[name] = one
                self._changes.append(name)
            self._changed.notify_all()

    def offer(self, artifact_id: str) -> None:
        """A kernel was validated."""
        known = self.kernels[artifact_id]
        known.state = self.judgement
        self.kernels.pop(known.variant_key, None)
        self.put(known)

    def close(self) -> None:
        """End every watch: what the test has for it is used up."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def drain(self) -> None:
        """End the watches that stand as a daemon does that leaves."""
        with self._changed:
            self._changes.append("")
            self._changed.notify_all()

    def watch(self) -> Iterator[pb.WatchKernelsResponse]:
        """Everything, then what changes."""
        with self._changed:
            seen = len(self._changes)
            first = pb.WatchKernelsResponse(kernels=self.kernels.values(), is_complete=True)
        yield first
        while not self.is_closed:
            with self._changed:
                self._changed.wait_for(lambda: self.is_closed or len(self._changes) > seen)  # noqa: B023 - at once
                names = self._changes[seen:]
                seen = len(self._changes)
                found = [self.kernels[name] for name in names if name in self.kernels]
            if "" in names:
                yield pb.WatchKernelsResponse(draining=True)
                return
            yield pb.WatchKernelsResponse(kernels=found, is_complete=True)

    def progress(self, artifact_id: str) -> list[pb.UploadProgress]:
        """How far an upload is."""
        files = kernel.KernelManifest.FromString(self.manifests[artifact_id]).files
        have = self.parts[artifact_id]
        return [
            pb.UploadProgress(role=file.role, num_received=len(have[file.role]), num_bytes=file.num_bytes)
            for file in files
        ]

    def is_whole(self, artifact_id: str) -> bool:
        """Whether everything has come."""
        return all(part.num_received == part.num_bytes for part in self.progress(artifact_id))


class Kernels(pb_grpc.KernelServiceServicer):
    """Serves a small library."""

    def __init__(self, daemon: "SmallDaemon") -> None:
        self.daemon = daemon

    @property
    def library(self) -> SmallLibrary:
        return self.daemon.library

    def ListBlueprints(self, request: Any, context: Any) -> pb.ListBlueprintsResponse:  # noqa: N802
        self.daemon.admit(context, "KernelService/ListBlueprints")
        return pb.ListBlueprintsResponse(blueprints=self.library.blueprints)

    def ListKernels(self, request: Any, context: Any) -> pb.ListKernelsResponse:  # noqa: N802
        self.daemon.admit(context, "KernelService/ListKernels")
        found = [one for one in self.library.kernels.values() if not request.states or one.state in request.states]
        return pb.ListKernelsResponse(kernels=found, stored_bytes=1_200_000, quota_bytes=self.library.quota_bytes)

    def GetKernel(self, request: Any, context: Any) -> pb.GetKernelResponse:  # noqa: N802
        self.daemon.admit(context, "KernelService/GetKernel")
        found = [name for name in self.library.kernels if name.startswith(request.artifact_id)]
        if len(found) != 1:
            self._refuse(context, EsperdError("KERNEL_UNKNOWN", artifact_id=request.artifact_id))
        answer = pb.GetKernelResponse(kernel=self.library.kernels[found[0]])
        answer.manifest = self.library.manifests.get(found[0], b"")
        answer.manifest_signature.key_id = "tezzeret-1"
        return answer

    def WatchKernels(self, request: Any, context: Any) -> Iterator[pb.WatchKernelsResponse]:  # noqa: N802
        self.daemon.admit(context, "KernelService/WatchKernels")
        yield from self.library.watch()
        if self.library.is_closed:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the test's changes are used up")

    def ReportCompilation(self, request: Any, context: Any) -> pb.ReportCompilationResponse:  # noqa: N802
        payload = self.daemon.admit(context, "KernelService/ReportCompilation", request.envelope)
        asked = pb.ReportCompilationPayload.FromString(payload)
        self.library.reports.append(asked)
        known = self.library.kernels.get(asked.variant_key)
        if known is None:
            self._refuse(context, EsperdError("KERNEL_NOT_WANTED", variant_key=asked.variant_key))
            raise AssertionError
        known.state, known.num_attempts, known.detail = asked.state, asked.attempt, asked.detail
        self.library.put(known)
        return pb.ReportCompilationResponse(kernel=known)

    def CreateUpload(self, request: Any, context: Any) -> pb.CreateUploadResponse:  # noqa: N802
        payload = self.daemon.admit(context, "KernelService/CreateUpload", request.envelope)
        if self.library.refusals:
            self._refuse(context, self.library.refusals.pop(0))
        asked = pb.CreateUploadPayload.FromString(payload)
        artifact_id = hashlib.sha256(asked.manifest).hexdigest()
        self.library.signatures.append(asked.signature)
        manifest = kernel.KernelManifest.FromString(asked.manifest)
        if artifact_id not in self.library.parts:
            self.library.manifests[artifact_id] = asked.manifest
            self.library.parts[artifact_id] = {file.role: bytearray() for file in manifest.files}
            keys = [key for key, one in self.library.kernels.items() if one.variant == manifest.variant]
            self.library.kernels[artifact_id] = kernel.Kernel(
                artifact_id=artifact_id, variant=manifest.variant, state=kernel.KERNEL_STATE_UPLOADING,
                variant_key=keys[0] if keys else "k" * 64,
            )  # fmt: skip
        return pb.CreateUploadResponse(
            artifact_id=artifact_id,
            progress=self.library.progress(artifact_id),
            kernel=self.library.kernels[artifact_id],
        )

    def UploadKernel(self, requests: Any, context: Any) -> pb.UploadKernelResponse:  # noqa: N802
        artifact_id = ""
        for number, request in enumerate(requests):
            if number == self.library.max_parts:
                self.library.max_parts = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            payload = self.daemon.admit(context, "KernelService/UploadKernel", request.envelope)
            chunk = pb.UploadChunk.FromString(payload)
            artifact_id = chunk.artifact_id
            part = self.library.parts[artifact_id][chunk.role]
            assert chunk.offset == len(part)
            part += chunk.data
        if self.library.is_whole(artifact_id):
            self.library.kernels[artifact_id].state = kernel.KERNEL_STATE_VALIDATING
            self.library.offer(artifact_id)
        return pb.UploadKernelResponse(
            progress=self.library.progress(artifact_id), kernel=self.library.kernels[artifact_id]
        )

    def DownloadKernel(self, request: Any, context: Any) -> Iterator[pb.DownloadKernelResponse]:  # noqa: N802
        self.daemon.admit(context, "KernelService/DownloadKernel")
        for role, data in self.library.parts[request.artifact_id].items():
            yield pb.DownloadKernelResponse(role=role, offset=0, data=bytes(data))  # type: ignore[arg-type]

    def VerifyKernel(self, request: Any, context: Any) -> pb.VerifyKernelResponse:  # noqa: N802
        payload = self.daemon.admit(context, "KernelService/VerifyKernel", request.envelope)
        asked = pb.VerifyKernelPayload.FromString(payload)
        findings = self.library.findings
        return pb.VerifyKernelResponse(
            intact=not findings, findings=findings, kernel=self.library.kernels[asked.artifact_id]
        )

    def DeleteKernel(self, request: Any, context: Any) -> pb.DeleteKernelResponse:  # noqa: N802
        payload = self.daemon.admit(context, "KernelService/DeleteKernel", request.envelope)
        asked = pb.DeleteKernelPayload.FromString(payload)
        self.library.removed.append(asked.artifact_id)
        gone = self.library.kernels.pop(asked.artifact_id)
        gone.state, gone.detail = kernel.KERNEL_STATE_REMOVED, asked.reason
        return pb.DeleteKernelResponse(kernel=gone)

    def PinKernel(self, request: Any, context: Any) -> pb.PinKernelResponse:  # noqa: N802
        payload = self.daemon.admit(context, "KernelService/PinKernel", request.envelope)
        asked = pb.PinKernelPayload.FromString(payload)
        self.library.kernels[asked.artifact_id].pinned = asked.pinned
        return pb.PinKernelResponse(kernel=self.library.kernels[asked.artifact_id])

    def _refuse(self, context: Any, error: EsperdError) -> None:
        self.daemon.refusal = error
        try:
            self.daemon.admit(context, "")
        finally:
            self.daemon.refusal = None


def small_variant(blueprint_id: str = "residual_mlp") -> kernel.KernelVariant:
    """For a small blueprint."""
    return kernel.KernelVariant(
        blueprint_id=blueprint_id, tail_shape=[16], dtype="float32", weight_dtype="float32", device_type="cpu",
        capability="AVX2", machine="x86_64", torch_version="2.13.0+cpu",
    )  # fmt: skip


def written_kernel(folder: Path, variant: kernel.KernelVariant | None = None, size: int = 500_000) -> str:
    """A directory with a kernel, of bytes that mean nothing. Returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = kernel.KernelManifest(
        schema=1, variant=variant or small_variant(), min_batch=1, max_batch=64, hint_batch=8
    )
    roles = (
        kernel.KERNEL_FILE_ROLE_FORWARD,
        kernel.KERNEL_FILE_ROLE_BACKWARD,
        kernel.KERNEL_FILE_ROLE_PARAMETER_BACKWARD,
    )
    for role in roles:
        data = bytes([role]) * size
        file = manifest.files.add(role=role, sha256=hashlib.sha256(data).digest(), num_bytes=size)
        (folder / file_name(file)).write_bytes(data)
    (folder / "manifest.binpb").write_bytes(manifest.SerializeToString())
    return hashlib.sha256(manifest.SerializeToString()).hexdigest()


def offered(artifact_id: str, **changes: Any) -> kernel.Kernel:
    """A kernel that seeds may use."""
    facts: dict[str, Any] = {
        "artifact_id": artifact_id, "variant_key": "k" * 64, "state": kernel.KERNEL_STATE_OFFERED,
        "variant": small_variant(), "hint_batch": 8, "min_batch": 1, "max_batch": 64, "num_bytes": 1_200_000,
        "seed_ids": ["3"], "tier": v.BLUEPRINT_TIER_SAFE,
        "report": kernel.KernelReport(
            step_ratio=0.81, load_ms=1.9,
            checks=[kernel.KernelCheck(name="forward", passed=True, value=1e-7, limit=1e-5, unit="relative error")],
        ),
    }  # fmt: skip
    return kernel.Kernel(**{**facts, **changes})


def wanted(variant_key: str = "k" * 64, blueprint_id: str = "residual_mlp") -> kernel.Kernel:
    """A wish."""
    variant = small_variant(blueprint_id)
    return kernel.Kernel(variant_key=variant_key, state=kernel.KERNEL_STATE_WANTED, variant=variant, hint_batch=8)
