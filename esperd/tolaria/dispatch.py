"""Commands at the safe point: which are due, in what order, and the one outcome that each of them gets.

Training thread only. Order inside one safe point: halt, rollback, structural, scalar; inside each, operators before
policies, and then as they came. What a command does is the trainer's affair (`apply`).
"""

from collections.abc import Callable
from operator import itemgetter

from esperd.bridge.bridge import Bridge
from esperd.leyline.commands import (
    BreakerCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    Outcome,
    PauseCommand,
    PolicyPresence,
    Refusal,
    ResetOptimizerCommand,
    ResumeCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import CommandState
from esperd.tolaria.state import Publisher

_HALT, _STRUCTURAL, _SCALAR = 0, 2, 3
"""Ranks; 1 is where a rollback belongs: after a halt, before anything that it would undo."""

_RANKS: dict[type, int] = {
    EmergencyCommand: _HALT,
    BreakerCommand: _HALT,
    PolicyPresence: _HALT,
    SeedCommand: _STRUCTURAL,
    ResetOptimizerCommand: _STRUCTURAL,
    HyperparameterCommand: _SCALAR,
    PauseCommand: _SCALAR,
    ResumeCommand: _SCALAR,
    StopCommand: _SCALAR,
}


class Dispatcher:
    """Takes commands out of the box and settles each exactly once."""

    def __init__(
        self,
        bridge: Bridge,
        publisher: Publisher,
        apply: Callable[[Command], int],
        on_fault: Callable[[Command, Exception], None],
        clock: Callable[[], float],
    ) -> None:
        """`apply` carries out one command and returns the id of the seed it concerns (0: none), or raises EsperdError
        having changed nothing; `on_fault` hears of any other exception.
        """
        self._bridge = bridge
        self._publisher = publisher
        self._apply = apply
        self._on_fault = on_fault
        self._clock = clock
        self._deferred: list[Command] = []
        self._decision_revisions: dict[str, int] = {}

    def has_work(self, step: int, *, epoch_ended: bool) -> bool:
        """Whether this safe point has anything to do; costs three length checks while nothing waits."""
        if self._bridge.has_mail:
            return True
        if not self._deferred:
            return False
        now = self._clock()
        return any(_is_due(c, step, epoch_ended) or _is_expired(c, now) for c in self._deferred)

    def run(self, step: int, *, epoch_ended: bool) -> None:
        """One safe point: settle every command that is due, expired or cancelled, and publish what changed."""
        cancelled = self._bridge.take_cancellations()
        waiting = self._deferred + self._bridge.box.take()
        self._deferred = []
        now = self._clock()
        outcomes: list[Outcome] = []
        due: list[Command] = []
        for command in waiting:
            if command.command_id in cancelled:
                outcomes.append(self._refused(command, CommandState.CANCELLED, EsperdError("COMMAND_CANCELLED"), step))
            elif _is_expired(command, now):
                outcomes.append(self._refused(command, CommandState.EXPIRED, EsperdError("COMMAND_EXPIRED"), step))
            elif _is_due(command, step, epoch_ended):
                due.append(command)
            else:
                self._deferred.append(command)
        self._bridge.box.num_deferred = len(self._deferred)
        outcomes += self._carry_out(due, step)
        if outcomes:
            self._publisher.publish()
        for outcome in outcomes:
            self._bridge.settle(outcome)

    def take_deferred(self) -> list[Command]:
        """Everything still waiting for its time; for the end of the run."""
        deferred, self._deferred = self._deferred, []
        self._bridge.box.num_deferred = 0
        return deferred

    def _carry_out(self, due: list[Command], step: int) -> list[Outcome]:
        self._decision_revisions.clear()
        ranked = sorted(
            ((_RANKS[type(c.payload)], bool(c.decision_id), i, c) for i, c in enumerate(due)), key=itemgetter(0, 1, 2)
        )
        return [self._settle(command, step) for *_, command in ranked]

    def _settle(self, command: Command, step: int) -> Outcome:
        try:
            self._check_revision(command)
            seed_id = self._apply(command)
        except EsperdError as error:
            return self._refused(command, CommandState.REJECTED, error, step)
        except Exception as error:  # noqa: BLE001 - one command's fault must end neither the run nor the others
            self._on_fault(command, error)
            internal = EsperdError("INTERNAL", detail=type(error).__name__)
            return self._refused(command, CommandState.FAILED, internal, step)
        revision = self._publisher.bump()
        return Outcome(command.command_id, CommandState.APPLIED, step, revision, None, seed_id)

    def _check_revision(self, command: Command) -> None:
        """Raise STATE_CHANGED unless the command was decided on the present state.

        Commands of one decision were decided together: what its first ones change does not make the others stale.
        """
        revision = self._publisher.revision
        if command.decision_id:
            revision = self._decision_revisions.setdefault(command.decision_id, revision)
        if command.expected_revision not in (0, revision):
            raise EsperdError("STATE_CHANGED", revision=revision, expected=command.expected_revision)

    def _refused(self, command: Command, state: CommandState, error: EsperdError, step: int) -> Outcome:
        refusal: Refusal = error.refusal()
        return Outcome(command.command_id, state, step, self._publisher.revision, refusal)


def _is_due(command: Command, step: int, epoch_ended: bool) -> bool:
    apply_at = command.apply_at
    return step >= apply_at.global_step and (epoch_ended or not apply_at.epoch_boundary)


def _is_expired(command: Command, now_unix_s: float) -> bool:
    return 0 < command.expire_time_unix_s <= now_unix_s
