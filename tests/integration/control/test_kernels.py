"""KernelService over a real socket: what is wanted, uploads, the way to OFFERED, and what is refused."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from esper.client import kernel_plans
from esper.client.aio import AsyncClient
from esper.client.errors import decode_rpc_error
from esper.client.kernel_files import KernelFiles
from esper.leyline.v1 import kernel_pb2 as pb
from esper.leyline.v1 import kernel_service_pb2
from esper.leyline.v1.kernel_service_pb2_grpc import KernelServiceStub

from esperd.config.reloadable import RELOADABLE
from esperd.config.settings import KernelSettings
from esperd.control.kernel_desk import MAX_DOWNLOADS
from esperd.leyline.kernels import KernelClosed, variant_key
from esperd.leyline.views import BreakerView, NoticeEvent
from esperd.leyline.vocabulary import BreakerState, HandlingClass, KernelState
from esperd.oona.records import AuditQuery, CommandQuery
from esperd.urza.stored import CompilationReport
from tests.integration.control.kernel_stage import (
    BATCH,
    VARIANT,
    ScriptedValidator,
    notices,
    open_kernel_stage,
    signed,
    write_kernel,
)
from tests.integration.control.stage import Theatre, eventually, reason_of

_ANY = CommandQuery()
KEY = variant_key(VARIANT, BATCH)
UPLOAD = "/esper.leyline.v1.KernelService/UploadKernel"


@pytest.fixture
async def kernels(directory: Path) -> AsyncIterator[Theatre]:
    async with open_kernel_stage(directory) as stage:
        yield stage


def client_of(stage: Theatre, who: str = "compiler") -> AsyncClient:
    return AsyncClient(stage.address, stage.credentials(who))


def states(stage: Theatre) -> list[tuple[str, str]]:
    """(name, state) of each row."""
    return [(row.name, row.state.name) for row in stage.server.parts.kernels.board.rows]


async def until(stage: Theatre, artifact_id: str, state: str) -> None:
    await eventually(lambda: (artifact_id, state) in states(stage))


async def test_what_may_grow_and_what_is_wanted(kernels: Theatre) -> None:
    """Blueprints with bounds and sites; one wish for both sites and the seed, named by its variant and batch size."""
    async with client_of(kernels) as client:
        (blueprint,) = (await client.blueprints()).blueprints
        assert (blueprint.blueprint_id, list(blueprint.sites)) == ("bottleneck", ["block.1", "block.2"])
        assert blueprint.allowed_parameters["width"].default_value == 8.0
        assert blueprint.source_sha256 == VARIANT.blueprint_sha256
        assert not (await client.blueprints("block.9")).blueprints
        answer = await client.kernels()
        (wish,) = answer.kernels
        assert (wish.variant_key, wish.state, wish.hint_batch) == (KEY, pb.KERNEL_STATE_WANTED, BATCH)
        assert (wish.num_waiting_seeds, set(wish.sites)) == (1, {"block.1", "block.2"})
        assert answer.quota_bytes == 2 << 30
        assert not (await client.kernels(blueprint_id="other")).kernels
        assert not (await client.kernels(states=[pb.KERNEL_STATE_OFFERED])).kernels
        assert not (await client.kernels(site="block.9")).kernels


async def test_a_compiler_says_how_it_goes(kernels: Theatre) -> None:
    """COMPILING and COMPILE_FAILED are shown with attempt and words; nobody may report what nobody wants."""
    async with client_of(kernels) as client:
        row = (await client.report_compilation(KEY, pb.KERNEL_STATE_COMPILING)).kernel
        assert (row.state, row.num_attempts) == (pb.KERNEL_STATE_COMPILING, 1)
        row = (await client.report_compilation(KEY, pb.KERNEL_STATE_COMPILE_FAILED, attempt=2, detail="no g++")).kernel
        assert (row.state, row.num_attempts, row.detail) == (pb.KERNEL_STATE_COMPILE_FAILED, 2, "no g++")
        assert await reason_of(client.report_compilation("00" * 32, pb.KERNEL_STATE_COMPILING)) == "KERNEL_NOT_WANTED"
        assert await reason_of(client.report_compilation(KEY, pb.KERNEL_STATE_OFFERED)) == "REQUEST_INVALID"
    async with client_of(kernels, "policy") as client:
        assert await reason_of(client.report_compilation(KEY, pb.KERNEL_STATE_COMPILING)) == "PERMISSION_REQUIRED"
    assert await notices(kernels, ["kernel.compile_failed"]) == ["kernel.compile_failed"]


async def test_what_a_compiler_said_of_a_wish_that_is_over_is_forgotten(kernels: Theatre) -> None:
    """A day later: runs come and go, and each has wishes of its own."""
    parts, library = kernels.server.parts.kernels, kernels.server.parts.around.kernels
    assert library is not None
    for key, told_s in (("ab" * 32, 1.0), (KEY, 1.0), ("cd" * 32, time.time())):
        report = CompilationReport(key, KernelState.COMPILE_FAILED, 1, "no g++", "compiler", told_s)
        library.library.report_compilation(report)
    parts.desk._next_tidy_s = 0.0
    parts.desk.tick()
    await eventually(lambda: set(library.library.compilations) == {KEY, "cd" * 32})


async def test_from_upload_to_seed(kernels: Theatre, tmp_path: Path) -> None:
    """Uploaded, validated, offered, copied, opened, and given to the seed by a command of the daemon's own."""
    files = write_kernel(tmp_path / "k")
    async with client_of(kernels) as client:
        told: list[tuple[int, int]] = []
        kernel = await client.upload_kernel(files, on_progress=lambda have, of: told.append((have, of)))
        assert kernel.artifact_id == files.artifact_id
        assert told == [(0, 900_006), (900_006, 900_006)]
        await until(kernels, files.artifact_id, "OFFERED")
        await eventually(lambda: kernels.trainer.snapshot.seeds[0].kernel_artifact_id == files.artifact_id)
        await eventually(lambda: bool(kernels.server.parts.kernels.board.artifact(files.artifact_id).seed_ids))
        (row,) = (await client.kernels()).kernels
        assert (row.resident, list(row.seed_ids), row.principal) == (True, ["1"], "compiler")
        assert row.report.step_ratio == 0.8
        found = await client.kernel(files.artifact_id[:10])
        assert found.manifest == files.manifest
        assert found.manifest_signature.key_id == "compiler-1"
        assert found.report
        copy = await client.download_kernel(files.artifact_id, tmp_path / "copy")
        assert copy.manifest == files.manifest
        assert {role: path.read_bytes() for role, path in copy.paths.items()} == {
            role: path.read_bytes() for role, path in files.paths.items()
        }
        again = await client.upload_kernel(files)
        assert again.state == pb.KERNEL_STATE_OFFERED
    command = (await kernels.server.parts.around.journal.list_commands(_ANY, 10, "")).rows[0]
    assert (command.kind, command.method, command.seed_id) == ("KernelSwapCommand", "daemon", 1)
    assert await notices(kernels, ["kernel.offered", "kernel.quarantined"]) == ["kernel.offered"]
    local = kernels.directory / "kernels" / "local" / files.artifact_id
    assert local.is_dir()
    assert not list((kernels.directory / "kernels" / "scratch").iterdir())


