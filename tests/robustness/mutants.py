"""Wrong histories, each made of a right one by one small change that a certain validator must notice.

A mutant takes any recorded history that is long enough: the one of `sound_history`, or one that a daemon has written.
"""

from collections.abc import Callable
from dataclasses import replace

from esperd.leyline.vocabulary import CommandState, Operation
from esperd.oona.audit_chain import GENESIS_HASH, row_hash
from esperd.oona.records import AuditEntry
from tests.robustness.history import (
    Answer,
    AuditLine,
    CommandRow,
    History,
    NoticeRow,
    OutcomeRow,
    Sighting,
    TimelineRow,
    Told,
    TransitionRow,
)

Mutant = Callable[[History], History]
_APPLIED = int(CommandState.APPLIED)
_SUBMIT = "/esper.leyline.v1.CommandService/SubmitCommand"


def _answered_command_is_gone(history: History) -> History:
    name = history.answers[0].request_id
    return replace(history, commands=tuple(row for row in history.commands if row.request_id != name))


def _accepted_under_another_id(history: History) -> History:
    row, *rest = history.commands
    return replace(
        history,
        commands=(replace(row, command_id="another"), *rest),
        outcomes=tuple(
            replace(one, command_id="another") if one.command_id == row.command_id else one for one in history.outcomes
        ),
        answers=(*history.answers, Answer(row.request_id, row.command_id)),
    )


def _no_outcome(history: History) -> History:
    return replace(history, outcomes=history.outcomes[:-1], told=())


def _two_outcomes(history: History) -> History:
    last = history.outcomes[-1]
    return replace(history, outcomes=(*history.outcomes, replace(last, sequence=last.sequence + 1)))


def _not_final(history: History) -> History:
    first, *rest = history.outcomes
    return replace(history, outcomes=(replace(first, state=int(CommandState.ACCEPTED)), *rest), told=())


def _told_otherwise(history: History) -> History:
    row = history.outcomes[0]
    return replace(history, told=(*history.told, Told(row.command_id, row.state, row.global_step + 7)))


def _sequence_again(history: History) -> History:
    numbered = [row for row in history.outcomes if row.sequence]
    last = numbered[-1]
    return replace(
        history,
        outcomes=tuple(
            replace(row, sequence=numbered[-2].sequence) if row is last else row for row in history.outcomes
        ),
    )


def _sequence_left_out(history: History) -> History:
    rows = [row for row in history.outcomes if row.sequence]
    return replace(
        history,
        outcomes=tuple(replace(row, sequence=row.sequence + 1) if row is rows[-1] else row for row in history.outcomes),
    )


def _germinated_twice(history: History) -> History:
    born = next(row for row in history.transitions if row.target == "GERMINATED")
    twin = replace(born, seed_id=99)
    return replace(history, transitions=(*history.transitions, twin))


def _refused_but_done(history: History) -> History:
    born = next(row for row in history.transitions if row.target == "GERMINATED")
    return replace(
        history,
        outcomes=tuple(
            replace(row, state=int(CommandState.REJECTED)) if row.command_id == born.cause else row
            for row in history.outcomes
        ),
    )


def _rolled_back_twice(history: History) -> History:
    last = history.timelines[-1]
    return replace(history, timelines=(*history.timelines, replace(last, timeline=last.timeline + 1)))


def _revision_again(history: History) -> History:
    applied = [row for row in history.outcomes if row.state == _APPLIED and row.sequence]
    return replace(
        history,
        outcomes=tuple(
            replace(row, revision=applied[-2].revision) if row is applied[-1] else row for row in history.outcomes
        ),
    )


def _seen_going_back(history: History) -> History:
    last = history.sightings[-1]
    return replace(history, sightings=(*history.sightings, replace(last, revision=last.revision - 1)))


def _restart_begins_anew(history: History) -> History:
    last = history.sightings[-1]
    return replace(history, sightings=(*history.sightings, replace(last, start=last.start + 1)))


def _one_step_late(history: History) -> History:
    dated = {row.command_id for row in history.commands if row.apply_at_step > row.accepted_step}
    late = next(row for row in history.outcomes if row.command_id in dated and row.state == _APPLIED)
    return replace(
        history,
        outcomes=tuple(
            replace(row, global_step=row.global_step + 1) if row is late else row for row in history.outcomes
        ),
    )


