"""What a start of the daemon makes of the run that its directory holds."""

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from esper.client.errors import LeylineError
from esper.leyline.v1.command_pb2 import (
    COMMAND_TYPE_OPTIMIZER,
    RUN_ACTION_PAUSE,
    RUN_ACTION_RESUME,
    AdaptationCommand,
    ApplyAt,
    CommandOptimizerAdjustment,
)
from esper.leyline.v1.vocabulary_pb2 import (
    COMMAND_STATE_ACCEPTED,
    COMMAND_STATE_APPLIED,
    COMMAND_STATE_FAILED,
    EMERGENCY_LEVEL_HALT,
    TRAINER_PHASE_FAILED,
    TRAINER_PHASE_FINISHED,
    TRAINER_PHASE_HALTED,
    TRAINER_PHASE_PAUSED,
    TRAINER_PHASE_TRAINING,
)

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase
from tests.integration.daemon.test_steering import run_control


def end(daemon: DaemonProcess, number: signal.Signals = signal.SIGTERM) -> None:
    """Have it end by a signal."""
    daemon.signal(number)
    assert daemon.wait() == (0 if number is signal.SIGTERM else -number)


def history(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind, oldest first."""
    with closing(sqlite3.connect(folder / "run" / "journal.sqlite")) as db:
        rows = db.execute("SELECT body FROM history WHERE kind = ? ORDER BY revision", (kind,))
        return [json.loads(body) for (body,) in rows]


def set_rate(rate: float, step: int) -> AdaptationCommand:
    """Another learning rate from a step on."""
    adjustment = CommandOptimizerAdjustment(optimizer_id="host", action=1, hyperparameters={"lr": rate})
    return AdaptationCommand(
        command_type=COMMAND_TYPE_OPTIMIZER,
        reason="a test",
        optimizer_adjustment=adjustment,
        apply_at=ApplyAt(global_step=step),
    )


async def test_a_finished_run_stays_finished(start_daemon: StartDaemon) -> None:
    """Shown with its last numbers under its name; nothing is trained, and a command says how to begin another run."""
    first = start_daemon("run.num_steps=30")
    async with first.client() as client:
        before = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
    end(first)
    second = start_daemon("run.num_steps=60")
    async with second.client() as client:
        answer = await client.run()
        shown = answer.run
        assert (shown.run_id, shown.phase, shown.global_step) == (before.run_id, TRAINER_PHASE_FINISHED, 30)
        assert (shown.val_loss, shown.train_loss) == (before.val_loss, before.train_loss)
        (begun,) = history(first.folder, "run_started")
        assert shown.start_time.ToNanoseconds() == pytest.approx(begun["unix_s"] * 1e9)
        with pytest.raises(LeylineError, match="esperctl start") as caught:
            await client.submit(run_control(RUN_ACTION_PAUSE))
        assert caught.value.reason == "TRAINER_NOT_RUNNING"
    end(second)
    assert [row["phase"] for row in history(first.folder, "run_finished")] == ["FINISHED"]
    assert history(first.folder, "run_resumed") == []


async def test_a_finished_run_ends_a_daemon_that_may_exit(start_daemon: StartDaemon) -> None:
    """Status 0, as when it had finished by itself."""
    for _ in range(2):
        assert start_daemon("run.num_steps=5", "run.exit_when_finished=true").wait() == 0


async def test_a_new_run_begins_when_it_is_wanted(start_daemon: StartDaemon) -> None:
    """`--new-run`: another name, its own settings, step 0; what still waited for the old one can never be applied."""
    first = start_daemon("run.start_paused=true")
    async with first.client() as client:
        before = await until_phase(client, TRAINER_PHASE_PAUSED)
        waiting = await client.submit(set_rate(0.5, 1000))
    end(first)
    second = start_daemon("run.start_paused=true", "run.random_seed=9", new_run=True)
    async with second.client() as client:
        answer = await until_phase(client, TRAINER_PHASE_PAUSED)
        assert answer.run.run_id != before.run.run_id
        assert (answer.run.global_step, answer.run.resumed_from) == (0, "")
        assert answer.revision > before.revision
        lost = await client.command(waiting.command_id)
        assert (lost.state, lost.error.reason) == (COMMAND_STATE_FAILED, "COMMAND_LOST_IN_RESTART")
        assert [run.run_id for run in (await client.runs()).runs] == [answer.run.run_id, before.run.run_id]
    end(second)
    third = start_daemon("run.random_seed=9")
    async with third.client() as client:
        assert (await client.run()).run.run_id == answer.run.run_id


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_waits_for_its_step_is_applied_after_the_restart(
    start_daemon: StartDaemon, number: signal.Signals
) -> None:
    """Accepted stays accepted, in a list as well as for those who watch, and takes effect at the very step."""
    first = start_daemon("run.start_paused=true", "checkpoints.every_steps=10")
    async with first.client() as client:
        begun = await until_phase(client, TRAINER_PHASE_PAUSED)
        waiting = await client.submit(set_rate(0.5, 50))
        asking = asyncio.ensure_future(client.command(waiting.command_id, wait_s=60.0))
        await asyncio.sleep(0.1)
        first.signal(number)
        with pytest.raises(LeylineError):
            await asking
    first.wait()
    second = start_daemon("run.start_paused=true")
    async with second.client() as client:
        assert (await client.command(waiting.command_id)).state == COMMAND_STATE_ACCEPTED
        answer = await until_phase(client, TRAINER_PHASE_PAUSED)
        assert (answer.run.run_id, answer.run.global_step) == (begun.run.run_id, 0)
        assert answer.revision >= 1_000_000
        assert (await client.command(waiting.command_id)).state == COMMAND_STATE_ACCEPTED
        await client.submit(run_control(RUN_ACTION_RESUME), wait=True)
        applied = await client.command(waiting.command_id, wait_s=30.0)
        assert (applied.state, applied.global_step) == (COMMAND_STATE_APPLIED, 50)
        assert applied.revision > 1_000_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_run_goes_on_where_it_was(start_daemon: StartDaemon, number: signal.Signals) -> None:
    """At the step at which it stood, with what had been applied, from start to start; revisions only grow."""
    steps, revisions, run_ids = [], [], set()
    for _ in range(3):
        daemon = start_daemon("checkpoints.every_steps=20")
        async with daemon.client() as client:
            await until_phase(client, TRAINER_PHASE_TRAINING, TRAINER_PHASE_PAUSED)
            if steps:
                stood = (await until_phase(client, TRAINER_PHASE_PAUSED)).run
                assert stood.global_step == steps[-1]
                rates = (await client.optimizers()).groups[0].hyperparameters
                assert rates["lr"] == pytest.approx(0.25 / len(steps))
                await client.submit(run_control(RUN_ACTION_RESUME), wait=True)
            await client.submit(set_rate(0.25 / (len(steps) + 1), 0), wait=True)
            paused = await client.submit(run_control(RUN_ACTION_PAUSE), wait=True)
            answer = await client.run()
            steps.append(paused.global_step)
            revisions.append(answer.revision)
            run_ids.add(answer.run.run_id)
        end(daemon, number)
    assert steps == sorted(steps)
    assert revisions == sorted(revisions)
    assert len(run_ids) == 1
    assert len(history(daemon.folder, "run_resumed")) == 2
    assert len(history(daemon.folder, "run_started")) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [("run.random_seed=7", "run.random_seed was 0, is 7"), ("run.task_options={batch_size=4}", "run.task_options was")],
)
async def test_another_task_is_refused(start_daemon: StartDaemon, override: str, words: str) -> None:
    """The daemon does not start: code, run, what differs, and what to do; the journal is as it was."""
    first = start_daemon("run.start_paused=true")
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_PAUSED)
    end(first)
    kept = (first.folder / "run" / "journal.sqlite").read_bytes()
    second = start_daemon(override)
    assert second.wait() == 1
    assert "error: E-CKP-003" in second.log
    assert words in second.log
    assert "--new-run" in second.log
    assert (first.folder / "run" / "journal.sqlite").read_bytes() == kept


async def test_other_changes_are_noted(start_daemon: StartDaemon) -> None:
    """In the log and in the run's history, with what was and what is; the run goes on."""
    first = start_daemon("run.start_paused=true")
    async with first.client() as client:
        run_id = (await until_phase(client, TRAINER_PHASE_PAUSED)).run.run_id
    end(first)
    second = start_daemon("run.start_paused=true", "training.log_every_steps=5")
    async with second.client() as client:
        assert (await until_phase(client, TRAINER_PHASE_PAUSED)).run.run_id == run_id
    end(second)
    (notice,) = [row for row in history(first.folder, "notice") if row["kind"] == "config.changed"]
    assert notice["attributes"] == {"training.log_every_steps": "10 -> 5"}
    assert "a setting has changed" in second.log


async def test_a_failed_run_goes_on_once_its_cause_is_gone(start_daemon: StartDaemon, folder: Path) -> None:
    """FAILED is no end: the next start picks it up."""
    first = start_daemon("checkpoints.every_steps=10", task="tiny_task:fragile")
    async with first.client() as client:
        before = await until_phase(client, TRAINER_PHASE_TRAINING)
        (folder / "broken").touch()
        assert "no power today" in (await until_phase(client, TRAINER_PHASE_FAILED)).run.failure
    first.signal(signal.SIGTERM)
    assert first.wait() == 1
    (folder / "broken").unlink()
    second = start_daemon(task="tiny_task:fragile")
    async with second.client() as client:
        answer = await until_phase(client, TRAINER_PHASE_TRAINING)
        assert answer.run.run_id == before.run.run_id
        assert answer.run.failure == ""
    end(second)
    assert [row["phase"] for row in history(folder, "run_finished")] == ["FAILED", "STOPPING"]


async def test_a_halt_outlives_a_kill(start_daemon: StartDaemon) -> None:
    """Once it was answered it is durable: the next start stands still again, under the same emergency."""
    first = start_daemon()
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        raised = (await client.raise_emergency(EMERGENCY_LEVEL_HALT, "smoke")).emergency
        first.signal(signal.SIGKILL)
    first.wait()
    second = start_daemon()
    async with second.client() as client:
        await until_phase(client, TRAINER_PHASE_HALTED)
        assert raised.emergency_id in [found.emergency_id for found in (await client.emergencies()).emergencies]


async def test_without_a_journal_the_checkpoint_names_the_run(start_daemon: StartDaemon) -> None:
    """Steps go on from the last checkpoint under the same name; commands are not kept."""
    first = start_daemon("journal.enabled=false")
    async with first.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await client.submit(run_control(RUN_ACTION_PAUSE), wait=True)
        before = await client.run()
    end(first)
    second = start_daemon("journal.enabled=false")
    async with second.client() as client:
        answer = await until_phase(client, TRAINER_PHASE_PAUSED, TRAINER_PHASE_TRAINING)
        assert answer.run.run_id == before.run.run_id
        assert answer.run.global_step >= before.run.global_step > 0
        assert answer.revision > before.revision
