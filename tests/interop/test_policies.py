"""One policy in three languages against the real daemon: the same things happen, through a cut and a crash."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandSeedOperation
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED, SEED_OPERATION_CULL, TRAINER_PHASE_TRAINING

from esperd.cli.keys import make_key_pair
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.daemon.tls import Tls, tls_address
from tests.interop.conftest import PolicyOf
from tests.interop.policy_process import PolicyProcess, running
from tests.interop.toolchains import ROOT
from tests.robustness.rounds.fault_proxy import FaultProxy

STILL_TASK = '''
import time
from dataclasses import replace

import tiny_task
from torch import nn


def build():
    """A task whose loss stands still from the first epoch on, with steps of 5 ms."""
    task = tiny_task.build()
    for group in task.optimizer.param_groups:
        group["lr"] = 0.0
    return replace(task, loss_fn=lambda output, y: time.sleep(0.005) or nn.functional.mse_loss(output, y))
'''
SETTINGS = (
    "run.num_steps=0",
    "growth.min_training_steps=1000000",
    "growth.max_training_steps=2000000",
    "growth.embargo_steps=1000000",
)
"""The seed stays in TRAINING until somebody culls it, and no other follows."""

WATCH = [
    "snapshot",
    "seed 1 SEED_STAGE_GERMINATED",
    "seed 1 SEED_STAGE_TRAINING",
    # Here the connection is cut and the watch resumes: no second snapshot, and nothing twice.
    "seed 1 SEED_STAGE_CULLED",
    "seed 1 SEED_STAGE_EMBARGOED",
    # Here the daemon is killed and started again, so that the resume token is of another epoch.
    "snapshot",
]
SESSION = [
    "checkpoint COMMAND_STATE_APPLIED",
    "session LEASE_MODE_STEER",
    "asked 0 residual_linear",
    "outcome COMMAND_STATE_APPLIED 1",
    "session LEASE_MODE_STEER",
    "session LEASE_MODE_STEER",
]
"""What every policy says: of its watch and of its session, which run beside each other."""


@pytest.fixture
def daemon(folder: Path, start_daemon: StartDaemon) -> DaemonProcess:
    """A daemon whose loss stands still."""
    (folder / "still_task.py").write_text(STILL_TASK)
    return start_daemon(*SETTINGS, task="still_task:build")


@pytest.mark.timeout(600)  # the first test of a language builds its client
@pytest.mark.parametrize("language", ["python", "node", "cpp"])
async def test_every_language_lives_the_same_life(
    language: str, policy_of: PolicyOf, daemon: DaemonProcess, start_daemon: StartDaemon
) -> None:
    """Server info, a signed command, a watch that resumes and a decision stream: one transcript for all."""
    async with daemon.client() as operator:
        await until_phase(operator, TRAINER_PHASE_TRAINING)
    with contextlib.closing(FaultProxy(f"unix:{daemon.folder}/proxy.sock", daemon.address)) as proxy:
        async with running(*policy_of(language), proxy.address, daemon.key_file) as policy:
            await grow_and_cull(policy, daemon, proxy)
            await crash_and_drain(policy, daemon, start_daemon)
    seen_by_watch = [line for line in policy.lines if line.split()[0] in ("snapshot", "seed")]
    assert seen_by_watch == WATCH
    assert [line for line in policy.lines if line not in seen_by_watch] == SESSION
    assert policy.complaints == ""


async def grow_and_cull(policy: PolicyProcess, daemon: DaemonProcess, proxy: FaultProxy) -> None:
    """The policy grows a seed, its connection is cut, and the operator culls the seed."""
    await policy.until("seed 1 SEED_STAGE_TRAINING")
    await policy.until("outcome")
    proxy.cut()
    await policy.until("session", times=2)
    async with daemon.client() as operator:
        await cull(operator)
        await policy.until("seed 1 SEED_STAGE_EMBARGOED")
        await operator.checkpoint(note="without a seed")


async def crash_and_drain(policy: PolicyProcess, daemon: DaemonProcess, start_daemon: StartDaemon) -> None:
    """The daemon is killed and started again, and drains in the end: the policy leaves with it, in good order."""
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    second = start_daemon(*SETTINGS, task="still_task:build")
    await policy.until("session", times=3)
    await policy.until("snapshot", times=2)
    second.signal(signal.SIGTERM)
    assert await policy.end() == 0, policy.complaints
    assert second.wait() == 0


async def cull(operator: AsyncClient) -> None:
    """Remove the seed."""
    operation = CommandSeedOperation(operation=SEED_OPERATION_CULL)
    command = AdaptationCommand(target_seed_id="1", reason="a test", seed_operation=operation)
    assert (await operator.submit(command, wait=True)).state == COMMAND_STATE_APPLIED


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["python", "node", "cpp"])
async def test_every_language_decodes_refusals(
    language: str, policy_of: PolicyOf, folder: Path, start_daemon: StartDaemon
) -> None:
    """Nobody at the address, no files for TLS, a stranger's key, one that may not command, a field that is wrong."""
    watcher, stranger = new_key(folder, "watcher", "run/keys.toml"), new_key(folder, "stranger", "other.toml")
    daemon = start_daemon()
    async with daemon.client() as operator:
        await until_phase(operator, TRAINER_PHASE_TRAINING)
    here, nowhere = daemon.address, f"unix:{folder}/nobody.sock"
    await fails(policy_of(language), [nowhere, watcher], ["failed UNAVAILABLE"])
    await fails(policy_of(language), ["tls:127.0.0.1:1", watcher], ["failed INVALID_ARGUMENT"])
    await fails(policy_of(language), [here, stranger], ["failed UNAUTHENTICATED SIGNATURE_INVALID"])
    await fails(policy_of(language), [here, watcher], ["failed PERMISSION_DENIED PERMISSION_REQUIRED"])
    invalid = ["failed INVALID_ARGUMENT REQUEST_INVALID", "invalid policy_name"]
    await fails(
        policy_of(language), [here, daemon.key_file, "x" * 1000], ["checkpoint COMMAND_STATE_APPLIED", *invalid]
    )