async def test_downloads_take_turns(kernels: Theatre, tmp_path: Path) -> None:
    """Each holds a library in memory for as long as its reader likes, so there are only so many at once."""
    files, desk = write_kernel(tmp_path / "k"), kernels.server.parts.kernels.desk
    async with client_of(kernels) as client:
        await client.upload_kernel(files)
    slow = [desk.read(files.artifact_id) for _ in range(MAX_DOWNLOADS)]
    for one in slow:
        await anext(one)
    late = desk.read(files.artifact_id)
    waiting = asyncio.ensure_future(anext(late))
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    await slow[0].aclose()
    assert (await waiting).offset == 0
    for one in (*slow, late):
        await one.aclose()


async def test_a_watch_begins_with_everything(kernels: Theatre, tmp_path: Path) -> None:
    """Every kernel, then each change; a watch of some states hears of those alone; the last message tells its end."""
    heard: list[kernel_service_pb2.WatchKernelsResponse] = []
    offered: list[kernel_service_pb2.WatchKernelsResponse] = []
    async with client_of(kernels) as client:

        async def listen(into: list[kernel_service_pb2.WatchKernelsResponse], *wanted: pb.KernelState) -> None:
            async for message in client.watch_kernels(states=wanted, reconnect_s=0.0):
                into.append(message)  # noqa: PERF401 - it is looked at while it grows

        tasks = [
            asyncio.create_task(listen(heard)),
            asyncio.create_task(listen(offered, pb.KERNEL_STATE_OFFERED)),
        ]
        await eventually(lambda: bool(heard and offered) and heard[-1].is_complete and offered[-1].is_complete)
        assert [kernel.state for message in heard for kernel in message.kernels] == [pb.KERNEL_STATE_WANTED]
        assert not [kernel for message in offered for kernel in message.kernels]
        artifact_id = (await client.upload_kernel(write_kernel(tmp_path / "k"))).artifact_id
        await eventually(lambda: any(kernel.resident for message in heard for kernel in message.kernels))
        seen = [kernel.state for message in heard for kernel in message.kernels if kernel.artifact_id == artifact_id]
        assert seen[-1] == pb.KERNEL_STATE_OFFERED
        assert sorted(seen) == seen
        assert {kernel.artifact_id for message in offered for kernel in message.kernels} == {artifact_id}
        await kernels.server.parts.kernels.desk.close()
        await asyncio.wait(tasks, timeout=10)
        for task in tasks:
            task.cancel()
        assert heard[-1].draining


