"""The checkpoint threads: in order, bounded, every job one result, and they outlive every fault."""

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from esperd.leyline import failpoints
from esperd.oona.checkpoints.retention import Retention
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.checkpoint_writer import CheckpointWriter, Loaded, Marked, Pruned, Result, Written
from esperd.tolaria.state_tree import BufferPool, Captured, capture, rebuild
from tests.unit.oona.checkpoints.samples import RUN, draft

WAIT_S = 30.0


class Gate:
    """Holds the writing thread at a failpoint until it is opened."""

    def __init__(self, place: str) -> None:
        self.reached: SimpleQueue[None] = SimpleQueue()
        self._opened: SimpleQueue[None] = SimpleQueue()
        self._place = place

    def pass_by(self, name: str) -> None:
        if name == self._place:
            self.reached.put(None)
            self._opened.get(timeout=WAIT_S)

    def open(self, num_times: int = 1) -> None:
        for _ in range(num_times):
            self._opened.put(None)


@contextmanager
def hook(function: Callable[[str], None]) -> Iterator[None]:
    failpoints.set_hook(function)
    try:
        yield
    finally:
        failpoints.set_hook(None)


@pytest.fixture
def results() -> "SimpleQueue[Result]":
    return SimpleQueue()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def writer(store: CheckpointStore, results: "SimpleQueue[Result]") -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(store, clock=time.monotonic, on_done=results.put)
    yield writer
    writer.close()


@pytest.fixture
def captured() -> Captured:
    return state(1.0)


def state(value: float) -> Captured:
    return capture({"model": {"w": torch.full((100,), value)}, "counts": {"step": 1}}, BufferPool(torch.device("cpu")))


def next_of(results: "SimpleQueue[Result]") -> Result:
    return results.get(timeout=WAIT_S)


