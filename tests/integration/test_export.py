"""Exports from a real daemon and without one: what a stranger loads from them, and what is refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from esper.client.aio import AsyncClient
from esper.leyline.v1.command_pb2 import COMMAND_TYPE_SEED, AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_APPLIED,
    SEED_OPERATION_GERMINATE,
    SEED_STAGE_FOSSILIZED,
    SEED_STAGE_GERMINATED,
    TRAINER_PHASE_TRAINING,
)

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase

GROW_S = 80.0
COMMAND_S = 80.0
GROWTH = (
    "growth.sites=['block1', 'block2']",
    "growth.min_training_steps=60",
    "growth.alpha_steps=20",
    "growth.seed_warmup_steps=10",
    "growth.probe_budget=1.0",
    "growth.max_parameter_ratio=1000.0",
    "growth.max_seed_flops_ratio=1000.0",
    "growth.max_step_time_ratio=1000000.0",
    "growth.embargo_steps=1",
    "run.task_options.num_steps=1000000",
    "checkpoints.every_steps=0",
)
STRANGER = """
import importlib.util, json, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("esperd", "esper", "safetensors"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import torch
torch.set_num_threads(1)
inputs = torch.linspace(0.0, 1.0, 5 * 64).view(5, 1, 8, 8)
outputs = []
for directory in map(Path, sys.argv[1:]):
    if (directory / "model.pt2").exists():
        model = torch.export.load(directory / "model.pt2").module()
    else:
        spec = importlib.util.spec_from_file_location("model", directory / "model.py")
        source = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(source)
        model = source.load(directory / "model.safetensors")
    with torch.no_grad():
        outputs.append(model(inputs))
assert all(torch.equal(output, outputs[0]) for output in outputs)
print(json.dumps(outputs[0].tolist()))
"""


async def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of this installation, in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


async def esperctl(daemon: DaemonProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    where = ("--address", daemon.address, "--key", daemon.key_file)
    return await run("-m", "esper.ctl.main", *where, *arguments)


async def esperd_export(daemon: DaemonProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    settings = [value for override in GROWTH for value in ("--set", override)]
    return await run("-m", "esperd.cli.main", "export", daemon.folder / "esperd.toml", *settings, *arguments)


async def stranger(*directories: Path) -> Any:
    """What a process without esperd gets out of all these exports alike."""
    ended = await run("-I", "-c", STRANGER, *directories)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def germinate(client: AsyncClient, site: str, **fields: Any) -> str:
    operation = CommandSeedOperation(
        operation=SEED_OPERATION_GERMINATE, site=site, blueprint_id="residual_conv", **fields
    )
    command = AdaptationCommand(command_type=COMMAND_TYPE_SEED, reason="a test", seed_operation=operation)
    done = await client.submit(command, wait=True)
    assert done.state == COMMAND_STATE_APPLIED, done.error.message
    return done.seed_id


async def until_fossilized(client: AsyncClient, site: str) -> str:
    """Grow at the site until a seed stays; one that its gates turn down makes room for the next."""
    deadline_s = time.monotonic() + GROW_S
    while time.monotonic() < deadline_s:
        seeds = {seed.seed_id: seed.stage for seed in (await client.seeds()).seeds}
        found = [seed_id for seed_id, stage in seeds.items() if stage == SEED_STAGE_FOSSILIZED]
        if found:
            return found[0]
        if not seeds:
            await germinate(client, site, auto_advance=True)
        await asyncio.sleep(0.1)
    raise AssertionError("no seed was kept")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_grown_run_is_exported_with_and_without_its_daemon(start_daemon: StartDaemon, folder: Path) -> None:
    """A live seed is refused by name and can be left out; both formats, both ways, give a stranger the same bits."""
    daemon = start_daemon(*GROWTH, task="esperd.examples.digits:build")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        kept = await until_fossilized(client, "block1")
        live = await germinate(client, "block2")
        assert (await client.seed(live)).seed.stage == SEED_STAGE_GERMINATED

        refused = await esperctl(daemon, "export", "--format", "safetensors")
        assert refused.returncode == 1
        assert "E-EXP-001" in refused.stderr
        assert f"seed {live} at block2 is GERMINATED" in refused.stderr
        assert not (folder / "run" / "exports").exists()

        done = await esperctl(
            daemon,
            "export",
            "--format",
            "safetensors",
            "--without-live-seeds",
            "--directory",
            folder / "run" / "out",
            "-o",
            "json",
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["directory"] == str(folder / "run" / "out")
        assert [file["name"] for file in answer["files"]] == ["model.py", "model.safetensors", "export.json"]
        # It trained on meanwhile.
        document = json.loads((folder / "run" / "out" / "export.json").read_text())
        assert (await client.run()).run.global_step > document["global_step"]

    assert [seed["seed_id"] for seed in document["seeds"]] == [int(kept)]
    assert [(seed["seed_id"], seed["stage"]) for seed in document["seeds_left_out"]] == [(int(live), "GERMINATED")]
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    checkpoint_id = document["checkpoint_id"]
    wish = ("--checkpoint", checkpoint_id, "--without-live-seeds")
    after = await esperd_export(daemon, "--format", "torch-export", *wish)
    assert after.returncode == 0, after.stderr
    directory = folder / "run" / "exports" / document["run_id"] / f"{checkpoint_id}-torch-export"
    output = await stranger(folder / "run" / "out", directory)
    assert len(output) == 5

    stored = folder / "run" / "checkpoints" / document["run_id"] / checkpoint_id / "host.safetensors"
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    damaged = await esperd_export(daemon, "--format", "safetensors", *wish, "--directory", folder / "damaged")
    assert damaged.returncode == 1
    assert "E-CKP-002" in damaged.stderr
    assert not (folder / "damaged").exists()
