"""KernelService over a real socket: what is wanted, uploads, the way to OFFERED, and what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.leyline.v1 import kernel_pb2 as pb

from esperd.leyline.kernels import variant_key
from esperd.oona.records import CommandQuery
from tests.integration.control.kernel_stage import (
    BATCH,
    VARIANT,
    notices,
    open_kernel_stage,
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