def test_a_checkpoint_is_written_and_read_back(
    writer: CheckpointWriter, store: CheckpointStore, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """Written tells its manifest, size and time; Loaded brings the state and the generation that was given."""
    assert writer.submit(captured, draft(1))
    written = next_of(results)
    assert isinstance(written, Written)
    assert written.error is None
    assert (written.manifest, written.num_bytes) == (store.list()[0].manifest, store.list()[0].num_bytes)
    assert written.write_ms > 0
    writer.read(draft(1).checkpoint_id, 7)
    loaded = next_of(results)
    assert isinstance(loaded, Loaded)
    assert (loaded.generation, loaded.manifest, loaded.error) == (7, written.manifest, None)
    assert loaded.captured is not None
    assert rebuild(loaded.captured)["model"]["w"].sum() == 100


def test_marking_and_pruning_follow_what_was_asked_before(
    writer: CheckpointWriter, store: CheckpointStore, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """Jobs are done in order, so that a mark finds its checkpoint and a pruning sees the mark."""
    for step in (1, 2):
        writer.submit(captured, draft(step))
        next_of(results)
    writer.mark_good(draft(1).checkpoint_id)
    writer.submit(captured, draft(3))
    writer.prune(Retention(1), run_id=RUN)
    marked, written, pruned = (next_of(results) for _ in range(3))
    assert marked == Marked(draft(1).checkpoint_id)
    assert isinstance(written, Written)
    assert pruned == Pruned((draft(2).checkpoint_id,))
    assert [stored.manifest.global_step for stored in store.list()] == [1, 3]


def test_two_wait_and_the_next_is_refused(
    writer: CheckpointWriter, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """One is being written, two wait, the fourth is told so at once; later there is room again."""
    gate = Gate("checkpoint.before_manifest")
    with hook(gate.pass_by):
        assert writer.submit(captured, draft(1))
        gate.reached.get(timeout=WAIT_S)
        assert [writer.submit(captured, draft(step)) for step in (2, 3, 4)] == [True, True, False]
        assert writer.num_waiting == 2
        assert not writer.wait_idle(0.0)
        gate.open(3)
        assert writer.wait_idle(WAIT_S)
    assert writer.num_waiting == 0
    assert [type(next_of(results)) for _ in range(3)] == [Written] * 3
    assert writer.submit(captured, draft(4))


def test_reading_does_not_wait_behind_writing(
    writer: CheckpointWriter, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """A rollback from disk is answered while a checkpoint is being written."""
    writer.submit(captured, draft(1))
    next_of(results)
    gate = Gate("checkpoint.before_manifest")
    with hook(gate.pass_by):
        writer.submit(captured, draft(2))
        gate.reached.get(timeout=WAIT_S)
        writer.read(draft(1).checkpoint_id, 1)
        assert isinstance(next_of(results), Loaded)
        gate.open()
        assert isinstance(next_of(results), Written)


def test_a_state_is_held_until_it_is_written(
    writer: CheckpointWriter, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """The caller may let go at once; the memory is free when the result has come."""
    gate = Gate("checkpoint.before_manifest")
    with hook(gate.pass_by):
        writer.submit(captured, draft(1))
        gate.reached.get(timeout=WAIT_S)
        captured.release()
        assert captured.tensors
        gate.open()
        next_of(results)
    assert not captured.tensors


def test_a_disk_that_refuses_is_a_result(
    writer: CheckpointWriter, store: CheckpointStore, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """CHECKPOINT_FAILED with the system's words; the state is let go, earlier ones are whole, the next one succeeds."""
    writer.submit(captured, draft(1))
    next_of(results)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        writer.submit(captured, draft(2))
        failed = next_of(results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(failed, Written)
    assert failed.error is not None
    assert failed.error.reason == "CHECKPOINT_FAILED"
    assert "File too large" in failed.error.metadata["detail"]
    assert failed.manifest == draft(2)
    writer.submit(captured, draft(3))
    written = next_of(results)
    assert isinstance(written, Written)
    assert written.error is None
    assert [stored.manifest.global_step for stored in store.list()] == [1, 3]
    captured.release()
    assert not captured.tensors


def test_any_fault_is_a_result(writer: CheckpointWriter, results: "SimpleQueue[Result]", captured: Captured) -> None:
    """A fault of ours in the middle of writing does not end the thread and leaves nothing behind."""

    def fail(name: str) -> None:
        raise ZeroDivisionError(name)

    with hook(fail):
        writer.submit(captured, draft(1))
        failed = next_of(results)
    assert isinstance(failed, Written)
    assert failed.error is not None
    assert "ZeroDivisionError: checkpoint.writing.model" in failed.error.message
    writer.submit(captured, draft(1))
    assert next_of(results).error is None


def test_what_is_not_there_or_damaged_is_a_result(
    writer: CheckpointWriter, store: CheckpointStore, results: "SimpleQueue[Result]", captured: Captured
) -> None:
    """Unknown ids for reading and marking, damaged files, a directory that vanished."""
    writer.read("none", 1)
    writer.mark_good("none")
    reasons = sorted(result.error.reason for result in (next_of(results), next_of(results)) if result.error)
    assert reasons == ["CHECKPOINT_UNKNOWN", "CHECKPOINT_UNKNOWN"]
    writer.submit(captured, draft(1))
    next_of(results)
    (store.list()[0].path / "model.safetensors").write_bytes(b"x")
    writer.read(draft(1).checkpoint_id, 2)
    loaded = next_of(results)
    assert isinstance(loaded, Loaded)
    assert loaded.error is not None
    assert (loaded.error.reason, loaded.captured) == ("CHECKPOINT_CORRUPT", None)
    with hook(lambda name: store.directory.rename(store.directory.with_name("away"))):
        writer.submit(captured, draft(2))
        assert next_of(results).error is not None


def test_closing_finishes_what_was_asked(store: CheckpointStore, results: "SimpleQueue[Result]") -> None:
    """Both threads end, and nothing that was accepted is lost."""
    before = threading.active_count()
    writer = CheckpointWriter(store, clock=time.monotonic, on_done=results.put)
    for step in (1, 2):
        assert writer.submit(state(step), draft(step))
    writer.read("none", 1)
    writer.close()
    assert results.qsize() == 3
    assert len(store.list()) == 2
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_receiver_that_fails_does_not_end_the_thread(store: CheckpointStore, captured: Captured) -> None:
    """The fault goes to the hook for threads; the next result is handed over."""
    received: list[Result] = []

    def receive(result: Result) -> None:
        received.append(result)
        if len(received) == 1:
            raise ZeroDivisionError

    faults = []
    before, threading.excepthook = threading.excepthook, lambda args: faults.append(args.exc_type)
    try:
        writer = CheckpointWriter(store, clock=time.monotonic, on_done=receive)
        writer.mark_good("none")
        writer.submit(captured, draft(1))
        writer.close()
    finally:
        threading.excepthook = before
    assert faults == [ZeroDivisionError]
    assert len(received) == 2