async def test_an_upload_goes_on_where_it_was_cut(kernels: Theatre, tmp_path: Path) -> None:
    """What is durable is not sent again; a gap, a chunk beyond the end and an upload that nobody began are refused."""
    files = signed(write_kernel(tmp_path / "k"), kernels)
    async with client_of(kernels) as client:
        chunk = kernel_service_pb2.UploadChunk(artifact_id=files.artifact_id, role=1, data=b"x")  # type: ignore[arg-type]
        assert await raw_upload(kernels, chunk) == "KERNEL_UPLOAD_UNKNOWN"
        assert files.signature is not None
        begun = await client._carry_out(kernel_plans.create_upload(files, files.signature))
        assert [part.num_received for part in begun.progress] == [0, 0, 0]
        first = next(iter(files.chunks(begun.progress)))
        assert await raw_upload(kernels, first) == ""
        begun = await client._carry_out(kernel_plans.create_upload(files, files.signature))
        assert [part.num_received for part in begun.progress] == [len(first.data), 0, 0]
        assert begun.kernel.state == pb.KERNEL_STATE_UPLOADING
        chunk.offset = len(first.data) + 1
        assert await raw_upload(kernels, chunk) == "KERNEL_UPLOAD_GAP"
        chunk.offset, chunk.data = 300_000, b"xx"
        assert await raw_upload(kernels, chunk) == "KERNEL_CORRUPT"
        told: list[int] = []
        await client.upload_kernel(files, on_progress=lambda have, _: told.append(have))
        assert told == [len(first.data), 900_006]
        await until(kernels, files.artifact_id, "OFFERED")
    await kernels.server.parts.recorder.flush(5.0)
    rows = (await kernels.journal.list_audit(AuditQuery(principal="compiler"), 100, "")).rows
    decisions = [row.entry.decision for row in rows if row.entry.method == UPLOAD]
    assert sorted(set(decisions)) == ["KERNEL_CORRUPT", "KERNEL_UPLOAD_GAP", "KERNEL_UPLOAD_UNKNOWN", "OK"]
    assert decisions.count("OK") == 2


async def raw_upload(stage: Theatre, *chunks: kernel_service_pb2.UploadChunk) -> str:
    """Send these parts as they are; why they were refused, empty when they were not."""
    requests = [
        kernel_service_pb2.UploadKernelRequest(envelope=stage.envelope(UPLOAD, chunk.SerializeToString(), "compiler"))
        for chunk in chunks
    ]
    try:
        await KernelServiceStub(stage.channel).UploadKernel(requests)  # type: ignore[arg-type]  # grpc.aio takes lists
    except grpc.aio.AioRpcError as error:
        return decode_rpc_error(error, "here").reason
    return ""


async def test_who_may_upload_what(kernels: Theatre, tmp_path: Path) -> None:
    """The manifest must be one, within its rules, and signed by the key that uploads it, which may compile."""
    files = write_kernel(tmp_path / "k")
    async with client_of(kernels) as client:
        assert await reason_of(client.upload_kernel(signed(files, kernels, "operator"))) == "KERNEL_SIGNATURE_INVALID"
        forged = replace(files, signature=pb.KernelSignature(key_id="compiler-1", hmac=b"0" * 32))
        assert await reason_of(client.upload_kernel(forged)) == "KERNEL_SIGNATURE_INVALID"
        for manifest in (b"\xff", b"", pb.KernelManifest(schema=1).SerializeToString()):
            reason = await reason_of(client.upload_kernel(replace(files, manifest=manifest)))
            assert reason == ("KERNEL_MANIFEST_INVALID" if manifest else "REQUEST_INVALID")
        large = write_kernel(tmp_path / "large", num_bytes=400_000)
        kernels.server.parts.set_limits(
            replace(kernels.server.parts.settings, kernels=KernelSettings(max_kernel_bytes=1_000_000))
        )
        assert await reason_of(client.upload_kernel(large)) == "KERNEL_QUOTA"
    async with client_of(kernels, "operator") as client:
        assert await reason_of(client.upload_kernel(files)) == "PERMISSION_REQUIRED"
    assert states(kernels) == [(KEY, "WANTED")]


