"""What must hold of every round: pure functions from the journal's history and the clients' notes to what is wrong.

Each returns one line for each violation, so an empty tuple is a pass. Those for the journal alone are in
`tests/robustness/validators.py`. `test_round_validators.py` shows for each a wrong round that it catches.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from esper.leyline.v1.emergency_service_pb2 import ClearEmergencyPayload, EmergencySignal

from esperd.leyline.vocabulary import CommandState, EmergencyLevel
from esperd.weatherlight.picking import REVISION_BLOCK
from tests.robustness.history import Answer, CommandRow, History, OutcomeRow, Sighting, Told
from tests.robustness.rounds.events import (
    Accepted,
    Attempt,
    AuditRead,
    AuditVerified,
    Ended,
    Event,
    Message,
    Opened,
    Outcome,
    Replayed,
    Seen,
    of_kind,
)
from tests.robustness.validators import VALIDATORS, Violations

_APPLIED = int(CommandState.APPLIED)
_RAISE = "/esper.leyline.v1.EmergencyService/RaiseEmergency"
_CLEAR = "/esper.leyline.v1.EmergencyService/ClearEmergency"
_DAEMON = "daemon"
"""Method of what the daemon itself tells the trainer, which has the emergencies' lane too."""
_STANDING_KINDS = ("pause", "emergency")


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a watch, from its opening to its end."""

    opened: Opened
    messages: tuple[Message, ...]
    """All of one epoch, unless something is very wrong."""
    end: str

    @property
    def start(self) -> int | None:
        """After which revision the reader knows all; None when that is not known."""
        if not self.messages:
            return None
        first = self.messages[0]
        if first.kind == "snapshot":
            return first.revision
        is_resumed = self.opened.token[:-16] == first.epoch
        return int(self.opened.token[-16:], 16) if is_resumed else first.revision - (first.kind == "change")

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.opened.feed} {self.opened.stream}"


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that is known of one round."""

    history: History
    events: tuple[Event, ...]

    def streams(self, feed: str = "") -> Iterator[Stream]:
        """Every stream, of one feed if it is named, in the order in which each reader had them."""
        messages: defaultdict[str, list[Message]] = defaultdict(list)
        for message in of_kind(Message, self.events):
            messages[message.stream].append(message)
        ends = {event.stream: event.reason for event in of_kind(Ended, self.events)}
        for opened in of_kind(Opened, self.events):
            if feed in ("", opened.feed):
                yield Stream(opened, tuple(messages[opened.stream]), ends.get(opened.stream, ""))

    def with_answers(self) -> History:
        """The history with what the clients say, for the validators of a history."""
        accepted = of_kind(Accepted, self.events)
        answers = [
            Answer(request_id, command_id)
            for event in accepted
            if event.durable
            for request_id, command_id in zip(
                event.request_ids, event.command_ids or ("",) * len(event.request_ids), strict=True
            )
        ]
        told = [Told(event.command_id, event.state, event.global_step) for event in of_kind(Outcome, self.events)]
        seen = [Sighting(event.start, event.revision, event.timeline, event.global_step)
                for event in of_kind(Seen, self.events)]  # fmt: skip
        return replace(self.history, answers=tuple(answers), told=tuple(told), sightings=tuple(seen))


Judge = Callable[[Round], Violations]


# The six promises of a watch


def ordered(judged: Round) -> Violations:
    """Ordered: within a stream revisions rise, and none lies before the token that it was resumed from."""
    wrong = []
    for stream in judged.streams():
        for earlier, later in pairwise(stream.messages):
            is_back = later.revision < earlier.revision or later.epoch != earlier.epoch
            is_twice = later.kind == "change" and later.revision == earlier.revision
            if is_back or is_twice:
                wrong.append(f"{stream.name}: {later} after {earlier}")
        first = next(iter(stream.messages), None)
        if first is not None and first.revision < (stream.start or 0) + (first.kind == "change"):
            wrong.append(f"{stream.name}: resumed after {stream.start}, begins with {first}")
    return tuple(wrong)


