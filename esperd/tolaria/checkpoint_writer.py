"""The threads that write and read checkpoints, so that training never waits for a disk.

Used from the training thread; its own two threads see CPU copies and files only. One writes, marks and removes, in the
order it was asked; one reads, so that a rollback does not wait behind a write. Every job ends in exactly one result,
whatever happens in it; results are handed over on those threads, in `on_done`.
"""

import queue
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CheckpointKind
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.retention import Retention
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria.state_tree import Captured, read_files, write_files

MAX_WAITING = 2
"""Checkpoints that may wait behind the one being written: each keeps a whole state in memory."""
MAX_WAITING_WANTED = 6
"""The same for those that are not routine: asked for, or written because something happened."""


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint is durable, or is not there at all."""

    manifest: Manifest
    """With the files, when there is no error."""
    num_bytes: int
    write_ms: float
    error: EsperdError | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint was read and every byte of it verified; `captured` belongs to whoever takes this result."""

    generation: int
    checkpoint_id: str
    manifest: Manifest | None
    captured: Captured | None
    error: EsperdError | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """A checkpoint is marked as good, durably."""

    checkpoint_id: str
    error: EsperdError | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention does not keep is gone."""

    checkpoint_ids: tuple[str, ...]
    error: EsperdError | None = None


Result = Written | Loaded | Marked | Pruned


class CheckpointWriter:
    """`clock` gives monotonic seconds; `on_done` must only put the result somewhere and wake the trainer."""

    def __init__(
        self, store: CheckpointStore, *, clock: Callable[[], float], on_done: Callable[[Result], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._writing = _Worker("checkpoint-writer", on_done)
        self._reading = _Worker("checkpoint-reader", on_done)
        self._num_submitted = 0  # counted on the training thread only
        self._num_begun = 0  # counted on the writing thread only

    @property
    def num_waiting(self) -> int:
        """Checkpoints that are not being written yet."""
        return self._num_submitted - self._num_begun

    def submit(self, captured: Captured, draft: Manifest) -> bool:
        """Have a checkpoint written; holds `captured` until that is done. False when too many wait already."""
        is_routine = draft.kind is CheckpointKind.SCHEDULED
        if self.num_waiting >= (MAX_WAITING if is_routine else MAX_WAITING_WANTED):
            return False
        captured.retain()
        self._num_submitted += 1
        self._writing.ask(lambda: self._write(captured, draft))
        return True

    def read(self, checkpoint_id: str, generation: int, run_id: str = "", *, after_writing: bool = False) -> None:
        """Have a checkpoint read; `generation` comes back with it. `after_writing`: one that is still being written."""
        worker = self._writing if after_writing else self._reading
        worker.ask(lambda: self._read(checkpoint_id, generation, run_id))

    def mark_good(self, checkpoint_id: str, run_id: str = "") -> None:
        """Have a checkpoint marked as good."""
        self._writing.ask(lambda: self._mark_good(checkpoint_id, run_id))

    def prune(
        self,
        rule: Retention,
        protect: Collection[str] = (),
        run_id: str = "",
        known: Collection[str] | None = None,
    ) -> None:
        """Have retention applied."""
        protect, known = frozenset(protect), None if known is None else frozenset(known)
        self._writing.ask(lambda: self._prune(rule, protect, run_id, known))

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until everything asked for so far is done; False when that took longer."""
        start_s = self._clock()
        return self._writing.wait(timeout_s) and self._reading.wait(timeout_s - (self._clock() - start_s))

    def close(self) -> None:
        """Finish everything asked for, then end both threads."""
        self._writing.close()
        self._reading.close()

    def _write(self, captured: Captured, draft: Manifest) -> Written:
        self._num_begun += 1
        start_s = self._clock()
        error: EsperdError | None = None
        manifest, num_bytes = draft, 0
        try:
            with self._store.begin(draft.checkpoint_id) as pending:
                write_files(captured, pending)
                stored = pending.commit(draft)
            manifest, num_bytes = stored.manifest, stored.num_bytes
        except Exception as failure:  # noqa: BLE001 - whatever went wrong is the result
            error = _as_error(failure)
        finally:
            captured.release()
        return Written(manifest, num_bytes, self._elapsed_ms(start_s), error)

    def _read(self, checkpoint_id: str, generation: int, run_id: str) -> Loaded:
        loaded = Loaded(generation, checkpoint_id, None, None)
        try:
            stored = self._store.get(checkpoint_id, run_id)
            loaded = replace(loaded, manifest=stored.manifest, captured=read_files(stored))
        except Exception as failure:  # noqa: BLE001 - whatever went wrong is the result
            loaded = replace(loaded, error=_as_error(failure))
        return loaded

    def _mark_good(self, checkpoint_id: str, run_id: str) -> Marked:
        try:
            self._store.mark_good(checkpoint_id, run_id)
        except Exception as failure:  # noqa: BLE001 - whatever went wrong is the result
            return Marked(checkpoint_id, _as_error(failure))
        return Marked(checkpoint_id)

    def _prune(self, rule: Retention, protect: Collection[str], run_id: str, known: Collection[str] | None) -> Pruned:
        try:
            return Pruned(self._store.prune(rule, protect, run_id, known))
        except Exception as failure:  # noqa: BLE001 - whatever went wrong is the result
            return Pruned((), _as_error(failure))

    def _elapsed_ms(self, start_s: float) -> float:
        return (self._clock() - start_s) * 1e3


class _Worker:
    """One thread that does jobs in order; a job gives the result that is handed over, None for none."""

    def __init__(self, name: str, on_done: Callable[[Result], None]) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], Result | None] | None] = queue.SimpleQueue()
        self._on_done = on_done
        # A daemon, because a main thread that fails must not wait for a disk; what is half-written is swept later.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, job: Callable[[], Result | None]) -> None:
        self._jobs.put(job)

    def wait(self, timeout_s: float) -> bool:
        passed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._jobs.put(lambda: passed.put(None))
        try:
            passed.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return False
        return True

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = job()
            if result is None:
                continue
            try:
                self._on_done(result)
            except Exception as fault:  # noqa: BLE001 - the thread outlives a faulty receiver, which is told on stderr
                threading.excepthook(threading.ExceptHookArgs((type(fault), fault, fault.__traceback__, self._thread)))


def _as_error(failure: Exception) -> EsperdError:
    if isinstance(failure, EsperdError):
        return failure
    return EsperdError("CHECKPOINT_FAILED", detail=f"{type(failure).__name__}: {failure}")