async def test_kernels_that_are_switched_off(stage: Theatre, tmp_path: Path) -> None:
    """Blueprints are still told; nothing is wanted, and uploads and swaps are refused by name."""
    async with client_of(stage) as client:
        assert len((await client.blueprints()).blueprints) == 1
        found = await client.kernels()
        assert not found.kernels
        assert found.quota_bytes == 0
        assert await reason_of(client.upload_kernel(write_kernel(tmp_path / "k"))) == "KERNELS_DISABLED"
    async with client_of(stage, "operator") as client:
        assert await reason_of(client.swap_kernel("1", "ab" * 32)) == "KERNELS_DISABLED"
        assert await reason_of(client.delete_kernel("ab" * 32)) == "KERNEL_UNKNOWN"


async def test_what_the_validator_finds_keeps_a_kernel_out(directory: Path, tmp_path: Path) -> None:
    """It is quarantined with the failed check, never offered, and its wish tells the compiler why."""
    validator = ScriptedValidator()
    validator.handling = HandlingClass.QUARANTINE
    async with open_kernel_stage(directory, validator) as stage, client_of(stage) as client:
        artifact_id = (await client.upload_kernel(write_kernel(tmp_path / "k"))).artifact_id
        await until(stage, artifact_id, "QUARANTINED")
        (wish, kernel) = (await client.kernels()).kernels
        assert (wish.artifact_id, wish.state) == ("", pb.KERNEL_STATE_COMPILE_FAILED)
        assert artifact_id[:12] in wish.detail
        assert "parameter_gradients" in kernel.detail
        assert (await client.kernel(artifact_id)).report
        async with client_of(stage, "operator") as operator:
            assert await reason_of(operator.swap_kernel("1", artifact_id)) == "KERNEL_NOT_OFFERED"
        assert await notices(stage, ["kernel.offered", "kernel.quarantined"]) == ["kernel.quarantined"]
        assert stage.trainer.orders == []


async def test_swaps_by_hand(directory: Path, tmp_path: Path) -> None:
    """Back to the eager module for good, and to a kernel again; a kernel that is not in memory is fetched meanwhile."""
    async with open_kernel_stage(directory) as stage, client_of(stage, "operator") as client:
        async with client_of(stage) as compiler:
            artifact_id = (await compiler.upload_kernel(write_kernel(tmp_path / "k"))).artifact_id
            other = replace(VARIANT, dtype="bfloat16")
            misfit_id = (await compiler.upload_kernel(write_kernel(tmp_path / "other", other))).artifact_id
            narrow = write_kernel(tmp_path / "narrow", hint=2, most=4)
            narrow_id = (await compiler.upload_kernel(narrow)).artifact_id
        await eventually(lambda: stage.trainer.snapshot.seeds[0].kernel_artifact_id == artifact_id)
        for name in (misfit_id, narrow_id):
            await until(stage, name, "OFFERED")
            assert await reason_of(client.swap_kernel("1", name)) == "KERNEL_MISFIT"
        assert await reason_of(client.swap_kernel("1", "ab" * 32)) == "KERNEL_UNKNOWN"
        assert await reason_of(client.swap_kernel("9", artifact_id)) == "SEED_UNKNOWN"
        assert await reason_of(client.swap_kernel("", artifact_id)) == "COMMAND_INVALID"
        assert await reason_of(client.delete_kernel(artifact_id)) == "KERNEL_IN_USE"
        assert (await client.swap_kernel("1")).state == 2
        await eventually(lambda: not stage.server.parts.kernels.board.needs.users)
        stage.bridge.record(KernelClosed(artifact_id, "idle"))
        await eventually(lambda: not stage.server.parts.kernels.board.is_resident(artifact_id))
        assert await reason_of(client.swap_kernel("1", artifact_id)) == "KERNEL_NOT_RESIDENT"
        await eventually(lambda: stage.server.parts.kernels.board.is_resident(artifact_id))
        assert stage.trainer.snapshot.seeds[0].kernel_artifact_id == "", "the daemon swaps none in by itself"
        assert (await client.swap_kernel("1", artifact_id)).state == 2
        breaker = BreakerView("kernel", BreakerState.OPEN, 3, "three loads failed")
        stage.trainer.at_safe_point(lambda: stage.trainer.publish(breakers=(breaker,)))
        await eventually(lambda: stage.bridge.snapshot().breakers == (breaker,))
        assert await reason_of(client.swap_kernel("1", artifact_id)) == "KERNEL_BREAKER_OPEN"
        assert (await client.swap_kernel("1")).state == 2, "eager is always right"


