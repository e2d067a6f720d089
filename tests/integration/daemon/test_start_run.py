"""One run after another in one process: when the next may begin, and what stays across the two."""

import asyncio
import signal
from pathlib import Path

import pytest
from esper.client.errors import LeylineError
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FAILED, TRAINER_PHASE_FINISHED, TRAINER_PHASE_TRAINING

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase


def num_open(daemon: DaemonProcess) -> tuple[int, int]:
    """Threads and file descriptors of the process."""
    own = Path("/proc") / str(daemon.process.pid)
    return len(list((own / "task").iterdir())), len(list((own / "fd").iterdir()))


async def test_the_next_run_begins_in_the_same_process(start_daemon: StartDaemon) -> None:
    """New run, new epoch, larger revisions; same process, same address; the run before is in the list."""
    daemon = start_daemon("run.num_steps=30")
    async with daemon.client() as client:
        before = await client.server_info()
        old = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        revision = (await client.run()).revision
        run_id = await client.start_run("again", wait=True)
        assert run_id not in ("", old.run_id)
        after = await client.server_info()
        assert (after.run_id, after.server_id) == (run_id, before.server_id)
        assert after.epoch != before.epoch
        answer = await until_phase(client, TRAINER_PHASE_FINISHED)
        assert (answer.run.run_id, answer.run.global_step) == (run_id, 30)
        assert answer.revision > revision
        assert [run.run_id for run in (await client.runs()).runs] == [run_id, old.run_id]
    assert daemon.process.poll() is None
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not (daemon.folder / "run" / "leyline.sock").exists()


async def test_a_run_that_lives_is_left_alone(start_daemon: StartDaemon) -> None:
    """RUN_ACTIVE before it has ended, RUN_CHANGED for a run that is not the current one: one call begins one run."""
    daemon = start_daemon()
    async with daemon.client() as client:
        run_id = (await until_phase(client, TRAINER_PHASE_TRAINING)).run.run_id
        for after_run_id, reason in (("", "RUN_ACTIVE"), ("another", "RUN_CHANGED")):
            with pytest.raises(LeylineError) as caught:
                await client.start_run("too early", after_run_id=after_run_id)
            assert caught.value.reason == reason
        await client.stop_run("enough")
        await until_phase(client, TRAINER_PHASE_FINISHED)
        following = await client.start_run("go on", after_run_id=run_id, wait=True)
        with pytest.raises(LeylineError) as caught:
            await client.start_run("the same call again", after_run_id=run_id)
        assert (caught.value.reason, caught.value.metadata["run_id"]) == ("RUN_CHANGED", following)
        assert (await until_phase(client, TRAINER_PHASE_TRAINING)).run.run_id == following


async def test_esperctl_start(start_daemon: StartDaemon) -> None:
    """Says which run began, once it is served; a run that lives is told to be stopped first."""
    daemon = start_daemon("run.num_steps=30")
    async with daemon.client() as client:
        old = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        begun = await daemon.ctl("start", "--wait", "--reason", "again")
        assert begun.stdout == f"run {(await client.run()).run.run_id}\n"
        assert "E-RUN-009" in (await daemon.ctl("start", "--after", old.run_id, code=1)).stderr


async def test_watches_go_over_to_the_next_run(start_daemon: StartDaemon) -> None:
    """A watch is told that the daemon drains, and resumes by itself with a snapshot of the new run."""
    daemon = start_daemon("run.num_steps=30")
    async with daemon.client() as client:
        old = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        messages = client.watch_state()
        assert (await anext(messages)).snapshot.run.run_id == old.run_id
        run_id = await client.start_run("again")
        was_drained = False
        async with asyncio.timeout(60):
            async for message in messages:
                was_drained |= message.draining
                if message.HasField("snapshot"):
                    assert message.snapshot.run.run_id == run_id
                    break
        assert was_drained


async def test_runs_leave_nothing_behind_and_keep_the_port(start_daemon: StartDaemon) -> None:
    """Port 0 is chosen once; threads and file descriptors do not grow from run to run; a failed run can be followed."""
    daemon = start_daemon("control.listen=['127.0.0.1:0']", "run.num_steps=5", "checkpoints.keep=2")
    await daemon.until_logged('"event": "serving"')
    daemon.address = daemon.log.split('"addresses": ["')[1].split('"')[0]
    async with daemon.client() as client:
        counts = []
        for _ in range(4):
            await until_phase(client, TRAINER_PHASE_FINISHED)
            await client.start_run("again", wait=True)
            await until_phase(client, TRAINER_PHASE_FINISHED)
            counts.append(num_open(daemon))
    assert daemon.log.count(daemon.address) == 5
    threads, files = zip(*counts, strict=True)
    assert max(threads[1:]) <= threads[0] + 1
    assert max(files[1:]) <= files[0] + 2


async def test_a_failed_run_can_be_followed_and_the_last_run_decides_the_status(start_daemon: StartDaemon) -> None:
    """A task that failed is built anew; a process whose last run ended well ends with 0."""
    daemon = start_daemon("run.num_steps=5", task="tiny_task:fragile")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_FINISHED)
        (daemon.folder / "broken").touch()
        await client.start_run("this one fails", wait=True)
        await until_phase(client, TRAINER_PHASE_FAILED)
        (daemon.folder / "broken").unlink()
        await client.start_run("this one does not", wait=True)
        await until_phase(client, TRAINER_PHASE_FINISHED)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


@pytest.mark.parametrize("when", ["shutting down", '"event": "stopped"'])
async def test_a_signal_on_the_way_to_the_next_run_ends_the_process(start_daemon: StartDaemon, when: str) -> None:
    """Wherever between the two runs it comes: the process ends in good order, and with 0."""
    daemon = start_daemon("run.num_steps=5")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_FINISHED)
        await client.start_run("never to be")
        await daemon.until_logged(when)
        daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not (daemon.folder / "run" / "leyline.sock").exists()
    assert not (daemon.folder / "run" / "journal.sqlite-wal").exists()
