"""Wrong rounds, each made of a right one by one small change that a certain validator must notice."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from esper.leyline.v1.emergency_service_pb2 import ClearEmergencyPayload, EmergencySignal

from esperd.leyline.vocabulary import CommandState, EmergencyLevel
from esperd.oona.audit_chain import GENESIS_HASH, row_hash
from esperd.oona.records import AuditEntry
from tests.robustness.history import AuditLine, CommandRow, History, OutcomeRow
from tests.robustness.rounds.events import (
    Accepted,
    Attempt,
    AuditRead,
    AuditVerified,
    Ended,
    Event,
    Message,
    Opened,
    Replayed,
)
from tests.robustness.rounds.judgement import Round

Mutant = Callable[[Round], Round]

_APPLIED = int(CommandState.APPLIED)
_SERVICE = "/esper.leyline.v1.CommandService/"
_EMERGENCY = "/esper.leyline.v1.EmergencyService/"
_LIFE = "ab" * 16
_NEXT_LIFE = "cd" * 16
_DIGEST = "07" * 32


def sound_round() -> Round:
    """A short round in which everything holds: two readers, one of which comes back, a batch, a halt, a replay."""
    return Round(_history(), (*_state_streams(), *_command_streams(), *_calls()))


def _history() -> History:
    halt = EmergencySignal(level=4, reason="r", request_id="halt").SerializeToString()  # type: ignore[arg-type]
    clear = ClearEmergencyPayload(emergency_id="e-c4", reason="r", request_id="clear").SerializeToString()
    assert EmergencySignal.FromString(halt).level == int(EmergencyLevel.HALT)
    commands = (
        CommandRow(1, "c1", "one", _SERVICE + "SubmitCommand", "optimizer", 0),
        CommandRow(2, "c2", "two", _SERVICE + "SubmitCommands", "optimizer", 4),
        CommandRow(3, "c3", "three", _SERVICE + "SubmitCommands", "optimizer", 4),
        CommandRow(4, "c4", "halt", _EMERGENCY + "RaiseEmergency", "emergency", 8, payload=halt),
        CommandRow(9, "c5", "waits", _SERVICE + "SubmitCommand", "optimizer", 8),
        CommandRow(11, "c6", "clear", _EMERGENCY + "ClearEmergency", "emergency", 9, payload=clear),
    )
    outcomes = (
        OutcomeRow(5, "c1", _APPLIED, 3, 1, 1, 11, 0),
        OutcomeRow(6, "c2", _APPLIED, 6, 1, 2, 12, 0),
        OutcomeRow(7, "c3", _APPLIED, 6, 1, 3, 13, 0),
        OutcomeRow(8, "c4", _APPLIED, 9, 1, 4, 14, 0),
        OutcomeRow(10, "c5", _APPLIED, 9, 1, 5, 15, 0),
        OutcomeRow(12, "c6", _APPLIED, 9, 1, 6, 16, 0),
    )
    return History(commands=commands, outcomes=outcomes, audit=_chain())


def _chain() -> tuple[AuditLine, ...]:
    lines: list[AuditLine] = []
    previous = GENESIS_HASH
    for number, method in enumerate(("SubmitCommand", "SubmitCommands", "SubmitCommand"), 1):
        fields = ("policy", "key-1", "unix:", _SERVICE + method, bytes.fromhex(_DIGEST), "OK", "", 1e9 + number)
        digest = row_hash(previous, number, AuditEntry(*fields))
        lines.append(AuditLine(number, fields, previous, digest))
        previous = digest
    return tuple(lines)


def _token(revision: int, life: str = _LIFE) -> str:
    return f"{life}{revision:016x}"


def _state_streams() -> tuple[Event, ...]:
    def message(stream: str, kind: str, revision: int, life: str = _LIFE) -> Message:
        return Message(stream, kind, _token(revision, life), (f"run:{revision}",), revision, 1)

    return (
        Opened("a.1", "state", True, ""),
        message("a.1", "snapshot", 10),
        message("a.1", "change", 11),
        message("a.1", "change", 12),
        Ended("a.1", "cut"),
        Opened("a.2", "state", True, _token(12)),
        message("a.2", "change", 13),
        message("a.2", "change", 14),
        message("a.2", "bookmark", 14),
        message("a.2", "change", 15),
        message("a.2", "draining", 15),
        Ended("a.2", "ended by the daemon"),
        Opened("a.3", "state", True, _token(15)),
        message("a.3", "snapshot", 20, _NEXT_LIFE),
        Ended("a.3", "left"),
        Opened("b.1", "state", True, ""),
        message("b.1", "snapshot", 11),
        message("b.1", "change", 12),
        message("b.1", "change", 13),
        message("b.1", "change", 14),
        Ended("b.1", "left"),
    )


def _command_streams() -> tuple[Event, ...]:
    def message(revision: int, *content: str) -> Message:
        return Message("d.1", "change", _token(revision, _NEXT_LIFE), content)

    return (
        Opened("d.1", "commands", True, ""),
        message(1, "c1:1"),
        message(2, "c2:1", "c3:1"),
        message(3, "c1:2"),
        message(4, "c2:2", "c3:2"),
        message(5, "c4:2"),
        message(6, "c5:1"),
        message(7, "c5:2"),
        message(8, "c6:2"),
        Ended("d.1", "left"),
    )


def _calls() -> tuple[Event, ...]:
    rows = {str(line.number): line.row_hash.hex() for line in _chain()}
    return (
        Attempt(_SERVICE + "SubmitCommand", _DIGEST),
        Attempt(_SERVICE + "SubmitCommand", _DIGEST),
        Attempt(_SERVICE + "SubmitCommands", _DIGEST),
        Replayed(_SERVICE + "SubmitCommand", "NONCE_REPLAYED"),
        Accepted("single", ("one",), ("c1",), 0.5, 1.0),
        Accepted("batch", ("two", "three"), ("c2", "c3"), 1.5, 2.0),
        Accepted("emergency", ("halt",), (), 3.0, 3.5),
        Accepted("single", ("waits",), ("c5",), 4.0, 4.5),
        AuditRead(rows),
        AuditVerified(True, 3, rows["3"]),
    )


# Changes


def _without(judged: Round, unwanted: Callable[[Event], bool]) -> Round:
    return replace(judged, events=tuple(event for event in judged.events if not unwanted(event)))


def _with(judged: Round, change: Callable[[Event], Event]) -> Round:
    return replace(judged, events=tuple(map(change, judged.events)))


def _is_message(event: Event, stream: str, kind: str, revision: int) -> bool:
    return isinstance(event, Message) and (event.stream, event.kind, event.revision) == (stream, kind, revision)


def _swapped(judged: Round) -> Round:
    events = list(judged.events)
    first = next(i for i, event in enumerate(events) if _is_message(event, "a.1", "change", 11))
    events[first], events[first + 1] = events[first + 1], events[first]
    return replace(judged, events=tuple(events))


def _before_its_token(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, token=_token(13))
                 if isinstance(event, Opened) and event.stream == "a.2" else event)  # fmt: skip


def _told_again_after_resuming(judged: Round) -> Round:
    again = Message("a.2", "change", _token(12), ("run:12",), 12, 1)
    return replace(judged, events=_after(judged.events, "a.2", again))


def _after(events: tuple[Event, ...], stream: str, extra: Event) -> tuple[Event, ...]:
    """`extra` as the first message of a stream."""
    index = next(i for i, event in enumerate(events) if isinstance(event, Opened) and event.stream == stream)
    return (*events[: index + 1], extra, *events[index + 1 :])


def _change_left_out(judged: Round) -> Round:
    return _without(judged, lambda event: _is_message(event, "b.1", "change", 13))


def _change_lost_between_streams(judged: Round) -> Round:
    return _without(judged, lambda event: _is_message(event, "a.2", "change", 13))


def _command_never_shown(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, content=("c2:2",))
                 if isinstance(event, Message) and event.content == ("c2:2", "c3:2") else event)  # fmt: skip


def _half_a_revision(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, content=("run:11",))
                 if _is_message(event, "b.1", "change", 13) and isinstance(event, Message) else event)  # fmt: skip


def _half_a_batch(judged: Round) -> Round:
    history = judged.history
    rows = tuple(row for row in history.commands if row.command_id != "c3")
    return replace(judged, history=replace(history, commands=rows))


def _batch_in_two_changes(judged: Round) -> Round:
    halves = {("c2:1", "c3:1"): ("c2:1",), ("c1:2",): ("c3:1", "c1:2")}
    return _with(judged, lambda event: replace(event, content=halves[event.content])
                 if isinstance(event, Message) and event.content in halves else event)  # fmt: skip


def _snapshot_for_a_good_token(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, kind="snapshot")
                 if _is_message(event, "a.2", "change", 13) and isinstance(event, Message) else event)  # fmt: skip


def _change_before_its_bookmark(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, token=_token(15))
                 if _is_message(event, "a.2", "bookmark", 14) and isinstance(event, Message) else event)  # fmt: skip


def _ended_without_a_word(judged: Round) -> Round:
    return _without(judged, lambda event: _is_message(event, "a.2", "draining", 15))


def _replay_accepted(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, answer="ACCEPTED") if isinstance(event, Replayed) else event)


def _let_in_once_too_often(judged: Round) -> Round:
    events = list(judged.events)
    events.remove(Attempt(_SERVICE + "SubmitCommand", _DIGEST))
    return replace(judged, events=tuple(events))


def _later_command_overtakes(judged: Round) -> Round:
    return _outcomes(judged, {"c5": (8, 4), "c4": (9, 5)})


def _waiting_command_goes_first(judged: Round) -> Round:
    return _with(_outcomes(judged, {"c5": (9, 4), "c4": (9, 5)}), lambda event: replace(event, asked_s=2.5)
                 if isinstance(event, Accepted) and event.request_ids == ("waits",) else event)  # fmt: skip


def _moves_while_halted(judged: Round) -> Round:
    return _outcomes(judged, {"c5": (11, 5)})


def _outcomes(judged: Round, places: Mapping[str, tuple[int, int]]) -> Round:
    """Other steps and sequence numbers."""
    rows = tuple(
        replace(row, global_step=places[row.command_id][0], sequence=places[row.command_id][1])
        if row.command_id in places
        else row
        for row in judged.history.outcomes
    )
    return replace(judged, history=replace(judged.history, outcomes=rows))


def _verification_fails(judged: Round) -> Round:
    return _with(judged, lambda event: replace(event, intact=False) if isinstance(event, AuditVerified) else event)


def _another_head(judged: Round) -> Round:
    return _with(
        judged, lambda event: replace(event, head_hash="00" * 32) if isinstance(event, AuditVerified) else event
    )


def _another_row_was_read(judged: Round) -> Round:
    return _with(
        judged, lambda event: replace(event, hashes={"2": "11" * 32}) if isinstance(event, AuditRead) else event
    )


def _audit_row_changed(judged: Round) -> Round:
    first, *rest = judged.history.audit
    fields = (*first.fields[:5], "NOTHING_HAPPENED", *first.fields[6:])
    return replace(judged, history=replace(judged.history, audit=(replace(first, fields=fields), *rest)))


MUTANTS: Mapping[str, tuple[str, Mutant]] = MappingProxyType(
    {
        "two changes are swapped": ("Ordered", _swapped),
        "a stream begins before its token": ("Ordered", _before_its_token),
        "a change comes again after resuming": ("Unique", _told_again_after_resuming),
        "a change is left out": ("Reliable", _change_left_out),
        "a change is lost between two streams": ("Reliable", _change_lost_between_streams),
        "an outcome of the journal is never shown": ("Reliable", _command_never_shown),
        "a revision is shown by half": ("Atomic", _half_a_revision),
        "half a batch is accepted": ("Atomic", _half_a_batch),
        "a batch comes in two changes": ("Atomic", _batch_in_two_changes),
        "a good token brings a snapshot": ("Resumable", _snapshot_for_a_good_token),
        "a token is answered as another": ("Resumable", _before_its_token),
        "a bookmark is ahead of the changes": ("Bookmarkable", _change_before_its_bookmark),
        "a stream ends without a last message": ("Bookmarkable", _ended_without_a_word),
        "an envelope is accepted again": ("NoReplay", _replay_accepted),
        "more was let in than was signed": ("NoReplay", _let_in_once_too_often),
        "a later command overtakes an emergency": ("EmergencyPreempts", _later_command_overtakes),
        "a waiting command goes before an emergency": ("EmergencyPreempts", _waiting_command_goes_first),
        "a halted run goes on": ("EmergencyPreempts", _moves_while_halted),
        "a verification of the audit log fails": ("AuditChain", _verification_fails),
        "the audit log has another head": ("AuditChain", _another_head),
        "a reader of the audit log saw another row": ("AuditChain", _another_row_was_read),
        "an audit row was changed": ("AuditChain", _audit_row_changed),
    }
)
"""What is wrong, the validator that must say so, and how to make it."""