async def test_a_kernel_that_cannot_be_opened(kernels: Theatre, tmp_path: Path) -> None:
    """The trainer says so, nobody uses it, and its seed stays eager."""
    files = write_kernel(tmp_path / "k")
    kernels.trainer.unloadable[files.artifact_id] = "KERNEL_UNLOADABLE"
    async with client_of(kernels) as client:
        await client.upload_kernel(files)
        await until(kernels, files.artifact_id, "QUARANTINED")
        assert "KERNEL_UNLOADABLE" in (await client.kernel(files.artifact_id)).kernel.detail
    assert kernels.trainer.snapshot.seeds[0].kernel_artifact_id == ""
    assert len(kernels.trainer.orders) == 1


async def test_a_kernel_that_failed_in_a_seed(kernels: Theatre, tmp_path: Path) -> None:
    """What the training side tells of it quarantines it for good."""
    files = write_kernel(tmp_path / "k")
    async with client_of(kernels) as client:
        await client.upload_kernel(files)
        await eventually(lambda: kernels.trainer.snapshot.seeds[0].kernel_artifact_id == files.artifact_id)
        facts = {"artifact_id": files.artifact_id, "seed_id": "1"}
        kernels.bridge.record(NoticeEvent("kernel.failed", "it raised RuntimeError", "error", 100, 9, 1.8e9, facts))
        await until(kernels, files.artifact_id, "QUARANTINED")
        assert "RuntimeError" in (await client.kernel(files.artifact_id)).kernel.detail


async def test_upkeep(kernels: Theatre, tmp_path: Path) -> None:
    """Pins stay, damage is found and removed, and what nobody uses can be deleted."""
    async with client_of(kernels) as client, client_of(kernels, "operator") as operator:
        files = [write_kernel(tmp_path / dtype, replace(VARIANT, dtype=dtype)) for dtype in ("float64", "float16")]
        first, second = [(await client.upload_kernel(one)).artifact_id for one in files]
        for artifact_id in (first, second):
            await until(kernels, artifact_id, "OFFERED")
        assert (await operator.pin_kernel(first)).kernel.pinned
        assert not (await operator.pin_kernel(first, pinned=False)).kernel.pinned
        assert (await client.verify_kernel(first)).intact
        stored = next((kernels.directory / "kernels" / "library" / first).glob("forward-*.so"))
        stored.chmod(0o600)
        stored.write_bytes(b"!" + stored.read_bytes()[1:])
        found = await client.verify_kernel(first)
        assert (found.intact, found.kernel.state) == (False, pb.KERNEL_STATE_REMOVED)
        assert "forward-" in found.findings[0]
        gone = (await operator.delete_kernel(second, "a test")).kernel
        assert (gone.state, gone.detail) == (pb.KERNEL_STATE_REMOVED, "deleted by operator: a test")
        assert await reason_of(client.delete_kernel(second)) == "PERMISSION_REQUIRED"
        assert [kernel.artifact_id for kernel in (await client.kernels()).kernels] == [""]
        assert len((await client.kernels(states=[pb.KERNEL_STATE_REMOVED])).kernels) == 2
    assert await notices(kernels, ["kernel.evicted"]) == ["kernel.evicted"] * 2


