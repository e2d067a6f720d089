"""What an operator does to a real daemon with esperctl: checkpoints, a rollback, a crash, and the story of it all."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import Result
from esper.client.aio import AsyncClient
from esper.leyline.v1 import vocabulary_pb2 as v

from tests.integration.daemon.process import DaemonProcess

OFTEN = (
    "checkpoints.every_steps=200",
    "checkpoints.keep=1000",
    "checkpoints.good_after_steps=20",
    "checkpoints.snapshot_every_steps=50",
)
RUNNING = (v.TRAINER_PHASE_TRAINING, v.TRAINER_PHASE_VALIDATING)


class Operator:
    """Somebody at a terminal, and the daemon."""

    def __init__(self, folder: Path, daemon: DaemonProcess) -> None:
        self.folder = folder
        self.daemon = daemon

    async def ctl(self, *arguments: str, code: int = 0) -> Result:
        """Type one command, and look at its exit code."""
        return await self.daemon.ctl(*arguments, code=code)

    async def until_step(self, client: AsyncClient, step: int) -> None:
        """Wait until the run has come that far."""
        async with asyncio.timeout(60):
            while (run := (await client.run()).run).global_step < step or run.phase not in RUNNING:
                await asyncio.sleep(0.02)


@pytest.fixture
async def operator(folder: Path) -> AsyncIterator[Operator]:
    found = Operator(folder, DaemonProcess(folder, *OFTEN))
    yield found
    found.daemon.stop()


async def test_a_rollback_and_a_crash(operator: Operator) -> None:
    """Back to before a seed, on a new timeline; after kill -9 the run goes on there, and the story tells all of it."""
    async with operator.daemon.client() as client:
        await operator.until_step(client, 300)
    asked = ("0", "residual_linear", "--until", "training", "--reason", "it is flat")
    await operator.ctl("germinate", *asked, "--wait")
    await operator.ctl("lr", "0.0005", "--wait", "--reason", "slower")
    await operator.ctl("pause", "--wait")
    told = (await operator.ctl("rollback", "--to", "before seed 1", "--dry-run")).stdout
    assert "seeds that go:\n  seed 1 (residual_linear at 0), TRAINING" in told
    assert "host: lr=0.0005, by operator: slower" in told
    assert "PAUSE" not in told
    await operator.ctl("rollback", "--to", "before seed 1", code=2)
    done = await operator.ctl("rollback", "--to", "before seed 1", "--yes", "--reason", "a try")
    assert "on timeline 2" in done.stdout.splitlines()[-1]
    assert "PAUSED" in done.stdout.splitlines()[-1]
    group = json.loads((await operator.ctl("optimizers", "-o", "json")).stdout)["groups"]
    assert [one["hyperparameters"]["lr"] for one in group] == [0.001]
    assert "no seeds" in (await operator.ctl("seeds")).stdout
    await operator.ctl("resume", "--wait")
    tree = (await operator.ctl("timelines")).stdout.splitlines()
    assert tree[0].startswith("timeline 1: left at step ")
    assert "by operator (a try), now at step " in tree[1]
    os.kill(operator.daemon.process.pid, signal.SIGKILL)
    operator.daemon.process.wait()
    operator.daemon = DaemonProcess(operator.folder, *OFTEN)
    async with operator.daemon.client() as client:
        await operator.until_step(client, 300)
        run = (await client.run()).run
        assert (run.timeline, run.resumed_from.startswith("t002-")) == (2, True)
    story = (await operator.ctl("log", "--seed", "1", "--why")).stdout
    assert 'as operator had asked because "it is flat"' in story
    assert "G1_GRADIENT_HEALTH passed" in story
    assert "a rollback by operator (a try) went back from step" in story
    assert story.splitlines()[-1] == "Now: seed 1 is not part of the run; a rollback has left it behind."
    assert "timeline 2  opened: back from step" in (await operator.ctl("log")).stdout
    status = (await operator.ctl("status")).stdout.splitlines()
    assert any(line.startswith("resumed from") and "t002-" in line for line in status)


async def test_checkpoints_by_hand(operator: Operator) -> None:
    """Made with a note, shown, verified; damage is found; old ones go, the one made by hand stays."""
    async with operator.daemon.client() as client:
        await operator.until_step(client, 500)
    await operator.ctl("pause", "--wait")
    name = (await operator.ctl("checkpoint", "create", "--note", "before the change")).stdout.split()[1]
    assert "before the change" in (await operator.ctl("checkpoint", "list")).stdout
    answer = json.loads((await operator.ctl("checkpoint", "show", name, "-o", "json")).stdout)
    assert answer["checkpoint"]["kind"] == "CHECKPOINT_KIND_REQUESTED"
    assert "DAMAGED" not in (await operator.ctl("checkpoint", "verify", "--all")).stdout
    biggest = max(answer["files"], key=lambda file: int(file["numBytes"]))["name"]
    path = Path(answer["directory"]) / biggest
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "is not what was written" in (await operator.ctl("checkpoint", "verify", name, code=1)).stdout
    await operator.ctl("checkpoint", "prune", "--keep", "1", code=2)
    assert "removed" in (await operator.ctl("checkpoint", "prune", "--keep", "1", "--yes")).stdout
    left = json.loads((await operator.ctl("checkpoint", "list", "-o", "json")).stdout)["checkpoints"]
    assert name in [one["checkpointId"] for one in left]
    assert len(left) <= 3
    await operator.ctl("rollback", "--to", "no such one", "--yes", code=1)
