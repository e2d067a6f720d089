"""CheckpointService and timelines over the wire, with a real store and real checkpoints."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1 import checkpoint_service_pb2, command_pb2
from esper.leyline.v1 import vocabulary_pb2 as v

from esperd.leyline.views import RestorePoint, RunResumed, TimelineEvent, TimelineView, TransitionEvent
from esperd.leyline.vocabulary import CheckpointKind, Stage
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.records import AuditEntry, AuditQuery
from tests.integration.control.stage import Theatre, eventually, open_stage

FIRST = Manifest(
    checkpoint_id="t001-s000000000",
    kind=CheckpointKind.SCHEDULED,
    run_id="run-1",
    timeline=1,
    global_step=0,
    epoch=1,
    sequence=7,
    revision=40,
    journal_revision=90,
    written_unix_s=1.8e9,
    esperd_version="0.2.0",
    torch_version="2.13.0",
    task="digits",
    note="",
    config={"run": {"task": "digits"}},
    num_parameters=1234,
    pause_ms=1.5,
)


def write(store: CheckpointStore, manifest: Manifest, content: bytes = b"weights") -> None:
    pending = store.begin(manifest.checkpoint_id)
    with pending.file("host.safetensors") as file:
        file.write(content)
    pending.commit(manifest)


def scheduled(step: int, **fields: object) -> Manifest:
    name = f"t001-s{step:09d}"
    return replace(FIRST, checkpoint_id=name, global_step=step, written_unix_s=1.8e9 + step, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(directory: Path) -> Iterator[CheckpointStore]:
    """Five scheduled ones of which the second is good, one that was asked for, and one of another run."""
    found = CheckpointStore(directory / "checkpoints")
    for step in (100, 200, 300, 400, 500):
        write(found, scheduled(step))
    found.mark_good("t001-s000000200")
    write(found, scheduled(250, kind=CheckpointKind.REQUESTED, note="before the change"))
    write(found, scheduled(50, run_id="run-0"))
    yield found
    found.release()


@pytest.fixture
async def stage(directory: Path, store: CheckpointStore) -> AsyncIterator[Theatre]:
    async with open_stage(directory, store=store) as theatre:
        yield theatre


@pytest.fixture
async def client(stage: Theatre) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stage.address, stage.credentials("operator")) as opened:
        yield opened


async def test_list_in_pages(stage: Theatre, client: AsyncClient) -> None:
    """Newest first, of the current run unless asked otherwise; the states in memory come with the first page."""
    point = RestorePoint(90, 1, "", True, True, 10)
    stage.trainer.at_safe_point(lambda: stage.trainer.publish(restore_points=(point, replace(point, in_memory=False))))
    await eventually(lambda: bool(stage.bridge.snapshot().restore_points))
    page = await client.checkpoints(page_size=4)
    assert [one.global_step for one in page.checkpoints] == [500, 400, 300, 250]
    assert [point.global_step for point in page.memory_points] == [90]
    rest = await client.checkpoints(page_size=4, page_token=page.next_page_token)
    assert [(one.global_step, one.is_good) for one in rest.checkpoints] == [(200, True), (100, False)]
    assert (rest.next_page_token, list(rest.memory_points)) == ("", [])
    asked = page.checkpoints[3]
    assert (asked.kind, asked.note, asked.sequence) == (v.CHECKPOINT_KIND_REQUESTED, "before the change", 7)
    assert len((await client.checkpoints(all_runs=True)).checkpoints) == 7
    assert [one.global_step for one in (await client.checkpoints(run_id="run-0")).checkpoints] == [50]
    with pytest.raises(LeylineError, match="E-SRV-008"):
        await client.checkpoints(page_token="nonsense")


async def test_get_one(client: AsyncClient, store: CheckpointStore) -> None:
    """The manifest with files and settings; an unknown name, or one that is no name, is unknown."""
    answer = await client.checkpoint_info("t001-s000000200")
    assert (answer.checkpoint.num_parameters, answer.checkpoint.torch_version) == (1234, "2.13.0")
    assert [(entry.name, entry.num_bytes) for entry in answer.files] == [("host.safetensors", 7)]
    assert '"digits"' in answer.config_json
    assert answer.directory == str(store.directory / "run-1" / "t001-s000000200")
    for name in ("t009", "../run-0", ""):
        with pytest.raises(LeylineError, match="E-CKP-001"):
            await client.checkpoint_info(name)


async def test_verify_finds_damage(client: AsyncClient, store: CheckpointStore) -> None:
    """A sound one has no problems; a flipped byte is found, and a manifest that is not right is told apart."""
    answer = await client.verify_checkpoint("t001-s000000100")
    assert (list(answer.problems), answer.num_bytes > 7) == ([], True)
    path = store.directory / "run-1"
    (path / "t001-s000000100" / "host.safetensors").write_bytes(b"wEights")
    assert "not what was written" in (await client.verify_checkpoint("t001-s000000100")).problems[0]
    (path / "t001-s000000300" / "manifest.json").write_text("{")
    page = await client.checkpoints()
    assert [one.checkpoint_id for one in page.damaged] == ["t001-s000000300"]
    assert "E-CKP-002" in page.damaged[0].problem


async def test_one_verification_at_a_time(
    stage: Theatre, client: AsyncClient, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another is refused while one reads, also when its caller has left; lists are answered meanwhile."""
    may_end = threading.Event()
    read = store.verify

    def slowly(checkpoint_id: str, run_id: str = "", *, is_unwanted: Callable[[], bool]) -> tuple[str, ...]:
        may_end.wait(10)
        return read(checkpoint_id, run_id, is_unwanted=is_unwanted)

    monkeypatch.setattr(store, "verify", slowly)
    first = asyncio.create_task(client.verify_checkpoint("t001-s000000100"))
    await eventually(lambda: bool(stage.server.parts.checkpoints._verifying))
    with pytest.raises(LeylineError, match="E-CKP-008: The checkpoint t001-s000000100 is being verified"):
        await client.verify_checkpoint("t001-s000000200")
    assert (await client.checkpoints(page_size=1)).checkpoints
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    with pytest.raises(LeylineError, match="E-CKP-008"):
        await client.verify_checkpoint("t001-s000000200")
    may_end.set()
    await eventually(lambda: not stage.server.parts.checkpoints._verifying)
    assert not (await client.verify_checkpoint("t001-s000000200")).problems


