"""The ladder of answers to anomalies: skip, go back, go back without the data, halt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.tolaria.emergency import ANOMALIES_IN_ROW, LossAnomaly
from esperd.tolaria.recovery import LOSS_ANOMALY, NON_FINITE, POISONED, Action, Answer, Recovery, RecoveryRule

WINDOW = 50
NONE, SKIP, BACK, HALT = Answer


def new(max_rollbacks: int = 3) -> Recovery:
    return Recovery(RecoveryRule(max_rollbacks, WINDOW))


def not_finite(in_row: int) -> LossAnomaly:
    return LossAnomaly(in_row, in_row, "the loss is nan", in_row)


def high(in_row: int) -> LossAnomaly:
    return LossAnomaly(in_row, 0, "the loss is 50", in_row)


def trouble(recovery: Recovery, step: int, *, has_good_state: bool = True) -> Action:
    """As many losses as it takes; the answer to the last one."""
    return recovery.anomaly(not_finite(ANOMALIES_IN_ROW), step, has_good_state=has_good_state)


def test_a_single_loss_that_is_not_finite_costs_its_step_and_no_more():
    """A rollback would only meet the same batch again; a single high loss costs nothing at all."""
    recovery = new()
    for in_row in range(1, ANOMALIES_IN_ROW):
        assert recovery.anomaly(not_finite(in_row), 100, has_good_state=True).answer is SKIP
        assert recovery.anomaly(high(in_row), 100, has_good_state=True).answer is NONE


@pytest.mark.parametrize(
    ("kind", "cause", "at_last"),
    [(high, LOSS_ANOMALY, Answer.NONE), (not_finite, NON_FINITE, Answer.HALT)],
)
def test_anomalies_in_a_row_go_back_then_without_the_data_then_halt(kind, cause, at_last):  # type: ignore[no-untyped-def]
    """The same trouble again climbs the ladder by one rung; a finite loss never halts, since it may come down."""
    recovery = new()
    seen = [recovery.anomaly(kind(ANOMALIES_IN_ROW), step, has_good_state=True) for step in (100, 100, 70)]
    assert [(a.answer, a.cause, a.leaves_out_data) for a in seen] == [
        (BACK, cause, False),
        (BACK, cause, True),
        (at_last, cause, False),
    ]
    assert "rollback did not cure it" in seen[-1].detail


def test_trouble_far_later_is_another_trouble():
    """Beyond the window after the first, the data are not to blame: back without leaving any out."""
    recovery = new()
    trouble(recovery, 100)
    assert trouble(recovery, 100 + WINDOW).leaves_out_data
    recovery = new()
    trouble(recovery, 100)
    assert not trouble(recovery, 101 + WINDOW).leaves_out_data


def test_rollbacks_without_a_good_state_past_the_trouble_are_counted():
    """However far apart the troubles are: the run goes back more than it goes on."""
    recovery = new(max_rollbacks=2)
    assert [trouble(recovery, step).answer for step in (100, 200, 300)] == [BACK, BACK, HALT]


def test_a_good_state_past_the_trouble_ends_it_and_one_before_it_does_not():
    """Only what went well where it went wrong shows a cure."""
    recovery = new()
    trouble(recovery, 100)
    recovery.good_state(90)
    assert recovery.state.trouble_step == 100
    recovery.good_state(101)
    assert trouble(recovery, 110) == Action(BACK, NON_FINITE, "the loss is nan")


def test_without_a_good_state_high_losses_go_on_and_others_halt():
    """A high loss trains on under L3; what is not finite cannot."""
    assert new().anomaly(high(ANOMALIES_IN_ROW), 10, has_good_state=False).answer is NONE
    assert trouble(new(), 10, has_good_state=False).answer is HALT
    assert new().poisoned(10, has_good_state=False).answer is HALT


def test_poisoned_weights_go_back_at_once():
    """No step that is skipped mends them."""
    assert new().poisoned(10, has_good_state=True) == Action(BACK, POISONED, "parameters are not finite")


def test_a_rollback_that_failed_halts():
    """A missed deadline or a damaged file is for people to look at."""
    recovery = new()
    trouble(recovery, 100)
    action = recovery.rollback_failed("the state could not be read within 12 s")
    assert (action.answer, action.detail) == (HALT, "the state could not be read within 12 s")


def test_after_a_halt_the_ladder_begins_at_its_foot():
    """Whoever clears the halt has looked, and wants the run to try again."""
    recovery = new()
    for _ in range(2):
        assert [trouble(recovery, 100).answer for _ in range(3)] == [BACK, BACK, HALT]


def test_an_epoch_in_which_the_run_went_back_has_failed():
    """Told once; the next epoch begins clean."""
    recovery = new()
    assert not recovery.epoch_ended()
    trouble(recovery, 100)
    recovery.good_state(200)
    assert recovery.epoch_ended()
    assert not recovery.epoch_ended()


TROUBLES = st.lists(
    st.tuples(st.integers(0, 400), st.booleans(), st.integers(1, 5), st.booleans(), st.integers(-1, 400)), max_size=30
)


@given(TROUBLES, st.integers(0, 30))
def test_a_resumed_ladder_goes_on_as_if_nothing_had_happened(troubles: list[tuple[int, ...]], cut: int):
    """Through JSON at any moment; and it halts at the latest after the allowed number of rollbacks."""

    def live(recovery: Recovery, events: list[tuple[int, ...]]) -> list[Action]:
        actions = []
        for step, is_finite, in_row, has_good_state, good_step in events:
            anomaly = high(in_row) if is_finite else not_finite(in_row)
            actions.append(recovery.anomaly(anomaly, step, has_good_state=bool(has_good_state)))
            if good_step >= 0:
                recovery.good_state(good_step)
        return actions

    whole = live(new(), troubles)
    first, second = new(), new()
    head = live(first, troubles[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert head + live(second, troubles[cut:]) == whole
    without_good = live(new(), [(*event[:4], -1) for event in troubles])
    in_row = 0
    for action in without_good:
        in_row = in_row + 1 if action.answer is BACK else 0 if action.answer is HALT else in_row
        assert in_row <= 3
