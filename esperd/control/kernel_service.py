"""KernelService: what may grow, which kernels are wanted, on their way and offered, and uploads of new ones.

Event loop only. What blocks (files, digests, the validator) is the desk's; here requests are read and answers worded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from typing import TypeVar

from esper.leyline.v1 import kernel_pb2
from esper.leyline.v1 import kernel_service_pb2 as pb

from esperd.bridge.bridge import TrainerPort
from esperd.control.call import Call, Receive, Route, Send, Shape
from esperd.control.errors import InvalidRequest, Violation
from esperd.control.gate import Gate
from esperd.control.kernel_board import KernelBoard
from esperd.control.kernel_desk import KernelDesk
from esperd.control.kernel_rows import KernelRow, kernel_message
from esperd.control.shown import wire
from esperd.control.validation import parse
from esperd.leyline.kernels import Signature
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import Verified
from esperd.leyline.views import BlueprintOffer, Snapshot
from esperd.leyline.vocabulary import BlueprintTier, KernelFileRole, KernelState
from esperd.oona.failures import PageTokenInvalid
from esperd.oona.feed_values import FeedClosed
from esperd.urza.stored import StoredKernel

_SERVICE = "/esper.leyline.v1.KernelService/"
UPLOAD_KERNEL = _SERVICE + "UploadKernel"
PAGE_ROWS = 100
"""Of a list that asks for no other size, and of each message of a watch at most."""
PAGE_BYTES = 2 << 20
"""Of rows in one message at most, but for one row alone: clients take 4 MiB unless they say otherwise."""
PartT = TypeVar("PartT")


class KernelService:
    """Serves kernels."""

    def __init__(
        self, *, port: TrainerPort, board: KernelBoard, desk: KernelDesk, gate: Gate, policy: MethodPolicy
    ) -> None:
        """`policy` is UploadKernel's."""
        self._port = port
        self._board = board
        self._desk = desk
        self._gate = gate
        self._policy = policy

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        yield Route(_SERVICE + "ListBlueprints", Shape.UNARY, pb.ListBlueprintsRequest, self.list_blueprints)
        yield Route(_SERVICE + "ListKernels", Shape.UNARY, pb.ListKernelsRequest, self.list_kernels)
        yield Route(_SERVICE + "GetKernel", Shape.UNARY, pb.GetKernelRequest, self.get_kernel)
        yield Route(_SERVICE + "WatchKernels", Shape.STREAM, pb.WatchKernelsRequest, self.watch_kernels)
        yield Route(_SERVICE + "DownloadKernel", Shape.STREAM, pb.DownloadKernelRequest, self.download_kernel)
        yield Route(_SERVICE + "ReportCompilation", Shape.UNARY, pb.ReportCompilationRequest, self.report_compilation)
        yield Route(_SERVICE + "CreateUpload", Shape.UNARY, pb.CreateUploadRequest, self.create_upload)
        yield Route(UPLOAD_KERNEL, Shape.UPLOAD, pb.UploadKernelRequest, self.upload_kernel)
        yield Route(_SERVICE + "VerifyKernel", Shape.UNARY, pb.VerifyKernelRequest, self.verify_kernel)
        yield Route(_SERVICE + "DeleteKernel", Shape.UNARY, pb.DeleteKernelRequest, self.delete_kernel)
        yield Route(_SERVICE + "PinKernel", Shape.UNARY, pb.PinKernelRequest, self.pin_kernel)

    # Reads

    async def list_blueprints(self, _: Call, request: pb.ListBlueprintsRequest) -> pb.ListBlueprintsResponse:
        """What may germinate, at one site or anywhere."""
        return pb.ListBlueprintsResponse(blueprints=_blueprints(self._port.snapshot(), request.site))

    async def list_kernels(self, _: Call, request: pb.ListKernelsRequest) -> pb.ListKernelsResponse:
        """A page of kernels; the token is the last one that was shown."""
        num_rows = request.page_size or PAGE_ROWS
        rows = list(_chosen(self._board.rows, request))
        start = _start(rows, request.page_token)
        page = next(pages((kernel_message(row) for row in rows[start:]), num_rows, kernel_pb2.Kernel.ByteSize), [])
        is_last = start + len(page) >= len(rows)
        return pb.ListKernelsResponse(
            kernels=page,
            next_page_token="" if is_last else page[-1].artifact_id or page[-1].variant_key,
            stored_bytes=self._desk.stored_bytes,
            quota_bytes=self._desk.quota_bytes,
            resident_bytes=self._board.resident_bytes,
        )

    async def get_kernel(self, _: Call, request: pb.GetKernelRequest) -> pb.GetKernelResponse:
        """One kernel with all that proves it, as far as it is there."""
        row = self._board.artifact(request.artifact_id)
        documents = self._desk.documents(row.artifact_id)
        signature = documents.report_signature
        return pb.GetKernelResponse(
            kernel=kernel_message(row),
            manifest=documents.manifest,
            manifest_signature=_signature_message(documents.manifest_signature),
            report=documents.report,
            report_signature=None if signature is None else _signature_message(signature),
        )

    async def watch_kernels(self, _: Call, request: pb.WatchKernelsRequest, send: Send) -> None:
        """Every kernel, then each that changes."""
        states = frozenset(KernelState(state) for state in request.states)
        last = pb.WatchKernelsResponse(is_complete=True).SerializeToString()
        # Subscribed before the first await: what changes while the opening is sent comes after it.
        with self._board.subscribe(states) as subscription:
            for page in pages(self._board.opening(states), PAGE_ROWS, len):
                await send(b"".join(page))
            await send(last)
            try:
                async for delivery in subscription:
                    for page in pages((item.data for item in delivery.items), PAGE_ROWS, len):
                        await send(b"".join(page) + last)
            except FeedClosed:
                await send(pb.WatchKernelsResponse(draining=True).SerializeToString())

    async def download_kernel(self, _: Call, request: pb.DownloadKernelRequest, send: Send) -> None:
        """Every library, in parts."""
        async with aclosing(self._desk.read(request.artifact_id)) as parts:
            async for part in parts:
                message = pb.DownloadKernelResponse(role=wire(part.role), offset=part.offset, data=part.data)
                await send(message.SerializeToString())

    # Those who compile

    async def report_compilation(self, call: Call, data: bytes) -> pb.ReportCompilationResponse:
        """Note what a compiler says of a wish."""
        asked = parse(pb.ReportCompilationPayload, data)
        state = KernelState(asked.state)
        row = await self._desk.compiles(
            asked.variant_key, state, asked.attempt, asked.detail, principal=call.signer.principal
        )
        return pb.ReportCompilationResponse(kernel=kernel_message(row))

    async def create_upload(self, call: Call, data: bytes) -> pb.CreateUploadResponse:
        """Begin an upload, or tell where it stands."""
        asked = parse(pb.CreateUploadPayload, data)
        parse(kernel_pb2.KernelManifest, asked.manifest)
        signature = Signature(asked.signature.key_id, asked.signature.hmac)
        upload = await self._desk.create_upload(asked.manifest, signature, call.signer)
        return pb.CreateUploadResponse(
            artifact_id=upload.artifact_id,
            progress=_progress(upload),
            kernel=kernel_message(self._board.artifact(upload.artifact_id)),
        )

    async def upload_kernel(self, call: Call, receive: Receive) -> pb.UploadKernelResponse:
        """Take parts of one kernel until the client has sent what it has."""
        artifact_id = ""
        verified: Verified | None = None
        while (message := await receive()) is not None:
            verified = self._gate.verify(self._policy, message.envelope, call)
            with self._gate.noting_refusal(self._policy, verified, call):
                chunk = parse(pb.UploadChunk, verified.payload)
                if artifact_id not in ("", chunk.artifact_id):
                    raise InvalidRequest([Violation("artifact_id", f"must be {artifact_id}")], "REQUEST_INVALID")
                artifact_id = chunk.artifact_id
                role = KernelFileRole(chunk.role)
                await self._desk.add_chunk(artifact_id, role, chunk.offset, chunk.data)
        if verified is None:
            return pb.UploadKernelResponse()
        # One row for all of it: a kernel comes in hundreds of parts, each of them proven.
        self._gate.note(self._policy, verified, call, detail=f"parts of kernel {artifact_id}")
        upload = await self._desk.finish_upload(artifact_id)
        return pb.UploadKernelResponse(
            progress=_progress(upload), kernel=kernel_message(self._board.artifact(artifact_id))
        )

    # Upkeep

    async def verify_kernel(self, _: Call, data: bytes) -> pb.VerifyKernelResponse:
        """Look at every byte and both signatures again."""
        asked = parse(pb.VerifyKernelPayload, data)
        findings = await self._desk.verify(asked.artifact_id)
        return pb.VerifyKernelResponse(
            intact=not findings, findings=findings, kernel=kernel_message(self._board.artifact(asked.artifact_id))
        )

    async def delete_kernel(self, call: Call, data: bytes) -> pb.DeleteKernelResponse:
        """Remove a kernel that nobody uses."""
        asked = parse(pb.DeleteKernelPayload, data)
        row = await self._desk.delete(asked.artifact_id, asked.reason, principal=call.signer.principal)
        return pb.DeleteKernelResponse(kernel=kernel_message(row))

    async def pin_kernel(self, _: Call, data: bytes) -> pb.PinKernelResponse:
        """Keep a kernel, or no longer."""
        asked = parse(pb.PinKernelPayload, data)
        row = await self._desk.pin(asked.artifact_id, pinned=asked.pinned)
        return pb.PinKernelResponse(kernel=kernel_message(row))


