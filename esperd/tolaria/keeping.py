"""Keeps the states of the run: decides at which safe points, copies them, hands them to the writer, hears the result.

Training thread only. A copy into memory that is there already is all that training waits for; files are the writer's.
A state that cannot be written is an event and an emergency, never the end of training.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from esperd.leyline.commands import Command
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import CheckpointEvent
from esperd.leyline.vocabulary import CheckpointKind, EmergencyLevel
from esperd.oona.checkpoints.manifest import Manifest
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.retention import Retention
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.tolaria import saved_state
from esperd.tolaria.catch_up import START, Mark, Position
from esperd.tolaria.checkpoint_writer import CheckpointWriter, Loaded, Marked, Pruned, Result, Written
from esperd.tolaria.drafts import Drafts
from esperd.tolaria.emergency import CheckpointWritten
from esperd.tolaria.goodness import StateKey
from esperd.tolaria.kept_states import KeptState, KeptStates
from esperd.tolaria.parts import Parts
from esperd.tolaria.state_tree import BufferPool, Captured, capture, read_files

_NEVER = 1 << 62
_HURRY = 5
"""From ELEVATED on, states are kept in memory so many times as often."""
_ROUTINE = frozenset({CheckpointKind.SCHEDULED, CheckpointKind.FORK})
BY_CHANCE = frozenset({CheckpointKind.EMERGENCY, CheckpointKind.FINAL})
"""Written because of something outside of the run."""
_FLUSH_S = 60.0

Finish = Callable[[Command, Position, EsperdError | None], None]


@dataclass(frozen=True, slots=True)
class _Request:
    """A checkpoint wanted at this safe point."""

    kind: CheckpointKind
    note: str = ""
    command: Command | None = None
    is_good: bool = False


class Keeper:
    """What is kept of a run, in memory and on disk."""

    def __init__(self, parts: Parts, store: CheckpointStore | None, mark: Callable[[], Mark], finish: Finish) -> None:
        """Make a keeper.

        Args:
            parts: the run.
            store: where its checkpoints go; None keeps states in memory only.
            mark: where the state of now lies in the journal.
            finish: settles the command that asked for a checkpoint.
        """
        self._parts = parts
        self._settings = parts.settings.checkpoints
        self._writer = None if store is None else CheckpointWriter(store, clock=time.monotonic, on_done=self._on_done)
        self._drafts = Drafts(parts, mark)
        self._finish = finish
        self.states = KeptStates(self._settings.snapshots, self._settings.max_snapshot_bytes)
        self._pool = BufferPool(parts.device, max_free=self._settings.snapshots + 2)
        self.requests: list[_Request] = []
        """Checkpoints wanted at this safe point; `tend` writes them."""
        self._asked: dict[str, tuple[Command, Position]] = {}
        self.results: deque[Result] = deque()
        """What the helper threads have done; `take_results` hears it."""
        self._last_kept: Position | None = None
        self.next_step = 0
        """The first step at which `arrive` has anything to do."""
        self._is_stopped = False
        self._has_memory = False
        self.found_poison = False
        """Weights were found not to be finite where a state was to be called good; whoever answers it sets it back."""

    # What the safe point asks

    def arrive(self) -> None:
        """At a new step, before its commands: judge states, and keep this one if it is due.

        Before its commands, because some may come much later to a run that stands still here, and all of them at once
        when the run is done again after a restart: the state must be the same.
        """
        step, position = self._parts.progress.global_step, self._parts.progress.position
        self._judge(step)
        is_scheduled = self._is_due(self._settings.every_steps, step)
        is_due = is_scheduled or self._is_due(self._snapshot_every, step)
        if is_due and not (self._is_stopped or self.found_poison) and position != self._last_kept:
            self._keep(position, _Request(CheckpointKind.SCHEDULED) if is_scheduled else None)
        self._set_next_date(step)

    def keep_fork(self, *, is_good: bool) -> None:
        """Keep the first state of a new timeline, before anything happens in it."""
        position = self._parts.progress.position
        self._keep(position, _Request(CheckpointKind.FORK, is_good=is_good))
        self._set_next_date(position[1])

    def tend(self) -> None:
        """At the end of a safe point: keep what was asked for."""
        position = self._parts.progress.position
        requests, self.requests = self.requests, []
        for request in requests:
            if self._is_stopped:
                self._refuse(request, position, "the run's state is not sound")
            else:
                self._keep(position, request)

    def request(self, kind: CheckpointKind, *, note: str = "", command: Command | None = None) -> None:
        """Have a checkpoint written of the state at the end of this safe point."""
        self.requests.append(_Request(kind, note, command))

    def ask(self, command: Command, note: str) -> None:
        """A command wants a checkpoint; it is settled when that is durable. Raises EsperdError CHECKPOINT_FAILED."""
        if self._writer is None:
            raise EsperdError("CHECKPOINT_FAILED", detail="this run has no checkpoint directory")
        self.request(CheckpointKind.REQUESTED, note=note, command=command)

    def read(self, state: KeptState, generation: int) -> None:
        """Have a helper thread read a state that is on disk, or on its way there; it comes through `take_results`."""
        assert self._writer is not None  # what is on disk only was written by it
        run_id = self._parts.progress.run_id
        if state.checkpoint_id:
            self._writer.read(state.checkpoint_id, generation, run_id)
        else:
            self._writer.read(state.pending_ids[0], generation, run_id, after_writing=True)

    def take_results(self) -> list[Loaded]:
        """Hear from the helper thread; what it has read is given back."""
        loaded: list[Loaded] = []
        while self.results:
            result = self.results.popleft()
            match result:
                case Written():
                    self._note_written(result)
                case Loaded():
                    loaded.append(result)
                case Pruned(checkpoint_ids, error):
                    self._note_pruned(checkpoint_ids, error)
                case Marked(checkpoint_id, error) if error is not None:
                    self._parts.note("checkpoint.not_marked", f"{checkpoint_id}: {error.message}", "warning")
        return loaded

    def write_final(self) -> None:
        """Write the last state of this start and wait until it is durable."""
        if self._writer is None or self._is_stopped:
            return
        self._writer.wait_idle(_FLUSH_S)  # the writer may have as many waiting as it takes, and this one must be taken
        self.take_results()
        self.request(CheckpointKind.FINAL)
        self.tend()
        if not self._writer.wait_idle(_FLUSH_S):
            self._parts.note("checkpoint.failed", f"it was not written within {_FLUSH_S:g} s", "error")
        self.take_results()

    def close(self) -> None:
        """Finish what is being written, end the helper threads, and tell what came of it."""
        if self._writer is not None:
            self._writer.close()
            self.take_results()

    def refuse_rest(self, error: EsperdError) -> None:
        """The run has ended: whoever still waits for a checkpoint is told so."""
        position = self._parts.progress.position
        asked = [*self._asked.values(), *((r.command, position) for r in self.requests if r.command is not None)]
        self._asked, self.requests = {}, []
        for command, where in asked:
            self._finish(command, where, error)

    def stop_keeping(self) -> None:
        """The state of the run is not sound any more: nothing of it may be kept."""
        self._is_stopped = True

    # Good and bad

    @property
    def has_good_state(self) -> bool:
        """Whether there is one to go back to."""
        return self.states.newest_good(self._parts.publisher.timelines) is not None

    def spoil(self) -> None:
        """An anomaly: no state that waits to be called good will be."""
        self._parts.goodness.spoil()

    def went_back(self, state: KeptState) -> None:
        """The run has gone back to this state."""
        self.states.went_back(state)
        self._last_kept = None
        self._is_stopped = False  # this state is sound, whatever was before it
        self._set_next_date(self._parts.progress.global_step)
        self._show()

    def adopt(self, stored: Sequence[StoredCheckpoint], position: Position | None) -> None:
        """Take over what an earlier start has left on disk; the run goes on from the one at `position`, if any."""
        for checkpoint in stored:
            manifest = checkpoint.manifest
            self._drafts.take(manifest.checkpoint_id)
            self._parts.bridge.note_durable(0, (manifest.checkpoint_id,))
            self.states.add(_on_disk(manifest, checkpoint.num_bytes, is_good=checkpoint.is_good))
        for checkpoint in reversed(stored):
            state = self.states.find(*_key(checkpoint.manifest))
            if state is not None and self.states.is_wanted_in_memory(state):
                self._load(state, checkpoint)
        if position is not None:
            self._last_kept = position
            self._set_next_date(position[1])
        self._show()

    def _load(self, state: KeptState, checkpoint: StoredCheckpoint) -> None:
        """Have in memory again what an undisturbed run would have there."""
        try:
            state.captured = read_files(checkpoint)
        except EsperdError as error:
            self._parts.note("checkpoint.damaged", error.message, "error", checkpoint_id=state.checkpoint_id)

    def avoid(self, names: Iterable[str]) -> None:
        """Checkpoints with these ids lie on disk, but cannot be used: no other one may take their ids."""
        self._drafts.avoid(names)

    def _judge(self, step: int) -> None:
        due = self._parts.goodness.healthy(step)
        if not due:
            return
        if not self._parts.weights_are_finite():
            self.found_poison = True
            return
        for key in due:
            self._call_good(key)
        self._show()

    def _call_good(self, key: StateKey) -> None:
        self._parts.recovery.good_state(key.global_step)
        for state in self.states.at((key.timeline, key.global_step)):
            state.is_good = True
            for checkpoint_id in state.checkpoint_ids:
                self._mark_good(checkpoint_id)

    def _mark_good(self, checkpoint_id: str) -> None:
        if self._writer is not None:
            self._writer.mark_good(checkpoint_id, self._parts.progress.run_id)

    # Keeping one state

    def _keep(self, position: Position, request: _Request | None) -> None:
        """Copy the state; write it too if that is wanted."""
        is_good = request is not None and request.is_good
        is_own = request is None or request.kind not in BY_CHANCE
        if is_own and not is_good:
            self._parts.goodness.add(StateKey(*position))  # before the copy: who goes on from it waits for it as well
        began_s = time.perf_counter()
        try:
            captured = capture(saved_state.save(self._parts), self._pool)
        except EsperdError as error:
            self._fail(request or _Request(CheckpointKind.SCHEDULED), position, error)
            return
        except Exception as fault:  # noqa: BLE001 - the task's code gives parts of the state: its fault costs a state
            detail = f"{type(fault).__name__}: {fault}"
            unsavable = EsperdError("CHECKPOINT_UNSAVABLE", path="the task's own state", detail=detail)
            self._fail(request or _Request(CheckpointKind.SCHEDULED), position, unsavable)
            return
        pause_ms = (time.perf_counter() - began_s) * 1e3
        checkpoint_id = "" if request is None or self._writer is None else self._drafts.new_id(request.kind, position)
        is_routine = request is None or request.kind in _ROUTINE
        if is_routine:
            self._last_kept = position
        if is_own:
            # Held once more until it is submitted: keeping it may make it leave memory at once.
            captured.retain()
            name = "" if is_routine else checkpoint_id
            is_for_disk = bool(checkpoint_id)
            self.states.add(KeptState(position, captured.num_bytes, name, captured, [], is_for_disk, is_good=is_good))
        if request is not None and checkpoint_id:
            self._submit(request, checkpoint_id, captured, position, pause_ms)
        self._make_memory(captured)
        captured.release()
        self._show()

    def _make_memory(self, captured: Captured) -> None:
        """After the first copy, before the first step: memory that is touched for the first time makes a copy slow."""
        if self._has_memory:
            return
        self._has_memory = True
        num_affordable = self._settings.max_snapshot_bytes // max(1, captured.num_bytes)
        self._pool.reserve(min(self._settings.snapshots + 1, num_affordable))

    def _submit(
        self, request: _Request, checkpoint_id: str, captured: Captured, position: Position, pause_ms: float
    ) -> None:
        assert self._writer is not None  # the caller has looked
        step = position[1]
        if self._drafts.is_taken(checkpoint_id):
            return  # an earlier start wrote this very state
        is_scheduled = request.kind is CheckpointKind.SCHEDULED
        if is_scheduled and not self._parts.safety.admits_checkpoint(step):
            return
        manifest = self._drafts.manifest(request.kind, request.note, checkpoint_id, position, pause_ms)
        is_taken = self._writer.submit(captured, manifest)
        if not is_taken and self._parts.settings.training.deterministic:
            # Going back leads to what was written, and that must not depend on how fast the disk is.
            is_taken = self._writer.wait_idle(_FLUSH_S) and self._writer.submit(captured, manifest)
        if not is_taken:
            self._fail(
                request, position, EsperdError("CHECKPOINT_BUSY", num=self._writer.num_waiting), is_disk_at_fault=False
            )
            return
        self._drafts.take(checkpoint_id)
        self.states.begin_writing(*_key(manifest), checkpoint_id)
        if request.command is not None:
            self._asked[checkpoint_id] = (request.command, position)

    # What came of it

    def _note_written(self, result: Written) -> None:
        manifest, parts = result.manifest, self._parts
        position = (manifest.timeline, manifest.global_step)
        if result.error is not None:
            self.states.end_writing(*_key(manifest), manifest.checkpoint_id)
            self._drafts.give_back(manifest.checkpoint_id)
            command, _ = self._asked.pop(manifest.checkpoint_id, (None, position))
            self._fail(_Request(manifest.kind, command=command), position, result.error)
            return
        is_good = any(state.is_good for state in self.states.at(position))
        self.states.add(_on_disk(manifest, result.num_bytes, is_good=is_good))
        self.states.end_writing(*_key(manifest), manifest.checkpoint_id)
        if is_good:
            self._mark_good(manifest.checkpoint_id)
        parts.publisher.record(
            CheckpointEvent(
                checkpoint_id=manifest.checkpoint_id,
                kind=manifest.kind,
                global_step=manifest.global_step,
                timeline=manifest.timeline,
                num_bytes=result.num_bytes,
                pause_ms=manifest.pause_ms,
                write_ms=result.write_ms,
                unix_s=parts.clock(),
            )
        )
        parts.note_change(parts.safety.handle(CheckpointWritten(True), parts.progress.global_step))
        self._prune()
        self._show()
        asked = self._asked.pop(manifest.checkpoint_id, None)
        if asked is not None:
            self._finish(*asked, None)

    def _prune(self) -> None:
        """Let go of old checkpoints, but of none to which the run could still go back by itself."""
        assert self._writer is not None  # something was written
        newest_good = self.states.newest_good(self._parts.publisher.timelines)
        # The next start goes on from the last of them that the journal knows, and goes back to where this one did.
        written = [state for state in self.states if state.checkpoint_ids and not state.is_by_chance][-2:]
        forked = {view.timeline: (view.parent, view.fork_step) for view in self._parts.publisher.timelines}
        sources = [source for state in written for source in self.states.at(forked.get(state.position[0], START))]
        needed = [*written, *sources, *([] if newest_good is None else [newest_good])]
        protect = [checkpoint_id for state in needed for checkpoint_id in state.checkpoint_ids]
        rule = Retention(self._settings.keep, self._settings.keep_every_steps)
        known = self._parts.bridge.known_checkpoints
        self._writer.prune(rule, protect, self._parts.progress.run_id, known)

    def _note_pruned(self, checkpoint_ids: Sequence[str], error: EsperdError | None) -> None:
        for checkpoint_id in checkpoint_ids:
            self.states.lose_checkpoint(checkpoint_id)
            self._drafts.give_back(checkpoint_id)
        if error is not None:
            self._parts.note("checkpoint.not_pruned", error.message, "warning")
        self._show()

    def _on_done(self, result: Result) -> None:
        """On the writer's threads: leave the result and wake the trainer, nothing else."""
        self.results.append(result)
        self._parts.bridge.box.wake()

    def _fail(
        self, request: _Request, position: Position, error: EsperdError, *, is_disk_at_fault: bool = True
    ) -> None:
        """A state could not be kept: say so, and go on."""
        parts = self._parts
        what = f"the {request.kind.name.lower()} checkpoint of step {position[1]}"
        parts.note("checkpoint.failed", f"{what}: {error.message}", "error", reason=error.reason)
        if is_disk_at_fault:
            parts.note_change(parts.safety.handle(CheckpointWritten(False, error.message), parts.progress.global_step))
        if request.command is not None:
            self._finish(request.command, position, error)

    def _refuse(self, request: _Request, position: Position, detail: str) -> None:
        if request.command is not None:
            self._finish(request.command, position, EsperdError("CHECKPOINT_FAILED", detail=detail))

    def _show(self) -> None:
        """Show the states that there are with the next snapshot."""
        self._parts.publisher.restore_points = self.states.points()

    # Dates

    @property
    def _snapshot_every(self) -> int:
        every = self._settings.snapshot_every_steps
        is_hurried = self._parts.safety.level >= EmergencyLevel.ELEVATED
        # How slow steps are is the clock's affair: it must not decide what a deterministic run can go back to.
        if is_hurried and every and not self._parts.settings.training.deterministic:
            return max(1, every // _HURRY)
        return every

    @staticmethod
    def _is_due(every: int, step: int) -> bool:
        return every > 0 and step % every == 0

    def _set_next_date(self, step: int) -> None:
        intervals = (self._settings.every_steps, self._snapshot_every)
        dates = [step - step % every + every for every in intervals if every > 0]
        due = self._parts.goodness.due_step
        if due >= 0:
            dates.append(max(due, step + 1))
        self.next_step = min(dates, default=_NEVER)


def _key(manifest: Manifest) -> tuple[Position, str]:
    """Under which position and name the state of a checkpoint is kept."""
    name = "" if manifest.kind in _ROUTINE else manifest.checkpoint_id
    return (manifest.timeline, manifest.global_step), name


def _on_disk(manifest: Manifest, num_bytes: int, *, is_good: bool) -> KeptState:
    """The state of a checkpoint that was written."""
    position, name = _key(manifest)
    return KeptState(
        position,
        num_bytes,
        name,
        checkpoint_ids=[manifest.checkpoint_id],
        is_for_disk=True,
        is_by_chance=manifest.kind in BY_CHANCE,
        is_good=is_good,
    )
