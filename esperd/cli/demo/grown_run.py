"""One grown run: a daemon process, a policy process that steers it, and the result read over gRPC.

Event loop of the demo. Both processes are what a user would start by hand, in two terminals.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1.command_pb2 import Command
from esper.leyline.v1.state_pb2 import Run, SeedState
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_APPLIED,
    SEED_OPERATION_GERMINATE,
    SEED_STAGE_CULLED,
    SEED_STAGE_EMBARGOED,
    SEED_STAGE_FOSSILIZED,
    SEED_STAGE_RESETTING,
    TRAINER_PHASE_FAILED,
    TRAINER_PHASE_FINISHED,
)

from esperd.cli.demo.children import Child, start_child
from esperd.cli.demo.configuration import DemoFiles, RunFiles
from esperd.cli.demo.live import describe_run
from esperd.cli.demo.results import Grown, GrownRun, RunResult

LOOK_S = 0.25
START_S = 60.0
"""Until the socket answers; loading takes a second or two."""

CULLED_STAGES = (SEED_STAGE_CULLED, SEED_STAGE_EMBARGOED, SEED_STAGE_RESETTING)
"""After these a seed is gone; live and fossilized ones stay in the list of seeds."""

Show = Callable[[str], None]


async def run_grown(name: str, demo: DemoFiles, files: RunFiles, policy_arguments: list[str], show: Show) -> GrownRun:
    """Start daemon and policy, wait until the run has finished, read the result, end both.

    Raises:
        EsperdError: RUN_FAILED, with the last log lines of the process that broke.
    """
    async with running_daemon(name, demo, files) as (daemon, client):
        policy = await start_policy(name, demo, files, policy_arguments)
        try:
            run, seeds = await _until_finished(name, client, daemon, policy, show)
            return await _read_result(client, run, seeds, daemon, policy)
        finally:
            await policy.terminate()


@contextlib.asynccontextmanager
async def running_daemon(
    name: str, demo: DemoFiles, files: RunFiles, path: Path | None = None
) -> AsyncIterator[tuple[Child, AsyncClient]]:
    """A daemon, with `path` in the place of PATH, and the operator's client to it, once it answers; ends it.

    Raises:
        EsperdError: RUN_FAILED, when it breaks, stops answering or ends with another status than 0.
    """
    arguments = ["serve", str(files.configuration)]
    daemon = await start_child(f"{name} daemon", "esperd.cli.main", arguments, files.directory / "daemon.log", path)
    try:
        async with _connected(daemon, demo, files) as client:
            yield daemon, client
    except LeylineError as error:
        raise daemon.failure(f"{daemon.name} stopped answering: {error.message}") from error
    finally:
        status = await daemon.terminate()
    if status != 0:
        raise daemon.failure(f"{daemon.name} ended with status {status}")


async def start_policy(name: str, demo: DemoFiles, files: RunFiles, arguments: list[str]) -> Child:
    """A Tamiyo that steers the run."""
    common = ["tamiyo", "run", "--address", files.address, "--key", str(demo.policy_key)]
    common += ["--state-dir", str(files.directory / "policy")]
    return await start_child(f"{name} policy", "esper.cli", [*common, *arguments], files.directory / "policy.log")


async def applied_commands(client: AsyncClient) -> list[Command]:
    """Every command that took effect, from the run's journal."""
    found: list[Command] = []
    page_token = ""
    while True:
        page = await client.commands(page_size=100, page_token=page_token, state=COMMAND_STATE_APPLIED)
        found += page.commands
        page_token = page.next_page_token
        if not page_token:
            return found


@contextlib.asynccontextmanager
async def _connected(daemon: Child, demo: DemoFiles, files: RunFiles) -> AsyncIterator[AsyncClient]:
    """A client, once the daemon answers."""
    deadline_s = time.monotonic() + START_S
    async with AsyncClient(files.address, Credentials.load(demo.operator_key)) as client:
        while not await _answers(client):
            daemon.check_alive()
            if time.monotonic() > deadline_s:
                raise daemon.failure(f"{daemon.name} did not answer within {START_S:g} s")
            await asyncio.sleep(0.1)
        yield client


async def _answers(client: AsyncClient) -> bool:
    try:
        await client.server_info()
    except Unreachable:
        return False
    return True


async def _until_finished(
    name: str, client: AsyncClient, daemon: Child, policy: Child, show: Show
) -> tuple[Run, list[SeedState]]:
    while True:
        daemon.check_alive()
        run = (await client.run()).run
        seeds = list((await client.seeds()).seeds)
        if run.phase == TRAINER_PHASE_FINISHED:
            return run, seeds
        if run.phase == TRAINER_PHASE_FAILED:
            raise daemon.failure(f"the run {name} failed: {run.failure}")
        if policy.process.returncode not in (None, 0):  # at the run's end it leaves by itself, with 0
            policy.check_alive()
        show(describe_run(name, run, seeds))
        await asyncio.sleep(LOOK_S)


async def _read_result(client: AsyncClient, run: Run, seeds: list[SeedState], daemon: Child, policy: Child) -> GrownRun:
    germinations = {
        command.seed_id: command
        for command in await applied_commands(client)
        if command.request.seed_operation.operation == SEED_OPERATION_GERMINATE
    }
    fossils = [
        Grown(seed.site, seed.blueprint_id, dict(germinations[seed.seed_id].request.seed_operation.parameters))
        for seed in seeds
        if seed.stage == SEED_STAGE_FOSSILIZED
    ]
    num_left = sum(seed.stage not in CULLED_STAGES for seed in seeds)
    return GrownRun(
        RunResult(
            val_loss=run.val_loss,
            val_accuracy=run.metrics.get("accuracy", math.nan),
            params=run.num_host_parameters + run.num_grown_parameters,
            train_flops=run.train_flops,
            steps=run.global_step,
        ),
        tuple(fossils),
        num_culled=len(germinations) - num_left,
        daemon_pid=daemon.pid,
        policy_pid=policy.pid,
    )
