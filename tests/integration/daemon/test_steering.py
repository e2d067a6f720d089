"""Steering a real daemon over its socket: signed changes take effect, everything else is refused."""

import signal

import pytest
from esper.client.errors import LeylineError
from esper.leyline.v1.command_pb2 import (
    COMMAND_TYPE_PAUSE,
    COMMAND_TYPE_SEED,
    RUN_ACTION_PAUSE,
    RUN_ACTION_RESUME,
    AdaptationCommand,
    CommandRunControl,
    CommandSeedOperation,
    RunAction,
)
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_APPLIED,
    SEED_OPERATION_GERMINATE,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_PAUSED,
    TRAINER_PHASE_TRAINING,
    TRAINER_PHASE_VALIDATING,
)

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import until_phase


def run_control(action: RunAction) -> AdaptationCommand:
    """Pause or resume."""
    return AdaptationCommand(
        command_type=COMMAND_TYPE_PAUSE, reason="a test", run_control=CommandRunControl(action=action)
    )


def germinate(site: str, blueprint_id: str) -> AdaptationCommand:
    """Ask for a seed."""
    operation = CommandSeedOperation(
        operation=SEED_OPERATION_GERMINATE, site=site, blueprint_id=blueprint_id, auto_advance=True
    )
    return AdaptationCommand(command_type=COMMAND_TYPE_SEED, reason="a test", seed_operation=operation)


async def test_pause_holds_the_step_and_resume_goes_on(start_daemon: StartDaemon) -> None:
    """Both are APPLIED; no step is made in between."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        paused = await client.submit(run_control(RUN_ACTION_PAUSE), wait=True)
        assert paused.state == COMMAND_STATE_APPLIED
        held = (await until_phase(client, TRAINER_PHASE_PAUSED)).run.global_step
        assert (await client.run()).run.global_step == held == paused.global_step
        assert (await client.submit(run_control(RUN_ACTION_RESUME), wait=True)).state == COMMAND_STATE_APPLIED
        await until_phase(client, TRAINER_PHASE_TRAINING)


async def test_a_seed_grows_and_an_unknown_site_is_refused(start_daemon: StartDaemon) -> None:
    """GERMINATE makes a seed at the site; a site that is not there changes nothing."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        site = (await client.sites()).sites[0]
        grown = await client.submit(germinate(site.site, site.offers[0].blueprint_id), wait=True)
        assert grown.state == COMMAND_STATE_APPLIED
        assert grown.seed_id in [seed.seed_id for seed in (await client.seeds()).seeds]
        with pytest.raises(LeylineError) as caught:
            await client.submit(germinate("nowhere", site.offers[0].blueprint_id), wait=True)
        assert caught.value.reason == "SITE_UNKNOWN"


async def test_without_a_key_ring_the_run_can_be_watched_but_not_changed(start_daemon: StartDaemon) -> None:
    """Reads answer; every signed request is refused with NO_KEYRING, and the log says how to make a ring."""
    daemon = start_daemon("run.num_steps=0")
    daemon.stop()
    (daemon.folder / "run" / "keys.toml").unlink()
    daemon = start_daemon(keys=False)
    async with daemon.client() as client:
        before = await until_phase(client, TRAINER_PHASE_TRAINING)
        with pytest.raises(LeylineError) as caught:
            await client.submit(run_control(RUN_ACTION_PAUSE))
        assert caught.value.reason == "NO_KEYRING"
        assert (await client.run()).run.phase in (before.run.phase, TRAINER_PHASE_VALIDATING)
    assert "no key ring" in daemon.log


async def test_stop_ends_the_run_and_not_the_daemon(start_daemon: StartDaemon) -> None:
    """StopRun: final validation, FINISHED, then reads go on and SIGTERM ends with 0."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await client.stop_run("a test")
        assert (await until_phase(client, TRAINER_PHASE_FINISHED)).run.val_loss > 0
        with pytest.raises(LeylineError) as caught:
            await client.submit(run_control(RUN_ACTION_PAUSE))
        assert caught.value.reason == "TRAINER_NOT_RUNNING"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


async def test_a_command_of_a_killed_daemon_is_known_to_the_next(start_daemon: StartDaemon) -> None:
    """The journal outlives SIGKILL: what was applied still says so, and still holds."""
    first = start_daemon()
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        paused = await client.submit(run_control(RUN_ACTION_PAUSE), wait=True)
    first.signal(signal.SIGKILL)
    first.wait()
    second = start_daemon()
    async with second.client() as client:
        assert (await until_phase(client, TRAINER_PHASE_PAUSED)).run.global_step == paused.global_step
        known = await client.command(paused.command_id)
        assert known.state == COMMAND_STATE_APPLIED
