"""Emergencies at a real daemon: acknowledged whatever the run is doing, before whatever else waits."""

import signal
import time
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1.command_pb2 import (
    COMMAND_TYPE_PAUSE,
    RUN_ACTION_PAUSE,
    RUN_ACTION_RESUME,
    AdaptationCommand,
    ApplyAt,
    CommandRunControl,
    RunAction,
)
from esper.leyline.v1.vocabulary_pb2 import (
    EMERGENCY_LEVEL_CONSERVATIVE,
    EMERGENCY_LEVEL_HALT,
    EMERGENCY_LEVEL_NOTICE,
    TRAINER_PHASE_CATCHING_UP,
    TRAINER_PHASE_HALTED,
    TRAINER_PHASE_PAUSED,
    TRAINER_PHASE_TRAINING,
)

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import until_phase


def run_control(action: RunAction, apply_at: ApplyAt | None = None) -> AdaptationCommand:
    """Pause or resume."""
    control = CommandRunControl(action=action)
    return AdaptationCommand(command_type=COMMAND_TYPE_PAUSE, reason="a test", run_control=control, apply_at=apply_at)


async def raised(client: AsyncClient) -> dict[str, int]:
    """Reason and level of everything that stands."""
    return {emergency.reason: emergency.level for emergency in (await client.emergencies()).emergencies}


async def test_a_run_that_stands_still_acknowledges_emergencies_too(start_daemon: StartDaemon) -> None:
    """PAUSED, HALTED, PAUSED again once the halt is cleared; each is answered and in the log, the steps stand."""
    daemon = start_daemon("run.start_paused=true")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_PAUSED)
        halt = await client.raise_emergency(EMERGENCY_LEVEL_HALT, "fire drill")
        await until_phase(client, TRAINER_PHASE_HALTED)
        await client.raise_emergency(EMERGENCY_LEVEL_CONSERVATIVE, "while halted")
        assert await raised(client) == {
            "fire drill": EMERGENCY_LEVEL_HALT,
            "while halted": EMERGENCY_LEVEL_CONSERVATIVE,
        }
        await daemon.until_logged("HALT: fire drill")
        await daemon.until_logged("CONSERVATIVE: while halted")
        cleared = await client.clear_emergency(halt.emergency.emergency_id, "it was a drill")
        assert cleared.level == EMERGENCY_LEVEL_CONSERVATIVE
        stands = await until_phase(client, TRAINER_PHASE_PAUSED)
        assert stands.run.global_step == 0
        await client.submit(run_control(RUN_ACTION_RESUME), wait=True)
        await until_phase(client, TRAINER_PHASE_TRAINING)


async def test_in_the_middle_of_a_long_step_the_deadline_is_told_and_the_next_safe_point_halts(
    start_daemon: StartDaemon,
) -> None:
    """A step takes two seconds: not acknowledged in a fifth of one, in force when the step is over."""
    daemon = start_daemon(task="tiny_task:slow")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        began_s = time.monotonic()
        with pytest.raises(LeylineError) as caught:
            await _ask_often(client)
        assert caught.value.reason == "EMERGENCY_UNACKNOWLEDGED"
        assert time.monotonic() - began_s < 10.0
        await until_phase(client, TRAINER_PHASE_HALTED)
        assert (await raised(client))["smoke 0"] == EMERGENCY_LEVEL_HALT


async def _ask_often(client: AsyncClient) -> None:
    """Three fifths of a second of asking: one of the three may happen to come just before a safe point."""
    for number in range(3):
        level = EMERGENCY_LEVEL_HALT if number == 0 else EMERGENCY_LEVEL_NOTICE
        await client.raise_emergency(level, f"smoke {number}", acknowledge_within_s=0.2)


async def test_a_full_command_box_does_not_hold_an_emergency(start_daemon: StartDaemon) -> None:
    """Commands that wait for a far step fill the box; the next one is refused, an emergency halts the run."""
    daemon = start_daemon("control.command_box_capacity=2")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        later = ApplyAt(global_step=1_000_000_000)
        for _ in range(2):
            await client.submit(run_control(RUN_ACTION_PAUSE, later))
        with pytest.raises(LeylineError) as caught:
            await client.submit(run_control(RUN_ACTION_PAUSE), timeout_s=1.0)
        assert caught.value.reason == "COMMAND_BOX_FULL"
        halt = await client.raise_emergency(EMERGENCY_LEVEL_HALT, "smoke")
        await until_phase(client, TRAINER_PHASE_HALTED)
        await client.clear_emergency(halt.emergency.emergency_id, "no fire")
        await until_phase(client, TRAINER_PHASE_TRAINING)


STEADY_TASK = """
import time
from dataclasses import replace

from torch import nn
from esperd.tolaria.task import Task
from tiny_task import build as tiny


def build() -> Task:
    return replace(tiny(), loss_fn=lambda output, y: time.sleep(0.03) or nn.functional.mse_loss(output, y))
"""


async def test_a_run_that_catches_up_acknowledges_emergencies_and_then_catches_up(
    start_daemon: StartDaemon, folder: Path
) -> None:
    """Killed after 80 steps without a checkpoint: a halt holds even the steps that are done again, until cleared."""
    (folder / "steady_task.py").write_text(STEADY_TASK)
    options = ("checkpoints.every_steps=0",)
    first = start_daemon(*options, task="steady_task:build")
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        paused = await client.submit(run_control(RUN_ACTION_PAUSE, ApplyAt(global_step=80)), wait=True)
        assert paused.global_step == 80
        await client.submit(run_control(RUN_ACTION_RESUME), wait=True)
    first.signal(signal.SIGKILL)
    first.wait()
    second = start_daemon(*options, task="steady_task:build")
    async with second.client() as client:
        await until_phase(client, TRAINER_PHASE_CATCHING_UP)
        halt = await client.raise_emergency(EMERGENCY_LEVEL_HALT, "not so fast")
        held = await until_phase(client, TRAINER_PHASE_HALTED)
        assert 0 <= held.run.global_step < 80
        await client.clear_emergency(halt.emergency.emergency_id, "go on")
        after = await until_phase(client, TRAINER_PHASE_TRAINING)
        assert after.run.global_step >= 80
        assert after.run.run_id == held.run.run_id
