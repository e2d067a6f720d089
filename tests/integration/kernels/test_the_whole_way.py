"""Kernels from a folder to a seed and back, with real daemons, a real validator and real libraries."""

import json
import shutil
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError
from esper.client.kernel_files import KernelFiles
from esper.leyline.v1.kernel_pb2 import (
    KERNEL_STATE_OFFERED,
    KERNEL_STATE_QUARANTINED,
    KERNEL_STATE_REMOVED,
    KERNEL_STATE_WANTED,
    KernelManifest,
)
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED, TRAINER_PHASE_TRAINING

from tests.integration.daemon.process import until_phase
from tests.integration.kernels.beside import (
    Beside,
    compiler_modules,
    germinate,
    id_of,
    notices,
    overwrite,
    sign,
    until_kernel,
    until_seed,
    with_a_byte_changed,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_kernel_that_is_there_first(beside: Beside) -> None:
    """Uploaded and offered, then grown: the seed computes by it, also after SIGKILL; nothing compiles in the daemon.

    It cannot be deleted while the seed uses it, and can once the seed was put back.
    """
    folder = beside.kernel()
    artifact_id, daemon = id_of(folder), beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        wanted = (await client.kernels(states=[KERNEL_STATE_WANTED])).kernels
        assert {kernel.variant.blueprint_id for kernel in wanted} >= {"residual_mlp", "residual_linear"}
        await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
        kernel = await until_kernel(client, artifact_id, KERNEL_STATE_OFFERED)
        assert all(check.passed for check in kernel.report.checks)
        seed_id = await germinate(client)
        await until_seed(client, seed_id, lambda seed: seed.kernel_artifact_id == artifact_id)
        assert await compiler_modules(client) == "none"
    beside.kill()
    daemon = beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await until_seed(client, seed_id, lambda seed: seed.kernel_artifact_id == artifact_id)
        refused = await daemon.ctl("kernels", "delete", artifact_id, code=1)
        assert "KERNEL_IN_USE" in refused.output or "E-KRN-009" in refused.output
        await daemon.ctl("seed", "kernel", seed_id, "--eager", "--wait")
        await until_seed(client, seed_id, lambda seed: not seed.kernel_artifact_id)
        await daemon.ctl("kernels", "delete", artifact_id)
        await until_kernel(client, artifact_id, KERNEL_STATE_REMOVED)
        assert await compiler_modules(client) == "none"
        applied = (await client.commands(state=COMMAND_STATE_APPLIED)).commands
        assert [c.kind for c in applied if c.seed_id == seed_id] == ["kernel", "KernelSwapCommand", "seed"]
    beside.end()


async def test_what_nobody_vouches_for_is_not_taken_in(beside: Beside) -> None:
    """Each is refused at the door, with its reason; none of it ever comes near the validator."""
    rival, policy = beside.other_key("rival", "compile"), beside.other_key("policy", "command")
    changed = beside.kernel()
    library = next(changed.glob("forward-*.so"))
    overwrite(library, with_a_byte_changed(library))
    other_manifest = beside.kernel()
    manifest = other_manifest / "manifest.binpb"
    overwrite(manifest, manifest.read_bytes() + b"\xa0\x06\x01")  # a field that nobody knows
    by_rival, by_policy = beside.kernel(rival), beside.kernel(policy)
    daemon = beside.start()
    async with daemon.client():
        for folder, key, reason in (
            (changed, beside.compiler_key, "KERNEL_CORRUPT"),
            (other_manifest, beside.compiler_key, "KERNEL_SIGNATURE_INVALID"),
            (by_rival, beside.compiler_key, "KERNEL_SIGNATURE_INVALID"),
            (by_policy, policy, "PERMISSION_REQUIRED"),
        ):
            assert await reason_of_upload(daemon.address, key, folder) == reason, folder
    beside.end()


async def reason_of_upload(address: str, key: Path, folder: Path) -> str:
    """Why an upload is refused."""
    async with AsyncClient(address, Credentials.load(key)) as client:
        with pytest.raises(LeylineError) as caught:
            await client.upload_kernel(KernelFiles.read(folder))
    return caught.value.reason


async def test_what_was_changed_on_the_disk_is_not_used(beside: Beside) -> None:
    """A library whose bytes have changed in the store is removed at the next look; brought again, it is used."""
    folder = beside.kernel()
    artifact_id, daemon = id_of(folder), beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
        await until_kernel(client, artifact_id, KERNEL_STATE_OFFERED)
        (library,) = beside.library.rglob("parameter_backward-*.so")
        overwrite(library, with_a_byte_changed(library))
        found = await daemon.ctl("kernels", "verify", artifact_id, key=beside.compiler_key, code=1)
        assert library.name in found.output.replace("\n", "")
        await until_kernel(client, artifact_id, KERNEL_STATE_REMOVED)
        seed_id = await germinate(client)
        assert not (await client.seed(seed_id)).seed.kernel_artifact_id
        await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
        await until_kernel(client, artifact_id, KERNEL_STATE_OFFERED)
        await until_seed(client, seed_id, lambda seed: seed.kernel_artifact_id == artifact_id)
    beside.end()


@pytest.mark.parametrize("document", ["report-*.binpb", "report-*.sig.json"])
async def test_a_report_that_is_gone_or_forged_counts_for_nothing(beside: Beside, document: str) -> None:
    """The kernel is validated again before any seed may use it; a report that praises itself is none."""
    folder = beside.kernel()
    artifact_id, daemon = id_of(folder), beside.start()
    async with daemon.client() as client:
        await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
        await until_kernel(client, artifact_id, KERNEL_STATE_OFFERED)
    beside.end()
    (path,) = beside.library.rglob(document)
    if document == "report-*.binpb":
        path.unlink()
    else:
        key_id = json.loads(path.read_text())["key_id"]
        overwrite(path, json.dumps({"key_id": key_id, "hmac": "00" * 32}).encode())
    shutil.rmtree(beside.folder / "run" / "kernels" / "local")
    daemon = beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await until_kernel(client, artifact_id, KERNEL_STATE_OFFERED)
        seed_id = await germinate(client)
        await until_seed(client, seed_id, lambda seed: seed.kernel_artifact_id == artifact_id)
    assert [notice["kind"] for notice in notices(beside.folder)].count("kernel.offered") == 2
    beside.end()


async def test_a_kernel_for_another_build_of_torch_is_never_opened(beside: Beside) -> None:
    """Its manifest says so, signed and all: the validator stops before it opens anything, and the seed runs eager."""
    folder = beside.kernel()
    path = folder / "manifest.binpb"
    manifest = KernelManifest.FromString(path.read_bytes())
    manifest.variant.torch_version = "1.0.0"
    overwrite(path, manifest.SerializeToString())
    sign(folder, beside.compiler_key)
    daemon = beside.start()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await daemon.ctl("kernels", "upload", folder, key=beside.compiler_key)
        kernel = await until_kernel(client, id_of(folder), KERNEL_STATE_QUARANTINED)
        (failed,) = [check for check in kernel.report.checks if not check.passed]
        assert (failed.name, "1.0.0" in failed.detail) == ("fits", True)
        assert "load" not in [check.name for check in kernel.report.checks]
        seed_id = await germinate(client)
        refused = await daemon.ctl("seed", "kernel", seed_id, id_of(folder), "--wait", code=1)
        assert "KERNEL_NOT_OFFERED" in refused.output or "E-KRN-007" in refused.output
        assert not (await client.seed(seed_id)).seed.kernel_artifact_id
    beside.end()