def pages(parts: Iterable[PartT], max_parts: int, num_bytes_of: Callable[[PartT], int]) -> Iterator[list[PartT]]:
    """The parts of messages that are neither too many nor too large; none when there are no parts."""
    page: list[PartT] = []
    page_bytes = 0
    for part in parts:
        num_bytes = num_bytes_of(part)
        if page and (len(page) == max_parts or page_bytes + num_bytes > PAGE_BYTES):
            yield page
            page, page_bytes = [], 0
        page.append(part)
        page_bytes += num_bytes
    if page:
        yield page


def _blueprints(snapshot: Snapshot, site: str) -> list[pb.BlueprintDescriptor]:
    offers: dict[str, tuple[BlueprintOffer, list[str]]] = {}
    for view in snapshot.sites:
        for offer in view.offers if site in ("", view.site) else ():
            offers.setdefault(offer.blueprint_id, (offer, []))[1].append(view.site)
    return [_descriptor(offer, sites) for _, (offer, sites) in sorted(offers.items())]


def _descriptor(offer: BlueprintOffer, sites: list[str]) -> pb.BlueprintDescriptor:
    bounds = {
        name: pb.BlueprintParameterBounds(
            min_value=one.minimum, max_value=one.maximum, default_value=one.default, integer=one.is_integer
        )
        for name, one in offer.bounds.items()
    }
    return pb.BlueprintDescriptor(
        blueprint_id=offer.blueprint_id,
        name=offer.name,
        tier=wire(offer.tier),
        allowed_parameters=bounds,
        risk=offer.risk,
        description=offer.description,
        source_sha256="" if offer.variant is None else offer.variant.blueprint_sha256,
        sites=sites,
    )


def _chosen(rows: Iterable[KernelRow], request: pb.ListKernelsRequest) -> Iterator[KernelRow]:
    states = {KernelState(state) for state in request.states} or set(KernelState) - {KernelState.REMOVED}
    tier = BlueprintTier(request.tier)
    for row in rows:
        if (
            row.state in states
            and request.blueprint_id in ("", row.variant.blueprint_id)
            and (not request.site or request.site in row.sites)
            and tier in (BlueprintTier.UNSPECIFIED, row.tier)
        ):
            yield row


def _start(rows: list[KernelRow], token: str) -> int:
    if not token:
        return 0
    names = [row.name for row in rows]
    if token not in names:
        raise PageTokenInvalid
    return names.index(token) + 1


def _progress(kernel: StoredKernel) -> list[pb.UploadProgress]:
    return [
        pb.UploadProgress(role=wire(part.role), num_received=part.num_received, num_bytes=part.num_bytes)
        for part in kernel.progress
    ]


def _signature_message(signature: Signature) -> kernel_pb2.KernelSignature:
    return kernel_pb2.KernelSignature(key_id=signature.key_id, hmac=signature.hmac)
