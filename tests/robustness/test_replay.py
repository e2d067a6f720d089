"""The straight run of a history: what was rolled back is left out, what an operator has set stands."""

from collections.abc import Sequence

from esper.leyline.v1.command_pb2 import AdaptationCommand, CommandCircuitBreaker
from esper.leyline.v1.vocabulary_pb2 import (
    CIRCUIT_BREAKER_STATE_CLOSED,
    CIRCUIT_BREAKER_STATE_OPEN,
    CircuitBreakerState,
)

from esperd.leyline.vocabulary import CommandState
from tests.robustness.history import CommandRow, History, OutcomeRow, TimelineRow
from tests.robustness.replay import straight_run


def test_a_breaker_closed_on_what_was_rolled_back_stays_closed() -> None:
    """A rollback between its opening and its closing does not open it again."""
    history = _history(
        [_breaker("c-1", CIRCUIT_BREAKER_STATE_OPEN), _breaker("c-2", CIRCUIT_BREAKER_STATE_CLOSED),
         _command("c-3", "rollback"), _command("c-4", "seed")],
        [_applied("c-1", 1, 10), _applied("c-2", 1, 14), _applied("c-3", 1, 20), _applied("c-4", 2, 13)],
        [TimelineRow(0, 2, 1, 12, 20, "c-3")],
    )  # fmt: skip
    opened, back, seed = straight_run(history)
    assert (opened.step, opened.standing.breakers) == (10, {"isolation": CIRCUIT_BREAKER_STATE_OPEN})
    assert (back.step, back.standing.breakers) == (12, {"isolation": CIRCUIT_BREAKER_STATE_CLOSED})
    assert seed.command is not None
    assert seed.command.command_id == "c-4"
    assert seed.standing.breakers == {"isolation": CIRCUIT_BREAKER_STATE_CLOSED}


def test_a_stop_comes_last_at_its_step() -> None:
    """What took effect at the safe point where the run was stopped does so before it ends."""
    history = _history(
        [_command("c-1", "stop"), _command("c-2", "optimizer")], [_applied("c-1", 1, 10), _applied("c-2", 1, 10)], []
    )
    assert [scene.command and scene.command.command_id for scene in straight_run(history)] == ["c-2", "c-1"]


def _breaker(command_id: str, state: CircuitBreakerState) -> CommandRow:
    message = AdaptationCommand(circuit_breaker=CommandCircuitBreaker(name="isolation", desired_state=state))
    return _command(command_id, "breaker", message.SerializeToString())


def _command(command_id: str, kind: str, payload: bytes = b"") -> CommandRow:
    return CommandRow(0, command_id, command_id, "/SubmitCommand", kind, 0, payload=payload)


def _applied(command_id: str, timeline: int, step: int) -> OutcomeRow:
    number = int(command_id[2:])
    return OutcomeRow(number, command_id, CommandState.APPLIED, step, timeline, number, 0, 0)


def _history(
    commands: Sequence[CommandRow], outcomes: Sequence[OutcomeRow], timelines: Sequence[TimelineRow]
) -> History:
    return History(commands=tuple(commands), outcomes=tuple(outcomes), timelines=tuple(timelines))
