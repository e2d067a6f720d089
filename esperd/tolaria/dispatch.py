"""Commands at the safe point: which are due, in what order, and the one outcome that each of them gets.

Training thread only. Order inside one safe point: emergencies, breakers, rollback, structural, scalar; inside each,
operators before policies, and then as they came. What a command does is the trainer's affair (`apply`). After a restart
the commands of the journal come first, each at the safe point where it had taken effect, and new ones wait until
history is through.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

from esperd.bridge.bridge import Bridge
from esperd.leyline.commands import (
    BreakerCommand,
    CheckpointCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    KernelSwapCommand,
    Outcome,
    PauseCommand,
    PolicyPresence,
    Refusal,
    ResetOptimizerCommand,
    ResumeCommand,
    RollbackCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.vocabulary import CommandState, EmergencyLevel
from esperd.oona.past import PastCommand
from esperd.tolaria.catch_up import START, CatchUp, Mark, Position
from esperd.tolaria.orders import PENDING
from esperd.tolaria.state import Publisher

_EMERGENCY, _BREAKER, _ROLLBACK, _STRUCTURAL, _SCALAR = range(5)

_RANKS: dict[type, int] = {
    EmergencyCommand: _EMERGENCY,
    PolicyPresence: _EMERGENCY,
    BreakerCommand: _BREAKER,
    RollbackCommand: _ROLLBACK,
    SeedCommand: _STRUCTURAL,
    KernelSwapCommand: _STRUCTURAL,
    ResetOptimizerCommand: _STRUCTURAL,
    HyperparameterCommand: _SCALAR,
    PauseCommand: _SCALAR,
    ResumeCommand: _SCALAR,
    StopCommand: _SCALAR,
    CheckpointCommand: _SCALAR,
}


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A command in the trainer's hands, and the position before which it must not take effect."""

    command: Command
    floor: Position = START


class Faults(Protocol):
    """Who hears of commands that went wrong."""

    def fault(self, command: Command, error: Exception) -> None:
        """It met an exception that is no refusal."""
        ...

    def diverged(self, command: Command, detail: str) -> None:
        """One of the journal did not do again what it had done."""
        ...