def unique(judged: Round) -> Violations:
    """Unique: no reader gets a change twice, over all streams that it resumed."""
    wrong = []
    for reader, streams in _by_reader(judged):
        known: set[tuple[str, int]] = set()
        for stream in streams:
            if not stream.opened.token:
                known.clear()
            for message in stream.messages:
                place = (message.epoch, message.revision)
                if message.kind == "change" and place in known:
                    wrong.append(f"{reader}: revision {message.revision} a second time in {stream.name}")
                if message.kind == "snapshot":
                    known.clear()
                known.add(place)
    return tuple(wrong)


def reliable(judged: Round) -> Violations:
    """Reliable: a reader of every change has every change between its first and its last revision.

    What there was comes from all readers together, and for commands from the journal too.
    """
    wrong = []
    for feed in ("state", "commands"):
        there_was: defaultdict[str, set[int]] = defaultdict(set)
        for stream in judged.streams(feed):
            for message in stream.messages:
                if message.kind == "change" and stream.opened.every:
                    there_was[message.epoch].add(message.revision)
        for stream in judged.streams(feed):
            if not stream.opened.every or stream.start is None:
                continue
            got = {message.revision for message in stream.messages if message.kind == "change"}
            last = stream.messages[-1].revision
            missing = {one for one in there_was[stream.messages[0].epoch] if stream.start < one <= last} - got
            if missing:
                wrong.append(f"{stream.name}: {sorted(missing)[:5]} are missing up to {last}")
    return (*wrong, *_missing_commands(judged))


def atomic(judged: Round) -> Violations:
    """Atomic: who is at a revision holds its whole state; a batch is accepted in one change, or not at all."""
    wrong = []
    states: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for stream in judged.streams():
        for message in stream.messages:
            if not message.content or (stream.opened.feed == "commands" and message.kind != "change"):
                continue
            place = (stream.opened.feed, message.epoch, message.revision)
            held = states.setdefault(place, message.content)
            if held != message.content:
                differing = sorted(set(message.content) ^ set(held))
                wrong.append(f"{stream.name}: {message.kind} {message.revision} is not what others have: {differing}")
    known = {row.request_id for row in judged.history.commands}
    for event in of_kind(Accepted, judged.events):
        found = [name for name in event.request_ids if name in known]
        if event.way == "batch" and len(found) not in (0, len(event.request_ids)):
            wrong.append(f"of a batch only {found} are there: {event.request_ids}")
    return (*wrong, *_torn_batches(judged))


def resumable(judged: Round) -> Violations:
    """Resumable: a stream that goes on from a token of this life of the feed begins right after it, or says why not."""
    wrong = []
    for stream in judged.streams():
        first = next(iter(stream.messages), None)
        if not stream.opened.token or first is None or first.kind != "snapshot":
            continue
        if stream.opened.token[:-16] == first.epoch:
            wrong.append(f"{stream.name}: {first} though it had a token of the same life")
    for reader, streams in _by_reader(judged):
        for earlier, later in pairwise(streams):
            if not later.opened.token or not earlier.messages:
                continue
            if later.opened.token != earlier.messages[-1].token:
                wrong.append(f"{reader}: {later.name} has another token than the last message gave")
    return tuple(wrong)


def bookmarkable(judged: Round) -> Violations:
    """Bookmarkable: after a message that names a revision nothing at or before that revision comes any more."""
    wrong = []
    for stream in judged.streams():
        marked = 0
        for message in stream.messages:
            if message.kind == "change" and message.revision <= marked:
                wrong.append(f"{stream.name}: revision {message.revision} after a bookmark at {marked}")
            if message.kind in ("bookmark", "draining"):
                marked = max(marked, message.revision)
        if stream.end == "ended by the daemon" and (not stream.messages or stream.messages[-1].kind != "draining"):
            wrong.append(f"{stream.name}: the daemon ended it without a word")
    return tuple(wrong)