async def test_prune(stage: Theatre, client: AsyncClient, store: CheckpointStore) -> None:
    """The newest `keep` scheduled ones, the newest good one, and what was asked for stay; a dry run removes nothing."""
    told = await client.prune_checkpoints(keep=1, dry_run=True)
    assert [one.global_step for one in told.removed] == [100, 300, 400]
    assert len(store.list("run-1")) == 6
    done = await client.prune_checkpoints(keep=1, reason="the disk is full")
    assert ([one.global_step for one in done.removed], done.num_kept) == ([100, 300, 400], 3)
    assert [stored.manifest.global_step for stored in store.list("run-1")] == [200, 250, 500]
    assert not (await client.prune_checkpoints(keep=1)).removed
    assert len(store.list("run-0")) == 1
    async with asyncio.timeout(10):
        while not (entries := await _audited(stage, "PruneCheckpoints")):
            await asyncio.sleep(0.05)
    assert {entry.principal for entry in entries} == {"operator"}


async def test_prune_leaves_what_the_run_may_go_back_to(
    stage: Theatre, client: AsyncClient, store: CheckpointStore
) -> None:
    """After a rollback the newest good state on disk may be one that was left behind: the run's own stays too."""
    points = [RestorePoint(step, 1, f"t001-s{step:09d}", False, step <= 200, 10) for step in (100, 200, 300, 400, 500)]
    run = replace(stage.trainer.snapshot.run, timeline=2)
    timelines = (TimelineView(1, 0, 0), TimelineView(2, 1, 150))
    publish = partial(stage.trainer.publish, run=run, timelines=timelines, restore_points=tuple(points))
    stage.trainer.at_safe_point(publish)
    await eventually(lambda: bool(stage.bridge.snapshot().restore_points))
    done = await client.prune_checkpoints(keep=1)
    assert [one.global_step for one in done.removed] == [300]
    assert [stored.manifest.global_step for stored in store.list("run-1")] == [100, 200, 250, 400, 500]


