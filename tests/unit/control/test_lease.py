"""The lease as a pure state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.control.lease import LeaseTable, Presence
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import LeaseMode


def steering(max_missed: int = 3) -> LeaseTable:
    table = LeaseTable(max_missed)
    table.open("a", LeaseMode.STEER, "alice")
    return table


def reason(refused: "pytest.ExceptionInfo[EsperdError]") -> str:
    return refused.value.reason


def test_one_steers_and_any_number_advise() -> None:
    """The lease is one; advisers need none."""
    table = LeaseTable(3)
    assert table.open("a", LeaseMode.STEER, "alice") == Presence(True, "alice took the lease")
    with pytest.raises(EsperdError) as refused:
        table.open("b", LeaseMode.STEER, "bob")
    assert reason(refused) == "LEASE_TAKEN"
    assert table.open("c", LeaseMode.ADVISE, "carol") is None
    assert table.open("d", LeaseMode.ADVISE, "carol") is None
    assert table.holder_principal == "alice"


def test_the_lease_ends_with_its_session() -> None:
    """Closing the steering session frees the lease; closing an adviser's, or a session twice, changes nothing."""
    table = steering()
    table.open("c", LeaseMode.ADVISE, "carol")
    assert table.close("c", "left") is None
    assert table.close("a", "left") == Presence(False, "left")
    assert table.close("a", "left") is None
    assert table.holder_principal == ""


def test_one_question_at_a_time() -> None:
    """While an answer is outstanding no other is asked for."""
    table = steering()
    assert table.ask("a", "d1", 2.0)
    assert not table.ask("a", "d2", 3.0)
    assert table.answer("a", "d1", 1.0) is None
    assert table.ask("a", "d2", 3.0)


def test_late_and_old_answers_are_stale() -> None:
    """After the deadline, for another packet, or a second time."""
    table = steering()
    table.ask("a", "d1", 2.0)
    for decision_id, now_s in (("d0", 1.0), ("", 1.0), ("d1", 2.1)):
        with pytest.raises(EsperdError) as refused:
            table.answer("a", decision_id, now_s)
        assert reason(refused) == "DECISION_STALE"
    table.answer("a", "d1", 2.0)
    with pytest.raises(EsperdError):
        table.answer("a", "d1", 2.0)


def test_three_missed_in_a_row_lose_the_lease() -> None:
    """A timely answer starts the count anew."""
    table = steering()
    for decision, answers in (("d1", False), ("d2", False), ("d3", True), ("d4", False), ("d5", False)):
        table.ask("a", decision, 1.0)
        if answers:
            table.answer("a", decision, 0.5)
        else:
            assert table.expire(1.1) == (["a"], [])
    table.ask("a", "d6", 1.0)
    (late, (presence,)) = table.expire(1.1)
    assert late == ["a"]
    assert (presence.present, presence.num_missed) == (False, 3)
    assert table.holder_principal == ""


def test_a_timely_answer_takes_a_vacant_lease_back() -> None:
    """Who only went silent need not open a new session."""
    table = steering(max_missed=1)
    table.ask("a", "d1", 1.0)
    table.expire(1.1)
    table.ask("a", "d2", 2.0)
    assert table.answer("a", "d2", 1.5) == Presence(True, "alice answers again")


def test_a_lost_lease_that_another_took_stays_lost() -> None:
    """The first policy's decisions are refused while the second steers."""
    table = steering(max_missed=1)
    table.ask("a", "d1", 1.0)
    table.expire(1.1)
    table.open("b", LeaseMode.STEER, "bob")
    table.ask("a", "d2", 2.0)
    with pytest.raises(EsperdError) as refused:
        table.answer("a", "d2", 1.5)
    assert reason(refused) == "LEASE_LOST"
    assert table.close("a", "left") is None
    assert table.holder_principal == "bob"


def test_rubbish_counts_like_silence() -> None:
    """Answers that cannot be used lose the lease as missed deadlines do."""
    table = steering(max_missed=2)
    table.ask("a", "d1", 1.0)
    assert table.spoil("a") is None
    table.ask("a", "d2", 2.0)
    presence = table.spoil("a")
    assert presence is not None
    assert (presence.present, presence.num_missed) == (False, 2)


steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "advise", "close", "ask", "answer", "late", "expire", "spoil"]), st.sampled_from("ab")
    ),
    max_size=40,
)


@given(steps)
def test_the_trainer_is_told_alternately(walk: list[tuple[str, str]]) -> None:
    """Whatever happens, presence is told on and off in turn, and agrees with who holds the lease."""
    table, sessions, told, number = LeaseTable(2), set[str](), list[Presence](), 0
    for action, name in walk:
        number += 1
        presence: Presence | None = None
        try:
            if action in ("open", "advise") and name not in sessions:
                mode = LeaseMode.STEER if action == "open" else LeaseMode.ADVISE
                presence = table.open(name, mode, name)
                sessions.add(name)
            elif name in sessions and action == "close":
                presence = table.close(name, "left")
                sessions.discard(name)
            elif name in sessions and action == "ask":
                table.ask(name, f"d-{name}", number + 2.0)
            elif name in sessions and action in ("answer", "late"):
                presence = table.answer(name, f"d-{name}", number + (100.0 if action == "late" else 0.0))
            elif name in sessions and action == "spoil":
                presence = table.spoil(name)
            elif action == "expire":
                told += table.expire(float(number))[1]
        except EsperdError:
            continue
        if presence is not None:
            told.append(presence)
    assert [presence.present for presence in told] == [i % 2 == 0 for i in range(len(told))]
    assert bool(table.holder_principal) == (bool(told) and told[-1].present)
