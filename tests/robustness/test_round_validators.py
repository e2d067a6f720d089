"""Every validator of a round passes a right one, and says what is wrong with a wrong one."""

from pathlib import Path

import pytest

from tests.robustness.rounds.events import Accepted, AuditRead, Event, Message, Notes, Opened, read_events
from tests.robustness.rounds.judgement import JUDGES, verdict
from tests.robustness.rounds.mutants import MUTANTS, Mutant, sound_round


def test_a_right_round_passes() -> None:
    """Nothing is found where nothing is wrong."""
    judged = sound_round()
    assert [line for name, judge in JUDGES.items() for line in judge(judged)] == []


@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught_by_its_validator(name: str, mutant: Mutant) -> None:
    """The one change is found by the validator that is there for it."""
    assert JUDGES[name](mutant(sound_round()))


def test_every_validator_has_a_mutant() -> None:
    """No validator stands that was never seen to fail."""
    assert {name for name, _ in MUTANTS.values()} == set(JUDGES)


def test_the_validators_of_a_history_are_asked_too() -> None:
    """NoLostCommand, NoDoubleApply and the others belong to the verdict; this history has no beginning of a run."""
    assert any(line.startswith("RunEndsOnce") for line in verdict(sound_round()))


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A round's files are all that its verdict needs."""
    events: list[Event] = [
        Opened("a.1", "state", True, ""),
        Message("a.1", "change", "00" * 24, ("run:1", "seeds:2"), 3, 1),
        Accepted("batch", ("r1", "r2"), ("c1", "c2"), 1.5, 2.5),
        AuditRead({"1": "ab"}),
    ]
    notes = Notes(tmp_path / "notes.jsonl")
    for event in events:
        notes.write(event)
    notes.close()
    assert read_events(tmp_path / "notes.jsonl") == events