async def _audited(stage: Theatre, method: str) -> list[AuditEntry]:
    rows = (await stage.journal.list_audit(AuditQuery(), 100)).rows
    return [row.entry for row in rows if row.entry.method.endswith(method)]


async def test_prune_needs_the_permission(stage: Theatre) -> None:
    """A policy's key commands the run, it does not clean the disk."""
    async with AsyncClient(stage.address, stage.credentials("policy")) as policy:
        with pytest.raises(LeylineError, match="E-AUTH-013"):
            await policy.prune_checkpoints(keep=1)


async def test_without_a_store(directory: Path) -> None:
    """A daemon without checkpoints has none; nothing fails."""
    async with (
        open_stage(directory) as theatre,
        AsyncClient(theatre.address, theatre.credentials("operator")) as client,
    ):
        assert not (await client.checkpoints()).checkpoints
        assert not (await client.prune_checkpoints(keep=1)).removed
        with pytest.raises(LeylineError, match="E-CKP-001"):
            await client.verify_checkpoint("t001")


async def test_commands_reach_the_trainer(stage: Theatre, client: AsyncClient) -> None:
    """A checkpoint is asked for with its note; a rollback is refused at acceptance when there is no state for it."""
    done = await client.checkpoint(note="here", timeout_s=10)
    assert (done.state, done.kind, done.timeline) == (v.COMMAND_STATE_APPLIED, "checkpoint", 1)
    assert stage.trainer.applied[-1].payload.note == "here"  # type: ignore[union-attr]
    with pytest.raises(LeylineError, match="E-RBK-001"):
        await client.rollback(global_step=50)
    with pytest.raises(LeylineError, match="E-CKP-001"):
        await client.rollback(checkpoint_id="t001-s000000100")
    point = RestorePoint(50, 1, "t001-s000000050", False, True, 10)
    stage.trainer.at_safe_point(lambda: stage.trainer.publish(restore_points=(point,)))
    await eventually(lambda: bool(stage.bridge.snapshot().restore_points))
    assert (await client.rollback(global_step=60, timeout_s=10)).state == v.COMMAND_STATE_APPLIED
    with pytest.raises(ValueError, match="exactly one"):
        await client.rollback(global_step=1, checkpoint_id="c")
    with pytest.raises(LeylineError, match=r"rollback\.target"):
        await client.submit(command_pb2.AdaptationCommand(rollback=command_pb2.CommandRollback()))


def transition(source: Stage, target: Stage, step: int, timeline: int, seed_id: int = 2) -> TransitionEvent:
    return TransitionEvent(seed_id, "block.1", "bottleneck", source, target, step, 9, "auto", None, 1.8e9, timeline)


async def test_timelines_and_seeds_that_were_left_behind(stage: Theatre, client: AsyncClient) -> None:
    """The journal tells what each rollback did, over restarts; a seed of a left timeline is not in the run."""
    opened = TimelineEvent(2, 1, 50, 100, "t001-s000000050", "loss_anomaly", (2,), (), 9, 1.8e9)
    timelines = (TimelineView(1, 0, 0), TimelineView(2, 1, 50, "loss_anomaly"))

    def go_back() -> None:
        stage.bridge.record(transition(Stage.DORMANT, Stage.GERMINATED, 90, 1))
        stage.bridge.record(transition(Stage.GERMINATED, Stage.TRAINING, 95, 1))
        stage.bridge.record(opened)
        stage.bridge.record(RunResumed("run-1", "t002-s000000050", 2, 50, 1_000_000, 999_000, 1.8e9))
        stage.bridge.record(transition(Stage.DORMANT, Stage.GERMINATED, 60, 2, seed_id=3))
        run = replace(stage.trainer.snapshot.run, timeline=2, resumed_from="t002-s000000050")
        stage.trainer.publish(run=run, timelines=timelines)

    stage.trainer.at_safe_point(go_back)
    await eventually(lambda: stage.bridge.snapshot().run.timeline == 2)
    async with asyncio.timeout(10):
        while len((await client.seeds(with_gone=True)).seeds) < 3:
            await asyncio.sleep(0.01)
    found = (await client.timelines()).timelines
    assert [(one.timeline, one.parent, one.fork_step, one.left_step) for one in found] == [
        (1, 0, 0, 0),
        (2, 1, 50, 100),
    ]
    assert (list(found[1].removed_seed_ids), found[1].cause) == (["2"], "loss_anomaly")
    run = await client.run()
    assert (run.run.timeline, run.run.resumed_from, len(run.timelines)) == (2, "t002-s000000050", 2)
    seeds = {seed.seed_id: seed for seed in (await client.seeds(with_gone=True)).seeds}
    assert [seeds[name].stage for name in "123"] == [
        v.SEED_STAGE_TRAINING,
        v.SEED_STAGE_UNKNOWN,
        v.SEED_STAGE_GERMINATED,
    ]
    assert seeds["2"].note == "left behind on timeline 1 by a rollback"
    assert [seed.seed_id for seed in (await client.seeds()).seeds] == ["1"]
    assert [step.timeline for step in (await client.seed("2")).transitions] == [1, 1]
    with pytest.raises(LeylineError, match="E-RUN-001"):
        await client.timelines("run-9")


