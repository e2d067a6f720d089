"""Going back to an earlier state of the run, on a new timeline: prepare, commit, confirm.

Training thread only, at a safe point, where training stands until it is over. A state in memory is at hand; one on disk
is read and verified by the helper thread, under a generation number and a deadline: what comes too late, or for an
earlier attempt, is dropped, and nothing has been changed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from esperd.leyline.commands import Command, RollbackCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.views import TimelineEvent, TimelineView
from esperd.leyline.vocabulary import RollbackTier, Stage
from esperd.tolaria import saved_state
from esperd.tolaria.catch_up import Position
from esperd.tolaria.checkpoint_writer import Loaded
from esperd.tolaria.emergency import RollbackFailed
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.kept_states import KeptState
from esperd.tolaria.parts import Parts
from esperd.tolaria.recovery import Action
from esperd.tolaria.state_tree import Captured, rebuild

Finish = Callable[[Command, Position, EsperdError | None], None]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One rollback under way."""

    generation: int
    state: KeptState
    cause: str
    command: Command | None
    """None when the trainer's own rule asked."""
    asked_at: Position
    leaves_out_data: bool
    deadline_s: float


class Rollback:
    """Carries out one rollback at a time."""

    def __init__(self, parts: Parts, keeper: Keeper, finish: Finish, monotonic: Callable[[], float]) -> None:
        """`finish` settles the command that asked; `monotonic` gives seconds for the deadline."""
        self._parts = parts
        self._keeper = keeper
        self._finish = finish
        self._monotonic = monotonic
        self._generation = 0
        self._attempt: _Attempt | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether training stands until a rollback is over."""
        return self._attempt is not None

    def ask(self, command: Command, payload: RollbackCommand) -> None:
        """Begin what a command wants; it is settled when the rollback is over.

        Raises EsperdError ROLLBACK_TARGET or SEED_UNKNOWN; nothing has changed then.
        """
        executor, seed_id = self._parts.executor, payload.before_seed_id
        germinated_step = executor.germinated_step(seed_id) if seed_id else None
        state = self._keeper.states.wanted(payload, self._parts.publisher.timelines, germinated_step)
        self._begin(state, command.command_id, command, leaves_out_data=False)

    def recover(self, action: Action) -> None:
        """Begin what the recovery rule wants: back to the newest good state."""
        state = self._keeper.states.newest_good(self._parts.publisher.timelines)
        assert state is not None  # the rule was told that there is one
        self._begin(state, action.cause, None, leaves_out_data=action.leaves_out_data)

    def loaded(self, result: Loaded) -> None:
        """The helper thread has read the state, or could not."""
        attempt = self._attempt
        if attempt is None or result.generation != attempt.generation:
            return  # it missed its deadline, and nobody waits for it any more
        if result.error is not None:
            self._pass_over(attempt, result.error)
        else:
            assert result.captured is not None  # it has one or the other
            self._commit(attempt, result.captured)
            result.captured.release()

    def look_at_deadline(self) -> None:
        """Give up a rollback that could not be prepared in time."""
        attempt = self._attempt
        if attempt is not None and self._monotonic() > attempt.deadline_s:
            self._give_up(attempt, EsperdError("ROLLBACK_DEADLINE", within_s=self._within_s))

    def refuse_rest(self, error: EsperdError) -> None:
        """The run has ended while a rollback was under way: whoever asked for it is told so."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None and attempt.command is not None:
            self._finish(attempt.command, attempt.asked_at, error)

    @property
    def _within_s(self) -> float:
        return self._parts.settings.budgets.full_rollback_s

    def _begin(self, state: KeptState, cause: str, command: Command | None, *, leaves_out_data: bool) -> None:
        self._generation += 1
        position = self._parts.progress.position
        deadline_s = self._monotonic() + self._within_s
        attempt = _Attempt(self._generation, state, cause, command, position, leaves_out_data, deadline_s)
        self._attempt = attempt
        is_fast = state.captured is not None and not _wants_disk(command, state)
        failpoint("rollback.prepared")
        if is_fast:
            assert state.captured is not None
            self._commit(attempt, state.captured)
        else:
            self._keeper.read(state, attempt.generation)

    def _commit(self, attempt: _Attempt, captured: Captured) -> None:
        parts, before = self._parts, self._seed_ids()
        sites = {view.seed_id: (view.site, view.blueprint_id) for view in parts.executor.seeds()}
        try:
            saved_state.restore(parts, rebuild(captured), within_run=True)
            failpoint("rollback.restoring")
            self._check(attempt)
        except EsperdError as error:
            self._break(attempt, error)
            return
        except Exception as fault:  # noqa: BLE001 - the task's code restores parts of the state, and may raise anything
            self._break(attempt, EsperdError("ROLLBACK_FAILED", detail=f"{type(fault).__name__}: {fault}"))
            return
        self._attempt = None
        if attempt.leaves_out_data:
            parts.feed.skip(max(0, attempt.asked_at[1] - attempt.state.step))
        after = self._seed_ids()
        removed, restored = sorted(before - after), sorted(after - before)
        parent, fork_step = attempt.state.position
        timelines = parts.publisher.timelines
        number = timelines[-1].timeline + 1
        parts.publisher.open_timeline((*timelines, TimelineView(number, parent, fork_step, attempt.cause)))
        parts.executor.restore_kernels(parts.progress.global_step)
        if attempt.command is None:
            for seed_id in removed:
                parts.executor.embargo(*sites[seed_id], parts.progress.global_step)
        self._keeper.went_back(attempt.state)
        parts.note_change(True)
        if attempt.command is not None:
            # Before the timeline is told: a journal that knew a timeline, but not the command that opened it, would
            # have the run go back once more from where it can no longer get to.
            self._finish(attempt.command, attempt.asked_at, None)
        self._tell_timeline(attempt, removed, restored)
        failpoint("rollback.confirmed")
        self._keeper.keep_fork(is_good=attempt.state.is_good)

    def _check(self, attempt: _Attempt) -> None:
        """Confirm: the run is where it was wanted, whole and sound. Raises EsperdError ROLLBACK_FAILED."""
        step = self._parts.progress.global_step
        if step != attempt.state.step:
            raise EsperdError("ROLLBACK_FAILED", detail=f"the state is of step {step}, not {attempt.state.step}")
        if not self._parts.weights_are_finite():
            raise EsperdError("ROLLBACK_FAILED", detail="its parameters are not finite")

    def _tell_timeline(self, attempt: _Attempt, removed: list[int], restored: list[int]) -> None:
        parts, publisher = self._parts, self._parts.publisher
        parent, fork_step = attempt.state.position
        number = publisher.timeline
        event = TimelineEvent(
            timeline=number,
            parent=parent,
            fork_step=fork_step,
            left_step=attempt.asked_at[1],
            checkpoint_id=attempt.state.checkpoint_id,
            cause=attempt.cause,
            removed_seed_ids=tuple(removed),
            restored_seed_ids=tuple(restored),
            revision=publisher.revision + 1,
            unix_s=parts.clock(),
        )
        publisher.record(event)
        parts.telemetry.emit_timeline(number, fork_step, parts.unix_ns())

    def _pass_over(self, attempt: _Attempt, error: EsperdError) -> None:
        """The files could not be used: what asked for just these is told so, the run itself takes the state before."""
        if error.reason in ("CHECKPOINT_UNKNOWN", "CHECKPOINT_CORRUPT"):
            self._keeper.states.lose_checkpoint(attempt.state.checkpoint_id)
            earlier = self._keeper.states.newest_good(self._parts.publisher.timelines)
            if attempt.command is None and earlier is not None:
                self._parts.note("checkpoint.damaged", error.message, "error")
                self._begin(earlier, attempt.cause, None, leaves_out_data=attempt.leaves_out_data)
                return
        self._give_up(attempt, error)

    def _give_up(self, attempt: _Attempt, error: EsperdError) -> None:
        """It could not be prepared; the run is as it was."""
        self._attempt = None
        self._generation += 1
        parts = self._parts
        parts.note("rollback.given_up", error.message, "error", cause=attempt.cause)
        if attempt.command is not None:
            self._finish(attempt.command, attempt.asked_at, error)
        else:
            action = parts.recovery.rollback_failed(error.message)
            parts.note_change(parts.safety.handle(RollbackFailed(action.detail), parts.progress.global_step))

    def _break(self, attempt: _Attempt, error: EsperdError) -> None:
        """The state could not be restored, and what is there now is neither the old one nor the new one: halt."""
        self._attempt = None
        parts = self._parts
        self._keeper.stop_keeping()
        failure = error if error.reason == "ROLLBACK_FAILED" else EsperdError("ROLLBACK_FAILED", detail=error.message)
        parts.note("rollback.failed", failure.message, "critical", cause=attempt.cause)
        action = parts.recovery.rollback_failed(failure.message)
        parts.note_change(parts.safety.handle(RollbackFailed(action.detail), parts.progress.global_step))
        if attempt.command is not None:
            self._finish(attempt.command, attempt.asked_at, failure)

    def _seed_ids(self) -> set[int]:
        gone = (Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING)
        return {view.seed_id for view in self._parts.executor.seeds() if view.stage not in gone}


def _wants_disk(command: Command | None, state: KeptState) -> bool:
    """Whether a command means the files: it says so, or names an older checkpoint of the same safe point."""
    payload = None if command is None else command.payload
    if not isinstance(payload, RollbackCommand):
        return False
    is_older = payload.checkpoint_id != "" and payload.checkpoint_id != state.checkpoint_ids[-1]
    return payload.tier is RollbackTier.FULL or is_older
