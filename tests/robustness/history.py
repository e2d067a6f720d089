"""What is left of a run when it is over: the journal's rows, and what clients were told while it ran.

Reads the journal's file by SQL of its own, so that a fault in the daemon's reading cannot hide a fault in its writing.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esper.leyline.v1.command_pb2 import AdaptationCommand

_COMMAND_METHODS = ("/SubmitCommand", "/SubmitCommands", "/CommandStream", "/DecisionStream")
"""Each command of a batch has a row of its own, with its own part of the batch as the payload."""


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command as the journal holds it."""

    place: int
    """Its place in the journal's one sequence."""
    command_id: str
    request_id: str
    method: str
    kind: str
    accepted_step: int
    apply_at_step: int = 0
    """The step that the client asked for, 0 if none."""
    operation: int = 0
    """Number of the seed operation, 0 if it is none."""
    payload: bytes = b""
    """What was signed; of a batch the one command."""


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """An outcome as the journal holds it."""

    place: int
    command_id: str
    state: int
    global_step: int
    timeline: int
    sequence: int
    revision: int
    seed_id: int
    refusal_reason: str = ""


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """A seed went from one stage to another."""

    place: int
    seed_id: int
    source: str
    target: str
    global_step: int
    timeline: int
    cause: str


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """A rollback opened a timeline."""

    place: int
    timeline: int
    parent: int
    fork_step: int
    left_step: int
    cause: str
    removed_seed_ids: tuple[int, ...] = ()
    restored_seed_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint became durable."""

    place: int
    checkpoint_id: str
    kind: str
    global_step: int
    timeline: int


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """Something worth a line."""

    place: int
    kind: str
    message: str
    level: str
    global_step: int
    timeline: int


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One row of the audit chain, as it was hashed."""

    number: int
    fields: tuple[str, str, str, str, bytes, str, str, float]
    """principal, key_id, peer, method, payload_sha256, decision, detail, unix_s."""
    previous_hash: bytes
    row_hash: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A client was told that its request is accepted."""

    request_id: str
    command_id: str = ""
    """Empty where the answer named none."""


@dataclass(frozen=True, slots=True)
class Told:
    """A client was told the outcome of a command."""

    command_id: str
    state: int
    global_step: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """A client saw the state of the run."""

    start: int
    """Which start of the daemon showed it, from 1."""
    revision: int
    timeline: int
    global_step: int


@dataclass(frozen=True, slots=True)
class History:
    """Everything that validators look at."""

    commands: tuple[CommandRow, ...] = ()
    outcomes: tuple[OutcomeRow, ...] = ()
    transitions: tuple[TransitionRow, ...] = ()
    timelines: tuple[TimelineRow, ...] = ()
    checkpoints: tuple[CheckpointRow, ...] = ()
    notices: tuple[NoticeRow, ...] = ()
    audit: tuple[AuditLine, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    """How many rows of each kind tell of the run's beginnings and ends."""
    answers: tuple[Answer, ...] = ()
    told: tuple[Told, ...] = ()
    sightings: tuple[Sighting, ...] = ()

    def outcome_of(self, request_id: str) -> OutcomeRow | None:
        """The outcome of the request with this id."""
        command_id = next((row.command_id for row in self.commands if row.request_id == request_id), "")
        return next((row for row in self.outcomes if row.command_id == command_id), None)


def read_history(
    path: Path,
    answers: tuple[Answer, ...] = (),
    told: tuple[Told, ...] = (),
    sightings: tuple[Sighting, ...] = (),
) -> History:
    """The history in a journal file, with what clients say."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        history = db.execute("SELECT revision, kind, body FROM history ORDER BY revision").fetchall()
        bodies = [(row["revision"], row["kind"], json.loads(row["body"])) for row in history]
        # One that tells of another phase says that the daemon has left the run for a while.
        kinds = [kind for _, kind, body in bodies if kind != "run_finished" or body["phase"] == "FINISHED"]
        return History(
            commands=tuple(map(_command, db.execute("SELECT * FROM command ORDER BY revision"))),
            outcomes=tuple(map(_outcome, db.execute("SELECT * FROM outcome ORDER BY revision"))),
            transitions=tuple(_transition(*row) for row in _of(bodies, "transition")),
            timelines=tuple(_timeline(*row) for row in _of(bodies, "timeline")),
            checkpoints=tuple(_checkpoint(*row) for row in _of(bodies, "checkpoint")),
            notices=tuple(_notice(*row) for row in _of(bodies, "notice")),
            audit=tuple(map(_audit_line, db.execute("SELECT * FROM audit ORDER BY number"))),
            runs={kind: kinds.count(kind) for kind in ("run_started", "run_resumed", "run_finished")},
            answers=answers,
            told=told,
            sightings=sightings,
        )
    finally:
        db.close()


def _of(bodies: list[tuple[int, str, dict[str, Any]]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(place, body) for place, found, body in bodies if found == kind]


def _command(row: sqlite3.Row) -> CommandRow:
    asked = _asked(row)
    return CommandRow(
        place=row["revision"],
        command_id=row["command_id"],
        request_id=row["request_id"] or "",
        method=row["method"],
        kind=row["kind"],
        accepted_step=row["accepted_step"],
        apply_at_step=asked.apply_at.global_step,
        operation=asked.seed_operation.operation,
        payload=row["payload"],
    )


def _asked(row: sqlite3.Row) -> AdaptationCommand:
    """The command that the client signed, alone or with others; empty for other kinds of requests."""
    if row["method"].endswith(_COMMAND_METHODS):
        return AdaptationCommand.FromString(row["payload"])
    return AdaptationCommand()


def _outcome(row: sqlite3.Row) -> OutcomeRow:
    return OutcomeRow(
        place=row["revision"],
        command_id=row["command_id"],
        state=row["state"],
        global_step=row["global_step"],
        timeline=row["timeline"],
        sequence=row["sequence"],
        revision=row["state_revision"],
        seed_id=row["seed_id"],
        refusal_reason=row["refusal_reason"],
    )


def _transition(place: int, body: dict[str, Any]) -> TransitionRow:
    stage = (body["source"], body["target"])
    return TransitionRow(place, body["seed_id"], *stage, body["global_step"], body["timeline"], body["cause"])


def _timeline(place: int, body: dict[str, Any]) -> TimelineRow:
    return TimelineRow(
        place,
        body["timeline"],
        body["parent"],
        body["fork_step"],
        body["left_step"],
        body["cause"],
        tuple(body["removed_seed_ids"]),
        tuple(body["restored_seed_ids"]),
    )


def _checkpoint(place: int, body: dict[str, Any]) -> CheckpointRow:
    return CheckpointRow(place, body["checkpoint_id"], body["kind"], body["global_step"], body["timeline"])


def _notice(place: int, body: dict[str, Any]) -> NoticeRow:
    return NoticeRow(place, body["kind"], body["message"], body["level"], body["global_step"], body.get("timeline", 1))


def _audit_line(row: sqlite3.Row) -> AuditLine:
    words = (row["principal"], row["key_id"], row["peer"], row["method"], row["payload_sha256"])
    rest = (row["decision"], row["detail"], row["unix_s"])
    return AuditLine(row["number"], (*words, *rest), row["previous_hash"], row["row_hash"])