async def test_timelines_without_a_durable_journal(stage: Theatre, client: AsyncClient) -> None:
    """A restart leaves nothing of a journal in memory: the run's own state tells where its timelines forked."""
    timelines = (TimelineView(1, 0, 0), TimelineView(2, 1, 50, "loss_anomaly"))
    run = replace(stage.trainer.snapshot.run, timeline=2)
    stage.trainer.at_safe_point(partial(stage.trainer.publish, run=run, timelines=timelines))
    await eventually(lambda: stage.bridge.snapshot().run.timeline == 2)
    found = (await client.timelines()).timelines
    assert [(one.timeline, one.parent, one.fork_step, one.cause) for one in found] == [
        (1, 0, 0, ""),
        (2, 1, 50, "loss_anomaly"),
    ]


async def test_a_drain_ends_a_verification(
    stage: Theatre, client: AsyncClient, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes may be left to read: the daemon does not wait for them, and says why nothing came of it."""
    reading, go_on = threading.Event(), threading.Event()
    read = store.verify

    def slowly(checkpoint_id: str, run_id: str = "", *, is_unwanted: Callable[[], bool]) -> tuple[str, ...]:
        reading.set()
        go_on.wait(10)
        return read(checkpoint_id, run_id, is_unwanted=is_unwanted)

    monkeypatch.setattr(store, "verify", slowly)
    # The first reads, the second thread is taken, a list waits for a thread: all of them end with the same words.
    verification = asyncio.create_task(client.verify_checkpoint("t001-s000000100", timeout_s=0.0))
    await eventually(reading.is_set)
    taken = stage.server.parts.checkpoints._threads.submit(go_on.wait, 10)
    waiting = asyncio.create_task(client.checkpoints())
    await eventually(lambda: stage.server.parts.checkpoints._threads._work_queue.qsize() == 1)
    stage.server.parts.checkpoints.close()
    go_on.set()
    for call in (verification, waiting, client.checkpoint_info("t001-s000000100")):
        with pytest.raises(LeylineError, match="E-SRV-001"):
            await asyncio.wait_for(call, 10)
    assert taken.done()


async def test_an_export_goes_below_the_run_directory(client: AsyncClient, directory: Path) -> None:
    """A key for the daemon is no key for its machine: no file of the system, no checkpoint, no way round by a link."""
    (directory / "link").symlink_to(directory.parent)
    as_format = checkpoint_service_pb2.EXPORT_FORMAT_SAFETENSORS
    outside = ("/tmp/elsewhere", f"{directory}/../elsewhere", str(directory), f"{directory}/link/elsewhere")
    for path in (*outside, f"{directory}/checkpoints/run-1/t009"):
        with pytest.raises(LeylineError, match=r"directory.*must be below"):
            await client.export_checkpoint("t001-s000000100", as_format, directory=path)
    with pytest.raises(LeylineError, match="E-EXP-002"):  # allowed, but this daemon has no command to export with
        await client.export_checkpoint("t001-s000000100", as_format, directory=f"{directory}/mine/out")