async def fails(command: Sequence[str], arguments: Sequence[str | Path], lines: Sequence[str]) -> None:
    """The policy ends with exit status 1 and says why; Python's says it by the exception that ends it."""
    async with running(*command, *arguments) as policy:
        assert await policy.end() == 1
    if command[0] != sys.executable:
        assert [line for line in policy.lines if line.split()[0] not in ("snapshot", "seed")] == list(lines)
    else:
        assert "esper.client.errors." in policy.complaints


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["node", "cpp"])
async def test_a_policy_speaks_mutual_tls(
    language: str, policy_of: PolicyOf, folder: Path, start_daemon: StartDaemon
) -> None:
    """With the files that its key file names, beside it, it steers over TCP; Python's client has tests of its own."""
    tls = Tls(folder)
    daemon = start_daemon(*tls.overrides)
    async with daemon.client() as operator:
        await until_phase(operator, TRAINER_PHASE_TRAINING)
    files = 'ca = "tls/ca.pem"\ncertificate = "tls/client.pem"\nprivate_key = "tls/client.key"\n'
    daemon.key_file.write_text(daemon.key_file.read_text() + files)
    async with running(*policy_of(language), tls_address(daemon), daemon.key_file) as policy:
        await policy.until("session LEASE_MODE_STEER")


def new_key(folder: Path, name: str, ring: str) -> Path:
    """A key that may only observe, in one of two rings."""
    path = folder / f"{name}.toml"
    make_key_pair(name, ("observe",), folder / ring, path, "", now_unix_s=time.time() - 1)
    return path


def test_the_policies_are_short() -> None:
    """Each can be read at a sitting; what it shares with the checker of the vectors lies beside it."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "clients").glob("*/policy.*")}
    assert set(lengths) == {"policy.mjs", "policy.cc"}
    assert max(lengths.values()) <= 150


def test_the_lock_file_names_no_host() -> None:
    """Packages come from wherever npm is told to look."""
    lock = json.loads((ROOT / "clients" / "node" / "package-lock.json").read_text())
    assert all(package.get("integrity") for name, package in lock["packages"].items() if name)
    assert not any("resolved" in package for package in lock["packages"].values())
