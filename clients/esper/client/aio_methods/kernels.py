"""The async client's methods for KernelService: blueprints and compiled kernels.

One event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc.aio

from esper.client import calls, kernel_plans, watches
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.errors import decode_rpc_error
from esper.client.kernel_files import KernelFiles, KernelFolder
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import kernel_service_pb2 as kernel_pb
from esper.leyline.v1.kernel_pb2 import Kernel, KernelState
from esper.leyline.v1.vocabulary_pb2 import BLUEPRINT_TIER_UNSPECIFIED, BlueprintTier


class AsyncKernels(AsyncCaller):
    """Blueprints and compiled kernels."""

    async def blueprints(self, site: str = "") -> kernel_pb.ListBlueprintsResponse:
        """Every blueprint that may germinate, or those that may at one site."""
        return await self._carry_out(kernel_plans.blueprints(site))

    async def kernels(
        self,
        *,
        blueprint_id: str = "",
        site: str = "",
        states: Sequence[KernelState] = (),
        tier: BlueprintTier = BLUEPRINT_TIER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
    ) -> kernel_pb.ListKernelsResponse:
        """A page of kernels, those in use first; without `states` all but the removed ones."""
        return await self._carry_out(kernel_plans.kernels(blueprint_id, site, states, tier, page_size, page_token))

    async def kernel(self, artifact_id: str) -> kernel_pb.GetKernelResponse:
        """One kernel with all that proves it; the first six characters of its id or more name it too."""
        return await self._carry_out(kernel_plans.kernel(artifact_id))

    def watch_kernels(
        self, *, states: Sequence[KernelState] = (), reconnect_s: float = RECONNECT_S
    ) -> AsyncIterator[kernel_pb.WatchKernelsResponse]:
        """Every kernel as it is, then those that change; after a cut every one of them again."""
        return self._watch(watches.kernels(states), b"", reconnect_s)

    async def report_compilation(
        self, variant_key: str, state: KernelState, *, attempt: int = 1, detail: str = ""
    ) -> kernel_pb.ReportCompilationResponse:
        """Tell that a compiler works on a wish (COMPILING), or gives it up (COMPILE_FAILED)."""
        return await self._carry_out(kernel_plans.report_compilation(variant_key, state, attempt, detail))

    async def upload_kernel(
        self,
        files: KernelFiles,
        *,
        on_progress: Callable[[int, int], object] = kernel_plans.unwatched,
        timeout_s: float = kernel_plans.UPLOAD_S,
    ) -> Kernel:
        """Upload a kernel and return it as the daemon has it then: VALIDATING as a rule.

        Goes on where an earlier upload of the same manifest was cut off, after each cut within `timeout_s` again. A
        manifest without a signature is signed with this client's key. `on_progress` hears the bytes that are durable,
        and how many there will be.
        """
        attempts = self._attempts(calls.UPLOAD_KERNEL, timeout_s)
        plan = kernel_plans.create_upload(files, files.signature or self._signer.sign_manifest(files.manifest))
        while True:
            begun = await self._carry_out(plan)
            on_progress(*kernel_plans.sizes(begun.progress))
            left = kernel_plans.missing(begun.progress)
            if not left:
                return begun.kernel
            chunks, channel = list(files.chunks(left)), self._open_channel
            requests = (self._chunk_request(calls.UPLOAD_KERNEL, chunk) for chunk in chunks)
            try:
                await self._stub("stream_unary", calls.UPLOAD_KERNEL)(requests, timeout=attempts.remaining_s())
            except grpc.aio.AioRpcError as error:
                cut = decode_rpc_error(error, self.address)
                if not self._redial(cut, channel):
                    await asyncio.sleep(attempts.after(cut))

    async def download_kernel(
        self, artifact_id: str, directory: Path | str, *, timeout_s: float = 120.0
    ) -> KernelFiles:
        """Write a kernel with all that proves it into a directory, each library compared with the manifest.

        Raises LeylineError KERNEL_FOLDER_INVALID when what came is not what the manifest says.
        """
        found = await self.kernel(artifact_id)
        folder = KernelFolder(directory, found)
        request = kernel_pb.DownloadKernelRequest(artifact_id=found.kernel.artifact_id)
        stream = self._stub("unary_stream", calls.DOWNLOAD_KERNEL)(request, timeout=timeout_s)
        try:
            async for part in stream:
                folder.write(part)
        except grpc.aio.AioRpcError as error:
            raise decode_rpc_error(error, self.address) from error
        finally:
            stream.cancel()
        return folder.finish()

    async def verify_kernel(
        self, artifact_id: str, *, timeout_s: float = kernel_plans.VERIFY_S
    ) -> kernel_pb.VerifyKernelResponse:
        """Have a kernel's files and signatures looked at again; what is corrupt is removed."""
        return await self._carry_out(kernel_plans.verify_kernel(artifact_id, timeout_s))

    async def delete_kernel(self, artifact_id: str, reason: str = "") -> kernel_pb.DeleteKernelResponse:
        """Remove a kernel; refused with KERNEL_IN_USE while a seed runs it."""
        return await self._carry_out(kernel_plans.delete_kernel(artifact_id, reason))

    async def pin_kernel(self, artifact_id: str, *, pinned: bool = True) -> kernel_pb.PinKernelResponse:
        """Keep a kernel whatever the quota says, or no longer."""
        return await self._carry_out(kernel_plans.pin_kernel(artifact_id, pinned))