def _one_step_early(history: History) -> History:
    dated = {row.command_id for row in history.commands if row.apply_at_step > row.accepted_step}
    early = next(row for row in reversed(history.outcomes) if row.command_id in dated and row.state == _APPLIED)
    return replace(
        history,
        outcomes=tuple(
            replace(row, global_step=row.global_step - 1) if row is early else row for row in history.outcomes
        ),
    )


def _stage_left_out(history: History) -> History:
    followed = {(row.timeline, row.seed_id, row.source) for row in history.transitions}
    middle = next(row for row in history.transitions if (row.timeline, row.seed_id, row.target) in followed)
    return replace(history, transitions=tuple(row for row in history.transitions if row is not middle))


def _stage_told_twice(history: History) -> History:
    index = next(i for i, row in enumerate(history.transitions) if row.target == "TRAINING")
    row = history.transitions[index]
    return replace(history, transitions=(*history.transitions[: index + 1], row, *history.transitions[index + 1 :]))


def _illegal_step(history: History) -> History:
    row, *rest = history.transitions
    return replace(history, transitions=(replace(row, target="FOSSILIZED"), *rest))


def _orphan_timeline(history: History) -> History:
    first, *rest = history.timelines
    return replace(history, timelines=(replace(first, parent=77), *rest))


def _fork_beyond_the_parent(history: History) -> History:
    first, *rest = history.timelines
    return replace(history, timelines=(replace(first, fork_step=10**6), *rest))


def _number_left_out(history: History) -> History:
    *rest, last = history.timelines
    return replace(history, timelines=(*rest, replace(last, timeline=last.timeline + 1)))


def _life_in_a_timeline_left(history: History) -> History:
    last = [row for row in history.outcomes if row.sequence][-1]
    return replace(
        history,
        outcomes=tuple(replace(row, timeline=1) if row is last else row for row in history.outcomes),
    )


def _audit_row_changed(history: History) -> History:
    first, *rest = history.audit
    words = list(first.fields)
    words[5] = "NOTHING_HAPPENED"
    return replace(history, audit=(replace(first, fields=tuple(words)), *rest))  # type: ignore[arg-type]  # same fields


def _audit_row_removed(history: History) -> History:
    return replace(history, audit=history.audit[:1] + history.audit[2:])


def _began_twice(history: History) -> History:
    return replace(history, runs={**history.runs, "run_started": 2})


def _finished_twice(history: History) -> History:
    return replace(history, runs={**history.runs, "run_finished": 2})


def _went_another_way(history: History) -> History:
    notice = NoticeRow(10**6, "replay.diverged", "it was APPLIED", "critical", 5, 1)
    return replace(history, notices=(*history.notices, notice))


MUTANTS: dict[str, tuple[str, Mutant]] = {
    "an answered command has no row": ("NoLostCommand", _answered_command_is_gone),
    "a command is there under another id": ("NoLostCommand", _accepted_under_another_id),
    "a command has no outcome": ("ExactlyOneOutcome", _no_outcome),
    "a command has two outcomes": ("ExactlyOneOutcome", _two_outcomes),
    "an outcome is not final": ("ExactlyOneOutcome", _not_final),
    "a client was told another outcome": ("ExactlyOneOutcome", _told_otherwise),
    "a sequence number comes twice": ("NoDoubleApply", _sequence_again),
    "an outcome has no row": ("NoDoubleApply", _sequence_left_out),
    "one command germinates two seeds": ("NoDoubleApply", _germinated_twice),
    "a refused command has an effect": ("NoDoubleApply", _refused_but_done),
    "one command rolls back twice": ("NoDoubleApply", _rolled_back_twice),
    "two applied commands share a revision": ("RevisionsIncrease", _revision_again),
    "a client sees the revision go back": ("RevisionsIncrease", _seen_going_back),
    "a restart shows a revision again": ("RevisionsIncrease", _restart_begins_anew),
    "a dated command is a step late": ("KeepsItsStep", _one_step_late),
    "a dated command is a step early": ("KeepsItsStep", _one_step_early),
    "a stage is left out": ("StoryIsWhole", _stage_left_out),
    "a transition is told twice": ("StoryIsWhole", _stage_told_twice),
    "a step is not in the lifecycle": ("StoryIsWhole", _illegal_step),
    "a timeline has no parent": ("TimelinesFork", _orphan_timeline),
    "a fork lies beyond its parent": ("TimelinesFork", _fork_beyond_the_parent),
    "a timeline's number is left out": ("TimelinesFork", _number_left_out),
    "something happens in a timeline that was left": ("TimelinesFork", _life_in_a_timeline_left),
    "an audit row was changed": ("AuditChain", _audit_row_changed),
    "an audit row was removed": ("AuditChain", _audit_row_removed),
    "the run begins twice": ("RunEndsOnce", _began_twice),
    "the run finishes twice": ("RunEndsOnce", _finished_twice),
    "a replay goes another way": ("ReplayAgrees", _went_another_way),
}
"""What is wrong, the validator that must say so, and how to make it."""


