"""Commands at the safe point: when they are due, in what order, and one outcome for each."""

from typing import Any

from esperd.leyline.commands import (
    ApplyAt,
    BreakerCommand,
    EmergencyCommand,
    HyperparameterCommand,
    PauseCommand,
    PolicyPresence,
    ResetOptimizerCommand,
)
from esperd.leyline.vocabulary import BreakerState, CommandState, EmergencyLevel
from tests.unit.tolaria.harness import Run

RATE = HyperparameterCommand("host", {"lr": 0.1})
RESET = ResetOptimizerCommand("host")
BREAKER = BreakerCommand("isolation", BreakerState.CLOSED)
NOTICE = EmergencyCommand(EmergencyLevel.NOTICE, "note")


def begun() -> Run:
    return Run().begin()


def order_of(run: Run) -> list[str]:
    """The commands in the order in which they were settled."""
    return [event.command_id for event in run.take() if hasattr(event, "command_id")]


def test_emergencies_come_first_then_breakers_structure_and_scalars():
    """Whatever the order of arrival, also where a breaker has waited for its step."""
    run = begun()
    for name, payload in (("rate", RATE), ("reset", RESET), ("breaker", BREAKER), ("notice", NOTICE)):
        run.submit(payload, command_id=name)
    run.steps(1)
    assert order_of(run) == ["notice", "breaker", "reset", "rate"]


def test_operators_overtake_policies_of_the_same_rank():
    """A policy's decision that came first waits behind an operator's command."""
    run = begun()
    run.submit(RATE, command_id="policy", decision_id="d1")
    run.submit(RATE, command_id="operator")
    run.steps(1)
    assert order_of(run) == ["operator", "policy"]


def test_a_command_waits_for_its_step():
    """It takes effect at the first safe point at or after that step, and counts against the box until then."""
    run = begun()
    late = run.submit(RATE, at_step=3)
    run.steps(1)
    assert run.bridge.box.num_deferred == 1
    run.steps(4)
    assert run.outcome(late).global_step == 3
    assert run.bridge.box.num_deferred == 0


def test_a_command_waits_for_the_epoch_boundary():
    """Six batches make an epoch here."""
    run = begun()
    at_epoch = run.submit(RATE, apply_at=ApplyAt(epoch_boundary=True))
    after = run.submit(RATE, apply_at=ApplyAt(epoch_boundary=True, global_step=7))
    run.steps(13)
    assert run.outcome(at_epoch).global_step == 6
    assert run.outcome(after).global_step == 12


def test_an_expired_command_is_never_applied():
    """Neither one that comes late nor one whose time runs out while it is deferred."""
    run = begun()
    late = run.submit(RATE, expire_time_unix_s=run.clock.now - 1)
    waiting = run.submit(RATE, expire_time_unix_s=run.clock.now + 10, at_step=1000)
    run.steps(1)
    assert run.outcome(late).state is CommandState.EXPIRED
    run.clock.now += 11
    run.steps(1)
    outcome = run.outcome(waiting)
    assert (outcome.state, outcome.global_step) == (CommandState.EXPIRED, 2)
    assert run.trainer.optimizers.host_learning_rate == 0.01


def test_a_cancelled_command_is_never_applied_and_one_that_was_applied_stays():
    """The outcome tells whether the cancellation came in time; an unknown id is forgotten."""
    run = begun()
    early, deferred, done = run.submit(RATE), run.submit(RATE, at_step=50), run.submit(RESET)
    run.bridge.cancel(early)
    run.steps(1)
    run.bridge.cancel(done)
    run.bridge.cancel(deferred)
    run.bridge.cancel("never-sent")
    run.steps(1)
    states = [run.outcome(command_id).state for command_id in (early, deferred, done)]
    assert states == [CommandState.CANCELLED, CommandState.CANCELLED, CommandState.APPLIED]
    told = run.outcome(early).refusal
    assert told is not None
    assert told.reason == "COMMAND_CANCELLED"
    assert not run.bridge.has_mail


def test_a_stale_revision_is_rejected_when_the_command_would_take_effect():
    """Even if it was right when the command was accepted."""
    run = begun()
    revision = run.bridge.snapshot().revision
    run.submit(RATE, command_id="first", expected_revision=revision)
    run.submit(RATE, command_id="second", expected_revision=revision)
    run.steps(1)
    assert run.outcome("first").state is CommandState.APPLIED
    refusal = run.outcome("second").refusal
    assert refusal is not None
    assert refusal.reason == "STATE_CHANGED"
    assert refusal.metadata["expected"] == str(revision)


def test_commands_of_one_decision_do_not_make_each_other_stale():
    """They were decided together on one state."""
    run = begun()
    revision = run.bridge.snapshot().revision
    fields: dict[str, Any] = {"expected_revision": revision, "decision_id": "d1"}
    for name in ("a", "b", "c"):
        run.submit(RATE, command_id=name, **fields)
    run.steps(1)
    assert {run.outcome(name).state for name in ("a", "b", "c")} == {CommandState.APPLIED}
    assert [run.outcome(name).revision for name in ("a", "b", "c")] == [revision + 1, revision + 2, revision + 3]


def test_a_state_is_published_before_its_outcome():
    """Whoever reads APPLIED at a revision finds at least that revision."""
    run = begun()
    run.submit(RATE, command_id="rate")
    run.steps(1)
    kinds = [type(event).__name__ for event in run.take()]
    assert kinds.index("Outcome") > max(i for i, kind in enumerate(kinds) if kind == "Snapshot")


def test_the_daemons_own_messages_are_answered_like_commands():
    """The policy's coming and going has its outcome too."""
    run = begun()
    run.submit(PolicyPresence(False, "gone"), command_id="gone")
    run.submit(PauseCommand(), command_id="pause", at_step=10**9)
    run.steps(1)
    assert run.outcome("gone").state is CommandState.APPLIED
    run.bridge.close("STOPPING", run.trainer.dispatcher.take_waiting())
    assert run.outcome("pause").state is CommandState.REJECTED
