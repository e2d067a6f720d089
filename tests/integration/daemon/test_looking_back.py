"""What a real daemon can be asked afterwards: the numbers that nobody watched, and who tried to change what."""

import asyncio
import math
import signal

import pytest
from esper.client.errors import LeylineError
from esper.leyline.v1.vocabulary_pb2 import TRAINER_PHASE_FINISHED

from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import until_phase


async def test_a_runs_numbers_can_be_looked_up_afterwards(start_daemon: StartDaemon) -> None:
    """Loss and validation of a run that is over, by timeline, in order of steps."""
    daemon = start_daemon("run.num_steps=60", "training.log_every_steps=5")
    async with daemon.client() as client:
        run = (await until_phase(client, TRAINER_PHASE_FINISHED)).run
        names = ["tolaria.step.loss", "tolaria.validation.*"]
        async with asyncio.timeout(10):
            answer = await client.query_telemetry(names, max_buckets=3)
            while {one.buckets[-1].last_step for one in answer.series} != {60}:
                await asyncio.sleep(0.02)
                answer = await client.query_telemetry(names, max_buckets=3)
        last = await client.query_telemetry(["tolaria.validation.loss"], first_step=60)
    series = {one.name: one for one in answer.series}
    loss = series["tolaria.step.loss"]
    assert (loss.slot, loss.timeline, len(loss.buckets)) == (0, 1, 3)
    assert all(one.minimum <= one.mean <= one.maximum and math.isfinite(one.mean) for one in loss.buckets)
    (validation,) = last.series
    assert math.isclose(validation.buckets[0].mean, run.val_loss, rel_tol=1e-5)


async def test_the_audit_log_goes_on_over_starts(start_daemon: StartDaemon) -> None:
    """One chain over a run's end, the next run in the same process, a kill and another start."""
    daemon = start_daemon("run.num_steps=5")
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_FINISHED)
        with pytest.raises(LeylineError):
            await client.start_run("not after this one", after_run_id="another")
        run_id = await client.start_run("again", wait=True)
        before = await client.verify_audit_log()
        rows = (await client.audit_entries(method="StartRun")).entries
        assert [row.decision for row in rows] == ["OK", "RUN_CHANGED"]
        assert {row.principal for row in rows} == {"operator"}
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    async with start_daemon("run.num_steps=5").client() as client:
        with pytest.raises(LeylineError):
            await client.start_run("not after this one", after_run_id="another")
        assert (await client.run()).run.run_id == run_id
        async with asyncio.timeout(10):
            while (after := await client.verify_audit_log()).num_entries == before.num_entries:
                await asyncio.sleep(0.02)
        assert before.intact
        assert after.intact
        held = [row.row_hash for row in (await client.audit_entries(page_size=1000)).entries]
        assert before.head_hash in held