def sound_history() -> History:
    """A short history in which everything holds: a seed, a rollback that removes its training, a restart."""
    commands = (
        CommandRow(1, "c1", "germinate", _SUBMIT, "seed", 0, 8, int(Operation.GERMINATE)),
        CommandRow(2, "c2", "train", _SUBMIT, "seed", 0, 12, int(Operation.START_TRAINING)),
        CommandRow(3, "c3", "rate", _SUBMIT, "optimizer", 0, 14),
        CommandRow(4, "c4", "back", _SUBMIT, "rollback", 0, 20),
        CommandRow(5, "c5", "never", _SUBMIT, "optimizer", 0, 900),
        CommandRow(6, "c6", "pause", _SUBMIT, "pause", 11, 16),
        CommandRow(7, "c7", "resume", _SUBMIT, "resume", 16),
    )
    outcomes = (
        OutcomeRow(10, "c1", _APPLIED, 8, 1, 1, 11, 1),
        OutcomeRow(12, "c2", _APPLIED, 12, 1, 2, 14, 1),
        OutcomeRow(14, "c5", int(CommandState.CANCELLED), 13, 1, 3, 14, 0, "COMMAND_CANCELLED"),
        OutcomeRow(15, "c3", _APPLIED, 14, 1, 4, 15, 0),
        OutcomeRow(17, "c4", _APPLIED, 20, 1, 5, 1_000_001, 0),
        OutcomeRow(18, "c6", _APPLIED, 16, 2, 6, 1_000_009, 0),
        OutcomeRow(21, "c7", _APPLIED, 16, 2, 7, 1_000_011, 0),
    )
    transitions = (
        TransitionRow(9, 1, "DORMANT", "GERMINATED", 8, 1, "c1"),
        TransitionRow(11, 1, "GERMINATED", "TRAINING", 12, 1, "c2"),
        TransitionRow(19, 1, "GERMINATED", "TRAINING", 30, 2, "auto"),
        TransitionRow(20, 1, "TRAINING", "BLENDING", 50, 2, "auto"),
    )
    return History(
        commands=commands,
        outcomes=outcomes,
        transitions=transitions,
        timelines=(TimelineRow(16, 2, 1, 10, 20, "c4"),),
        audit=_chain(3),
        runs={"run_started": 1, "run_resumed": 1, "run_finished": 1},
        answers=tuple(Answer(row.request_id, row.command_id) for row in commands),
        told=(Told("c1", _APPLIED, 8),),
        sightings=(Sighting(1, 3, 1, 5), Sighting(1, 14, 1, 13), Sighting(2, 1_000_000, 1, 10)),
    )


def _chain(num_rows: int) -> tuple[AuditLine, ...]:
    lines, previous = [], GENESIS_HASH
    for number in range(1, num_rows + 1):
        fields = ("operator", "operator-1", "unix:", _SUBMIT, bytes(32), "OK", "", 1e9 + number)
        digest = row_hash(previous, number, AuditEntry(*fields))
        lines.append(AuditLine(number, fields, previous, digest))
        previous = digest
    return tuple(lines)