# Commands and emergencies


def no_replay(judged: Round) -> Violations:
    """NoReplay: no envelope is accepted twice, whoever sends it again."""
    wrong = [f"accepted once more: {event}" for event in of_kind(Replayed, judged.events) if event.answer == "ACCEPTED"]
    signed = Counter((event.method, event.payload_sha256) for event in of_kind(Attempt, judged.events))
    let_in = Counter((line.fields[3], line.fields[4].hex()) for line in judged.history.audit if line.fields[5] == "OK")
    wrong += [f"{method} {digest[:12]}: accepted {number} times, signed {signed[method, digest]} times"
              for (method, digest), number in let_in.items()
              if (method, digest) in signed and number > signed[method, digest]]  # fmt: skip
    return tuple(wrong)


def emergency_preempts(judged: Round) -> Violations:
    """EmergencyPreempts: an emergency goes before what was asked after it, and before what waits at its safe point.

    A run that an emergency halts stays at that step until it is cleared.
    """
    history = judged.history
    outcomes = {row.command_id: row for row in history.outcomes if row.sequence}
    rows = {row.request_id: row for row in history.commands if row.request_id}
    asked = {name: event for event in of_kind(Accepted, judged.events) for name in event.request_ids}
    wrong: list[str] = []
    for name, row in rows.items():
        outcome = outcomes.get(row.command_id)
        if row.method != _RAISE or outcome is None or outcome.state != _APPLIED:
            continue
        if name in asked:
            wrong += _overtaken_by_later(asked[name], outcome, asked.values(), rows, outcomes)
        wrong += _overtaken_at_its_step(name, outcome, history)
        wrong += _moved_while_halted(row, outcome, history)
    return tuple(wrong)


def audit_chain(judged: Round) -> Violations:
    """AuditChain: the rows hash each other, readers were shown those rows, and no verification failed."""
    wrong = [f"a verification failed: {event}" for event in of_kind(AuditVerified, judged.events) if not event.intact]
    hashes = {str(line.number): line.row_hash.hex() for line in judged.history.audit}
    wrong += [f"row {event.num_entries} has another hash than {event.head_hash[:12]}"
              for event in of_kind(AuditVerified, judged.events)
              if event.num_entries and hashes.get(str(event.num_entries)) != event.head_hash]  # fmt: skip
    for page in of_kind(AuditRead, judged.events):
        wrong += [f"row {number} was read with another hash" for number, digest in page.hashes.items()
                  if hashes.get(number) != digest]  # fmt: skip
    return (*VALIDATORS["AuditChain"](judged.history), *wrong)


JUDGES: Mapping[str, Judge] = MappingProxyType(
    {
        "Ordered": ordered,
        "Unique": unique,
        "Reliable": reliable,
        "Atomic": atomic,
        "Resumable": resumable,
        "Bookmarkable": bookmarkable,
        "NoReplay": no_replay,
        "EmergencyPreempts": emergency_preempts,
        "AuditChain": audit_chain,
    }
)
"""Every validator of a round. NoLostCommand, NoDoubleApply and the others of a history come on top."""


def verdict(judged: Round) -> Violations:
    """What is wrong, each line with its validator's name."""
    history = judged.with_answers()
    of_history = [f"{name}: {line}" for name, validator in VALIDATORS.items() if name not in JUDGES
                  for line in validator(history)]  # fmt: skip
    return (*of_history, *(f"{name}: {line}" for name, judge in JUDGES.items() for line in judge(judged)))


def _by_reader(judged: Round) -> Iterator[tuple[str, list[Stream]]]:
    readers: defaultdict[str, list[Stream]] = defaultdict(list)
    for stream in judged.streams():
        readers[stream.opened.stream.rpartition(".")[0]].append(stream)
    yield from readers.items()


