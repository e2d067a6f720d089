"""A real kernel in a real daemon: uploaded, validated, given to a seed, and there again after a kill."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.kernel_files import KernelFiles
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.state_pb2 import SeedState
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED

from esperd.cli.keys import make_key_pair
from tests.integration.daemon.conftest import StartDaemon
from tests.kernels import compiled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENCE_S = 240.0
QUIET_TASK = """
import time
from dataclasses import replace

import tiny_task
import torch
from torch import nn


def build():
    task = tiny_task.build()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=1e-5)
    return replace(task, optimizer=optimizer, loss_fn=lambda y, t: time.sleep(0.01) or nn.functional.mse_loss(y, t))
"""
"""Steps of 10 ms in which nothing happens that a guard would look at."""
SETTINGS = (
    "run.num_steps=0",
    "growth.max_seed_flops_ratio=1000.0",
    # What a kernel costs is measured elsewhere: here other tests may take the machine.
    "kernels.max_load_ms=10000.0",
    "kernels.max_step_ratio=100.0",
)
GERMINATE = CommandSeedOperation(operation=1, blueprint_id="residual_mlp", site="0")  # type: ignore[arg-type]


async def seed_with_kernel(client: AsyncClient, artifact_id: str) -> SeedState:
    """The seed, once it computes by the kernel."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        seeds = (await client.seeds()).seeds
        if seeds and seeds[0].kernel_artifact_id == artifact_id:
            return seeds[0]
        kernel = (await client.kernel(artifact_id)).kernel
        assert time.monotonic() < deadline_s, f"{kernel.state}: {kernel.detail}"
        await asyncio.sleep(0.1)


async def test_a_kernel_outlives_a_kill(folder: Path, start_daemon: StartDaemon) -> None:
    """The seed grows eager, is changed over by a command in the journal, and computes by it in the next start too."""
    permissions = ("observe", "command", "emergency", "operate", "admin", "compile")
    key = folder / "operator.toml"
    make_key_pair("operator", permissions, folder / "run" / "keys.toml", key, "", now_unix_s=time.time() - 1)
    (folder / "quiet_task.py").write_text(QUIET_TASK)
    files = KernelFiles.read(compiled("residual_mlp", (8, 8)))
    daemon = start_daemon(*SETTINGS, task="quiet_task:build")
    async with daemon.client() as client:
        done = await client.submit(AdaptationCommand(seed_operation=GERMINATE), wait=True)
        assert done.state == COMMAND_STATE_APPLIED, done.error.message
        await client.upload_kernel(files)
        await seed_with_kernel(client, files.artifact_id)
        assert (await client.checkpoint()).state == COMMAND_STATE_APPLIED
        daemon.signal(signal.SIGKILL)
        daemon.wait()
    again = start_daemon(*SETTINGS, task="quiet_task:build")
    async with again.client() as client:
        seed = await seed_with_kernel(client, files.artifact_id)
        assert seed.kernel_note == ""
        assert (await client.run()).run.resumed_from
        kinds = [command.kind for command in (await client.commands()).commands]
        assert kinds.count("KernelSwapCommand") == 1
        eager = await client.swap_kernel("1", reason="a test")
        assert eager.state == COMMAND_STATE_APPLIED
        assert (await client.delete_kernel(files.artifact_id, "a test")).kernel.num_bytes > 0
