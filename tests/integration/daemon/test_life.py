"""How a daemon begins and ends: phases, signals, exit statuses, and who owns the run directory."""

import signal
from pathlib import Path

from esper.leyline.v1.vocabulary_pb2 import (
    TRAINER_PHASE_FAILED,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_STARTING,
    TRAINER_PHASE_TRAINING,
)

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import until_phase


async def test_the_daemon_answers_before_the_trainer_exists(start_daemon: StartDaemon) -> None:
    """The first answer comes while torch is still loading; then training begins; SIGTERM ends it with 0."""
    daemon = start_daemon()
    async with daemon.client() as client:
        first = await client.run()
        assert first.run.phase in (TRAINER_PHASE_STARTING, TRAINER_PHASE_TRAINING)
        assert (await until_phase(client, TRAINER_PHASE_TRAINING)).run.task == "tiny_task:build"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not (daemon.folder / "run" / "leyline.sock").exists()


async def test_sigint_drains_and_then_ends_the_process_by_sigint(start_daemon: StartDaemon) -> None:
    """As a shell expects of a program that a person broke off."""
    daemon = start_daemon()
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == -signal.SIGINT
    assert '"event": "stopped"' in daemon.log


async def test_two_signals_shorten_the_end_but_keep_it_orderly(start_daemon: StartDaemon) -> None:
    """In the middle of a step: the trainer ends it, the journal is closed and the status is 0 all the same."""
    daemon = start_daemon(task="tiny_task:slow")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
    daemon.signal(signal.SIGTERM)
    # Two of the same that wait together would be one.
    await daemon.until_logged("shutting down")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "did not reach a safe point" not in daemon.log
    assert not (daemon.folder / "run" / "journal.sqlite-wal").exists()


async def test_a_finished_run_stays_up_to_answer(start_daemon: StartDaemon) -> None:
    """FINISHED after its steps, with the validation's result; the daemon goes on answering."""
    daemon = start_daemon("run.num_steps=30")
    async with daemon.client() as client:
        run = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        assert run.global_step == 30
        assert run.val_loss > 0
        assert (await client.server_info()).server_id == "esperd-run"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


async def test_exit_when_finished_ends_the_daemon_by_itself(start_daemon: StartDaemon) -> None:
    """Status 0 without any signal."""
    assert start_daemon("run.num_steps=5", "run.exit_when_finished=true").wait() == 0


async def test_a_failed_task_leaves_the_daemon_up(start_daemon: StartDaemon) -> None:
    """Phase FAILED with the reason, the task's own frames in the log, and a status that tells the truth."""
    daemon = start_daemon(task="tiny_task:broken")
    async with daemon.client() as client:
        run = (await until_phase(client, TRAINER_PHASE_FAILED)).run
        assert "no data today" in run.failure
        assert (await client.run()).run.phase == TRAINER_PHASE_FAILED
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 1
    assert "tiny_task.py" in daemon.log


async def test_a_failed_run_that_may_exit_exits_with_1(start_daemon: StartDaemon) -> None:
    """`exit_when_finished` with a broken task."""
    assert start_daemon("run.exit_when_finished=true", task="tiny_task:broken").wait() == 1


async def test_a_directory_has_one_daemon(start_daemon: StartDaemon) -> None:
    """The second is refused with the owner's process id; the first does not notice."""
    first = start_daemon()
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        second = start_daemon()
        assert second.wait() == 1
        assert f"E-CFG-005: {first.folder}/run" in second.log
        assert str(first.process.pid) in second.log
        before = (await client.run()).run.global_step
        while (await client.run()).run.global_step == before:
            pass


async def test_a_killed_daemon_leaves_nothing_that_stops_the_next(start_daemon: StartDaemon) -> None:
    """After SIGKILL the lock is free, the stale socket is replaced, and the same run goes on."""
    first = start_daemon()
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        old_run_id = (await client.run()).run.run_id
    first.signal(signal.SIGKILL)
    first.wait()
    second = start_daemon()
    async with second.client() as client:
        answer = await until_phase(client, TRAINER_PHASE_TRAINING)
        assert answer.run.run_id == old_run_id


async def test_bad_starts_are_told_and_end_with_1(start_daemon: StartDaemon, folder: Path) -> None:
    """A bad setting, a bad key ring and an address that cannot be bound: code, cause, and what to do."""
    for override, code in (
        ("growth.rho=-1", "E-CFG-001"),
        ("control.keyring=none.toml", "E-CFG-003"),
        (f"control.listen=['unix:{folder}/{'x' * 100}']", "E-CFG-007"),
        ("control.listen=['0.0.0.0:0']", "E-CFG-007"),
    ):
        daemon = start_daemon(override)
        assert daemon.wait() == 1, override
        assert f"error: {code}" in daemon.log