def _missing_commands(judged: Round) -> Iterator[str]:
    """Rows of the journal between the first and the last that a stream told of must all be among those it told of."""
    accepted = {row.command_id: row.place for row in judged.history.commands if row.method != _RAISE}
    settled = {row.command_id: row.place for row in judged.history.outcomes}
    for stream in judged.streams("commands"):
        told = [one.rpartition(":") for message in stream.messages for one in message.content]
        for what, places, found in (
            ("acceptance", accepted, {name for name, _, state in told if state == "1"}),
            ("outcome", settled, {name for name, _, state in told if state != "1"}),
        ):
            shown = [places[name] for name in found if name in places]
            if not shown or not stream.opened.every:
                continue
            missing = [name for name, place in places.items() if min(shown) < place < max(shown) and name not in found]
            if missing:
                yield f"{stream.name}: no {what} of {missing[:5]}"


def _torn_batches(judged: Round) -> Iterator[str]:
    """The acceptances of a batch come in one message."""
    batches = {name: number for number, event in enumerate(of_kind(Accepted, judged.events)) if event.way == "batch"
               for name in event.command_ids}  # fmt: skip
    for stream in judged.streams("commands"):
        homes: defaultdict[int, set[int]] = defaultdict(set)
        for message in stream.messages:
            for one in message.content:
                name, _, state = one.rpartition(":")
                if state == "1" and name in batches:
                    homes[batches[name]].add(message.revision)
        yield from (f"{stream.name}: one batch in revisions {sorted(found)}" for found in homes.values()
                    if len(found) > 1)  # fmt: skip


def _overtaken_by_later(
    raised: Accepted,
    outcome: OutcomeRow,
    answers: Iterable[Accepted],
    rows: Mapping[str, CommandRow],
    outcomes: Mapping[str, OutcomeRow],
) -> Iterator[str]:
    for event in answers:
        if event.asked_s <= raised.answered_s:
            continue
        for name in event.request_ids:
            other = outcomes.get(rows[name].command_id) if name in rows else None
            if other is not None and other.sequence < outcome.sequence:
                yield f"{name} was asked after {raised.request_ids[0]} was answered, and took effect before it"


def _overtaken_at_its_step(name: str, outcome: OutcomeRow, history: History) -> Iterator[str]:
    """At a running trainer's safe point nothing that clients have asked for goes before an emergency."""
    kinds = {row.command_id: row.kind for row in history.commands if row.method != _DAEMON}
    here = [row for row in history.outcomes if row.command_id in kinds and 0 < row.sequence < outcome.sequence
            and (row.timeline, row.global_step) == (outcome.timeline, outcome.global_step)]  # fmt: skip
    # A run that stands there already has carried out commands at this step before the emergency came; so has one that
    # was at this step when the daemon was started again.
    before = [row for row in here if row.revision // REVISION_BLOCK == outcome.revision // REVISION_BLOCK]
    if before and not any(kinds[row.command_id] in _STANDING_KINDS for row in here):
        yield f"{name}: {before[0].command_id} of the same safe point went before it"


def _moved_while_halted(row: CommandRow, outcome: OutcomeRow, history: History) -> Iterator[str]:
    if EmergencySignal.FromString(row.payload).level != int(EmergencyLevel.HALT):
        return
    cleared = _clearance(row, history)
    for other in history.outcomes:
        if not outcome.sequence < other.sequence < cleared or other.timeline != outcome.timeline:
            continue
        if other.global_step > outcome.global_step:
            yield f"{other} though {row.request_id} halted the run at step {outcome.global_step}"


def _clearance(row: CommandRow, history: History) -> float:
    """The sequence number at which the emergency was cleared."""
    outcomes = {one.command_id: one.sequence for one in history.outcomes if one.state == _APPLIED}
    clearances = [other for other in history.commands if other.method == _CLEAR and other.command_id in outcomes]
    numbers = [
        outcomes[other.command_id]
        for other in clearances
        if ClearEmergencyPayload.FromString(other.payload).emergency_id == f"e-{row.command_id}"
    ]
    return min(numbers, default=float("inf"))