class Dispatcher:
    """Takes commands out of the box and settles each exactly once."""

    def __init__(
        self,
        bridge: Bridge,
        publisher: Publisher,
        apply: Callable[[Command], int],
        is_held: Callable[[], bool],
        faults: Faults,
        clock: Callable[[], float],
    ) -> None:
        """Make a dispatcher.

        Args:
            bridge: where commands come from and outcomes go.
            publisher: counts revisions.
            apply: carries out one command and returns the id of the seed it concerns (0: none) or PENDING, or raises
                EsperdError having changed nothing.
            is_held: whether only emergencies may take effect now (a rollback is under way).
            faults: hears of commands that went wrong.
            clock: Unix seconds.
        """
        self._bridge = bridge
        self._publisher = publisher
        self._apply = apply
        self._is_held = is_held
        self._faults = faults
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._decision_revisions: dict[str, int] = {}
        self._repeated: set[str] = set()
        self._untold: list[Outcome] = []
        self._catch_up: CatchUp | None = None
        # What this start accepted before the journal was read came by both ways.
        self._taken_over: frozenset[str] = frozenset()
        self.sequence = 0
        """Number of the last outcome given, over all starts of the run."""

    def resume(self, catch_up: CatchUp, unsettled: Sequence[PastCommand], sequence: int) -> None:
        """Take over what the journal holds: the past to repeat, and accepted commands that have no outcome yet."""
        self._catch_up = catch_up
        self._waiting = [_Waiting(past.command, _floor(past, catch_up.horizon)) for past in unsettled]
        self._taken_over = frozenset(past.command.command_id for past in unsettled)
        self._bridge.box.num_deferred = len(self._waiting)
        self.sequence = sequence

    def end_catch_up(self) -> None:
        """History is through: new commands may take effect."""
        self._catch_up = None

    def mark(self) -> Mark:
        """Where the state of now lies in the journal."""
        if self._catch_up is not None:
            return self._catch_up.mark(self.sequence, self._publisher.revision)
        return Mark(self.sequence, self._publisher.revision, self._bridge.journal_revision)

    def has_work(self, *, epoch_ended: bool) -> bool:
        """Whether this safe point has anything to do; costs a few length checks while nothing waits."""
        if self._bridge.has_mail:
            return True
        if self._catch_up is None and not self._waiting:
            return False
        position = self._publisher.position
        if self._catch_up is not None and self._catch_up.has(position):
            return True
        now = self._clock()
        return any(self._is_due(w, position, epoch_ended) or _is_expired(w.command, now) for w in self._waiting)

    def run(self, *, epoch_ended: bool) -> None:
        """One safe point: settle every command that is due, expired or cancelled, and publish what changed."""
        position = self._publisher.position
        if self._catch_up is not None:
            self._repeat(self._catch_up.take(position))
        cancelled = self._bridge.take_cancellations()
        arrived = [_Waiting(command) for command in self._take_arrived()]
        waiting = self._waiting + arrived
        self._waiting = []
        now = self._clock()
        due: list[_Waiting] = []
        for item in waiting:
            command = item.command
            if command.command_id in cancelled:
                self._untold.append(self._refused(command, CommandState.CANCELLED, EsperdError("COMMAND_CANCELLED")))
            elif _is_expired(command, now):
                self._untold.append(self._refused(command, CommandState.EXPIRED, EsperdError("COMMAND_EXPIRED")))
            elif self._is_due(item, position, epoch_ended):
                due.append(item)
            else:
                self._waiting.append(item)
        self._carry_out(due)
        self._bridge.box.num_deferred = len(self._waiting)
        if self._untold:
            self._tell()

    def finish(self, command: Command, position: Position, error: EsperdError | None = None) -> None:
        """Settle a command that was PENDING; `position` is that of the safe point where it was asked."""
        if command.command_id in self._repeated:
            self._repeated.discard(command.command_id)
            if error is not None:
                self._faults.diverged(command, error.message)
            return
        if error is None:
            outcome = self._outcome(command, CommandState.APPLIED, position, self._publisher.bump())
        else:
            state = CommandState.FAILED if error.reason == "ROLLBACK_FAILED" else CommandState.REJECTED
            outcome = self._refused(command, state, error)
        self._untold.append(outcome)
        self._tell()

    def take_waiting(self) -> list[Command]:
        """Everything still waiting for its time; for the end of the run."""
        waiting, self._waiting = self._waiting, []
        self._bridge.box.num_deferred = 0
        return [item.command for item in waiting]

    def _repeat(self, commands: Sequence[PastCommand]) -> None:
        """Do again what was done here; the outcomes are in the journal already."""
        for past in commands:
            command, recorded = past.command, past.outcome
            assert recorded is not None  # only settled commands are repeated
            self._repeated.add(command.command_id)
            try:
                seed_id = self._apply(command)
            except Exception as error:  # noqa: BLE001 - what it was the first time: a fault of one command
                self._repeated.discard(command.command_id)
                if not isinstance(error, EsperdError):
                    self._faults.fault(command, error)  # what it set off the first time belongs to history too
                if recorded.state is CommandState.APPLIED:
                    self._faults.diverged(command, f"{type(error).__name__}: {error}")
                continue
            if seed_id == PENDING:
                continue
            self._repeated.discard(command.command_id)
            self._publisher.bump()
            if recorded.state is not CommandState.APPLIED or seed_id != recorded.seed_id:
                self._faults.diverged(
                    command, f"it was {recorded.state.name} for seed {recorded.seed_id}, not {seed_id}"
                )
        if commands:
            self._publisher.publish()

    def _is_due(self, item: _Waiting, position: Position, epoch_ended: bool) -> bool:
        payload = item.command.payload
        is_clear = isinstance(payload, EmergencyCommand) and payload.level is EmergencyLevel.UNSPECIFIED
        if is_clear and self._publisher.is_halted:
            return True  # what ends a halt must not wait for a step that the halted run cannot reach
        if position < item.floor:
            return False
        if isinstance(payload, EmergencyCommand) and self._passes_at_once(payload):
            return True
        if self._is_held():
            return False
        # Nothing new happens in the past: a fresh command (it has no floor) waits until history is through.
        if self._catch_up is not None and item.floor == START:
            return False
        apply_at = item.command.apply_at
        return position[1] >= apply_at.global_step and (epoch_ended or not apply_at.epoch_boundary)

    def _take_arrived(self) -> list[Command]:
        """What has come by the box.

        A command that this start accepted before it had read the journal comes by both ways, and is one command: the
        box's counts, unless the journal's has taken effect already.
        """
        arrived = self._bridge.box.take()
        if not arrived or not self._taken_over:
            return arrived
        twins = self._taken_over.intersection(command.command_id for command in arrived)
        pending = {item.command.command_id for item in self._waiting}
        self._waiting = [item for item in self._waiting if item.command.command_id not in twins]
        return [command for command in arrived if command.command_id not in twins or command.command_id in pending]

    def _passes_at_once(self, emergency: EmergencyCommand) -> bool:
        """While history is done again, a halt holds it; what would let it go another way waits like the rest."""
        return self._catch_up is None or emergency.level in (EmergencyLevel.HALT, EmergencyLevel.UNSPECIFIED)

    def _carry_out(self, due: list[_Waiting]) -> None:
        self._decision_revisions.clear()
        timeline = self._publisher.timeline
        ranked = sorted(
            ((_RANKS[type(w.command.payload)], bool(w.command.decision_id), i, w) for i, w in enumerate(due)),
            key=itemgetter(0, 1, 2),
        )
        for *_, item in ranked:
            has_gone_back = self._is_held() or self._publisher.timeline != timeline
            if has_gone_back and not isinstance(item.command.payload, EmergencyCommand):
                self._waiting.append(item)  # it was not asked of the state that this leads to: that has safe points too
                continue
            outcome = self._settle(item.command)
            if outcome is not None:
                self._untold.append(outcome)

    def _settle(self, command: Command) -> Outcome | None:
        failpoint("apply.before")
        position = self._publisher.position
        try:
            self._check_revision(command)
            seed_id = self._apply(command)
        except EsperdError as error:
            return self._refused(command, CommandState.REJECTED, error)
        except Exception as error:  # noqa: BLE001 - one command's fault must end neither the run nor the others
            self._faults.fault(command, error)
            internal = EsperdError("INTERNAL", detail=type(error).__name__)
            return self._refused(command, CommandState.FAILED, internal)
        failpoint("apply.after")
        if seed_id == PENDING:
            return None
        revision = self._publisher.bump()
        return self._outcome(command, CommandState.APPLIED, position, revision, None, seed_id)

    def _check_revision(self, command: Command) -> None:
        """Raise STATE_CHANGED unless the command was decided on the present state.

        Commands of one decision were decided together: what its first ones change does not make the others stale.
        """
        revision = self._publisher.revision
        if command.decision_id:
            revision = self._decision_revisions.setdefault(command.decision_id, revision)
        if command.expected_revision not in (0, revision):
            raise EsperdError("STATE_CHANGED", revision=revision, expected=command.expected_revision)

    def _refused(self, command: Command, state: CommandState, error: EsperdError) -> Outcome:
        publisher = self._publisher
        return self._outcome(command, state, publisher.position, publisher.revision, error.refusal())

    def _outcome(
        self,
        command: Command,
        state: CommandState,
        position: Position,
        revision: int,
        refusal: Refusal | None = None,
        seed_id: int = 0,
    ) -> Outcome:
        self.sequence += 1
        timeline, step = position
        return Outcome(command.command_id, state, step, revision, refusal, seed_id, timeline, self.sequence)

    def _tell(self) -> None:
        """Publish what has changed, then tell the outcomes, in the order of their numbers."""
        self._publisher.publish()
        outcomes, self._untold = self._untold, []
        for outcome in outcomes:
            failpoint("outcome.before_settle")
            self._bridge.settle(outcome)


def _floor(past: PastCommand, horizon: Position) -> Position:
    """Where an accepted command that was never settled may take effect: as soon as it could have, but not in history.

    Outcomes reach the journal in the order in which they are given. So a command that was due at once came after all
    that is recorded; one with a step of its own waits for that step, in the timeline of the newest record.
    """
    is_dated = past.command.apply_at.global_step > past.accepted_step or past.command.apply_at.epoch_boundary
    return (horizon[0], past.accepted_step) if is_dated else horizon


def _is_expired(command: Command, now_unix_s: float) -> bool:
    return 0 < command.expire_time_unix_s <= now_unix_s