async def test_a_start_goes_on_where_the_last_one_stopped(directory: Path, tmp_path: Path) -> None:
    """A kernel that was being validated is so again; one that was offered is given to the seed without a compiler."""
    validator = ScriptedValidator()
    validator.is_stuck = True
    files = write_kernel(tmp_path / "k")
    async with open_kernel_stage(directory, validator) as stage, client_of(stage) as client:
        assert (await client.upload_kernel(files)).state == pb.KERNEL_STATE_VALIDATING
        await client.report_compilation(variant_key(VARIANT, BATCH), pb.KERNEL_STATE_COMPILING)
        await eventually(lambda: bool(validator.seen))
    (directory / "journal.db").unlink()
    validator.is_stuck = False
    async with open_kernel_stage(directory, validator) as stage:
        await until(stage, files.artifact_id, "OFFERED")
        assert validator.seen == [files.artifact_id] * 2
    (directory / "journal.db").unlink()
    async with open_kernel_stage(directory, validator) as stage:
        await eventually(lambda: stage.trainer.snapshot.seeds[0].kernel_artifact_id == files.artifact_id)
        assert validator.seen == [files.artifact_id] * 2
        async with client_of(stage, "admin") as admin:
            await admin.revoke_key("compiler-1", "it was stolen")
        await until(stage, files.artifact_id, "QUARANTINED")


async def test_a_quarantined_kernel_is_out_of_reach_of_a_resumed_run(directory: Path, tmp_path: Path) -> None:
    """A run that is resumed opens its own copies without asking; one whose kernel was found faulty finds none."""
    files = write_kernel(tmp_path / "k")
    local = directory / "kernels" / "local" / files.artifact_id
    async with open_kernel_stage(directory) as stage, client_of(stage) as client:
        await client.upload_kernel(files)
        await eventually(lambda: bool(stage.server.parts.kernels.board.needs.users))
        facts = {"artifact_id": files.artifact_id, "seed_id": "1"}
        stage.bridge.record(NoticeEvent("kernel.failed", "it raised RuntimeError", "error", 100, 9, 1.8e9, facts))
        await until(stage, files.artifact_id, "QUARANTINED")
        assert local.is_dir(), "the seed that runs it still names it"
    (directory / "journal.db").unlink()
    async with open_kernel_stage(directory) as stage:
        assert not local.exists()
        assert (files.artifact_id, "QUARANTINED") in states(stage)


async def test_a_restricted_kernel_is_for_nobody_who_is_trusted_further(directory: Path, tmp_path: Path) -> None:
    """Neither by itself nor by hand is it given to a seed of a SAFE blueprint."""
    validator = ScriptedValidator()
    validator.handling = HandlingClass.RESTRICTED
    async with open_kernel_stage(directory, validator) as stage, client_of(stage, "operator") as operator:
        async with client_of(stage) as compiler:
            artifact_id = (await compiler.upload_kernel(write_kernel(tmp_path / "k"))).artifact_id
        await until(stage, artifact_id, "OFFERED")
        assert await reason_of(operator.swap_kernel("1", artifact_id)) == "KERNEL_MISFIT"
        assert stage.trainer.orders == []


async def test_limits_that_are_reloaded(directory: Path, tmp_path: Path) -> None:
    """The library's hold from the next upload on, the validator's from the next kernel; each setting has its effect."""
    validator = ScriptedValidator()
    async with open_kernel_stage(directory, validator) as stage, client_of(stage) as client:
        names = [name.removeprefix("kernels.") for name in RELOADABLE if name.startswith("kernels.")]
        before = stage.server.parts.settings
        other = replace(before.kernels, **{name: type(getattr(before.kernels, name))(7_000_000) for name in names})
        stage.server.prepare(replace(before, kernels=other))()
        assert (await client.kernels()).quota_bytes == 7_000_000
        artifact_id = (await client.upload_kernel(write_kernel(tmp_path / "k"))).artifact_id
        await until(stage, artifact_id, "OFFERED")
        assert validator.settings == other
        large = write_kernel(tmp_path / "large", num_bytes=2_500_000)
        assert await reason_of(client.upload_kernel(large)) == "KERNEL_QUOTA"


async def test_a_library_that_cannot_be_used_is_a_condition(kernels: Theatre, tmp_path: Path) -> None:
    """Uploads are refused with what is wrong, the daemon says so, and training knows nothing of it."""
    await eventually(lambda: kernels.server.parts.conditions.now.parts.get("kernels") is True)
    uploads = kernels.directory / "kernels" / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    uploads.write_text("in the way")
    async with client_of(kernels) as client:
        assert await reason_of(client.upload_kernel(write_kernel(tmp_path / "k"))) == "KERNEL_STORE_UNAVAILABLE"
    assert kernels.server.parts.conditions.now.parts["kernels"] is False
    uploads.unlink()
    async with client_of(kernels) as client:
        await client.upload_kernel(KernelFiles.read(tmp_path / "k"))
    assert kernels.server.parts.conditions.now.parts["kernels"] is True
