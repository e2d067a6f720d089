"""What the journal keeps, as frozen values: commands, seed history, reports, runs and the audit trail.

Made on the event loop, written by the journal's writer thread. Plain values only: no protobuf, no SQL.
Times are wall time in seconds since 1970, passed in by the caller.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from esperd.leyline.commands import Outcome, Refusal
from esperd.leyline.views import CheckpointEvent, NoticeEvent, RunResumed, TimelineEvent, TransitionEvent
from esperd.leyline.vocabulary import CommandState, EmergencyLevel, FieldReportOutcome, TrainerPhase


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One command as it was accepted, and what has come of it so far."""

    command_id: str
    request_id: str
    """The client's id, unique in the journal; empty for a command that cannot be asked for twice."""
    principal: str
    key_id: str
    method: str
    """Full name of the RPC that brought it."""
    kind: str
    """Name of the payload's kind, e.g. `seed`."""
    payload: bytes
    """The very bytes whose signature was verified."""
    payload_sha256: bytes
    accepted_unix_s: float
    reason: str = ""
    seed_id: int = 0
    """The seed that the command names, or that it made or touched once it has its outcome."""
    state: CommandState = CommandState.ACCEPTED
    global_step: int = 0
    revision: int = 0
    """Revision of the training state at the outcome."""
    refusal_reason: str = ""
    refusal_message: str = ""
    updated_unix_s: float = 0.0
    """Time of the latest change: acceptance, then the outcome."""
    journal_revision: int = 0
    """Place of the latest change in the journal's one sequence; given by the journal."""
    accepted_step: int = 0
    """The run's step when it was accepted, as far as the event loop knew it: the trainer may have been further."""
    decision_id: str = ""
    """The policy decision that it answers, if any."""
    timeline: int = 1
    """The timeline of `global_step`."""
    sequence: int = 0
    """Number of its outcome among those that the trainer gave; 0 while it has none, or when the trainer gave none."""
    refusal_metadata: Mapping[str, str] = field(default_factory=dict)
    """The facts behind `refusal_message`, by name."""


class AcceptStatus(enum.Enum):
    """What the journal did with a command offered to it."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The journal's answer to one command; `record` is the first one when it is a duplicate."""

    status: AcceptStatus
    record: CommandRecord


class SettleStatus(enum.Enum):
    """What the journal did with an outcome."""

    RECORDED = "recorded"
    ALREADY_SETTLED = "already settled"
    UNKNOWN_COMMAND = "unknown command"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The journal's answer to one outcome; only RECORDED changed anything."""

    status: SettleStatus
    outcome: Outcome
    journal_revision: int = 0
    """Place of the outcome in the journal's sequence; 0 unless it was recorded."""


@dataclass(frozen=True, slots=True)
class EmergencyRecord:
    """An emergency was raised, or cleared when the level is UNSPECIFIED."""

    emergency_id: str
    level: EmergencyLevel
    reason: str
    origin: str
    """`budget`, `loss`, `policy`, `breaker:<name>` or a principal."""
    global_step: int
    unix_s: float


@dataclass(frozen=True, slots=True)
class FieldReportRecord:
    """What a policy found when a decision's observation window had passed."""

    report_id: str
    """Unique in the journal: a report sent twice is kept once."""
    principal: str
    command_id: str
    seed_id: int
    outcome: FieldReportOutcome
    global_step: int
    unix_s: float
    data: bytes = b""
    """The report's own bytes as they came over the wire."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began."""

    run_id: str
    task: str
    unix_s: float
    config: str = ""
    """The resolved configuration as JSON, secrets redacted."""
    revision: int = 1
    """The first public revision of the run."""
    is_resumable: bool = False
    """Whether everything that a later start needs is written down; not so in rows of schema version 1."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ended, or the daemon left it."""

    run_id: str
    phase: TrainerPhase
    """FINISHED, which it is for ever; FAILED; or another when the daemon ended before the run did."""
    global_step: int
    unix_s: float
    detail: str = ""
    epoch: int = 0
    train_loss: float = math.nan
    val_loss: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Validation metrics by name."""
    timeline: int = 1


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who tried to change what, and how it was answered; written for refusals too."""

    principal: str
    """Empty when the signature did not prove one."""
    key_id: str
    """As the caller wrote it, also when unknown."""
    peer: str
    method: str
    payload_sha256: bytes
    decision: str
    """`OK`, or the catalogue's reason of the refusal."""
    detail: str
    """The true cause, which the caller may not have been told."""
    unix_s: float


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An audit entry in its chain: each row's hash covers the hash of the one before."""

    number: int
    """1, 2, 3 ... without a gap."""
    journal_revision: int
    entry: AuditEntry
    previous_hash: bytes
    row_hash: bytes


ACCEPTED = "OK"
"""The decision of an audit entry that was let through."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which audit rows to list; an empty field means any."""

    principal: str = ""
    key_id: str = ""
    method: str = ""
    """The full name, or the part after the last `/`."""
    decision: str = ""
    refused_only: bool = False

    def answers(self, entry: AuditEntry) -> bool:
        """Whether an entry is among those that are asked for."""
        return (
            self.principal in ("", entry.principal)
            and self.key_id in ("", entry.key_id)
            and (self.method in ("", entry.method) or entry.method.endswith(f"/{self.method}"))
            and self.decision in ("", entry.decision)
            and not (self.refused_only and entry.decision == ACCEPTED)
        )


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What a check of the whole audit chain found."""

    intact: bool
    num_rows: int
    head_hash: bytes
    """Hash of the newest row; compare it with one noted elsewhere to detect a cut-off tail."""
    first_bad_number: int = 0
    """The first number whose row is missing or does not fit the one before; 0 when the chain is intact."""


class RowKind(enum.Enum):
    """The kinds of history rows."""

    TRANSITION = "transition"
    NOTICE = "notice"
    EMERGENCY = "emergency"
    FIELD_REPORT = "field_report"
    RUN_STARTED = "run_started"
    RUN_FINISHED = "run_finished"
    RUN_RESUMED = "run_resumed"
    CHECKPOINT = "checkpoint"
    TIMELINE = "timeline"


HistoryRecord = (
    TransitionEvent
    | NoticeEvent
    | EmergencyRecord
    | FieldReportRecord
    | RunStarted
    | RunFinished
    | RunResumed
    | CheckpointEvent
    | TimelineEvent
)
Record = HistoryRecord | AuditEntry

RECORD_TYPES: dict[RowKind, type[HistoryRecord]] = {
    RowKind.TRANSITION: TransitionEvent,
    RowKind.NOTICE: NoticeEvent,
    RowKind.EMERGENCY: EmergencyRecord,
    RowKind.FIELD_REPORT: FieldReportRecord,
    RowKind.RUN_STARTED: RunStarted,
    RowKind.RUN_FINISHED: RunFinished,
    RowKind.RUN_RESUMED: RunResumed,
    RowKind.CHECKPOINT: CheckpointEvent,
    RowKind.TIMELINE: TimelineEvent,
}
ROW_KINDS: dict[type[HistoryRecord], RowKind] = {record: kind for kind, record in RECORD_TYPES.items()}


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One history record with its place in the journal's sequence."""

    journal_revision: int
    kind: RowKind
    record: HistoryRecord


@dataclass(frozen=True, slots=True)
class CommandQuery:
    """Which commands to list; an empty field means any. Newest first."""

    state: CommandState = CommandState.UNSPECIFIED
    principal: str = ""
    kind: str = ""
    seed_id: int = 0


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which history rows to list; an empty field means any. Oldest first."""

    kinds: tuple[RowKind, ...] = ()
    seed_id: int = 0
    after_revision: int = 0
    """Only rows with a larger journal revision."""


def as_accepted(record: CommandRecord, journal_revision: int) -> CommandRecord:
    """The record as the journal keeps it at acceptance."""
    # Spelled out: dataclasses.replace costs five times as much, and this runs for every command.
    return CommandRecord(
        record.command_id,
        record.request_id,
        record.principal,
        record.key_id,
        record.method,
        record.kind,
        record.payload,
        record.payload_sha256,
        record.accepted_unix_s,
        record.reason,
        record.seed_id,
        record.state,
        record.global_step,
        record.revision,
        record.refusal_reason,
        record.refusal_message,
        record.accepted_unix_s,
        journal_revision,
        record.accepted_step,
        record.decision_id,
    )


def unique_name(record: HistoryRecord) -> str | None:
    """The name of which the journal keeps only one record of this kind; None where there is no such name."""
    if isinstance(record, FieldReportRecord):
        return record.report_id
    if isinstance(record, RunStarted):
        return record.run_id
    if isinstance(record, RunFinished) and record.phase is TrainerPhase.FINISHED:
        return record.run_id  # a run that failed, or was left, is picked up again and ends more than once
    return None


def as_settled(record: CommandRecord, outcome: Outcome, unix_s: float, journal_revision: int) -> CommandRecord:
    """The record with its outcome."""
    return CommandRecord(
        record.command_id,
        record.request_id,
        record.principal,
        record.key_id,
        record.method,
        record.kind,
        record.payload,
        record.payload_sha256,
        record.accepted_unix_s,
        record.reason,
        outcome.seed_id or record.seed_id,
        outcome.state,
        outcome.global_step,
        outcome.revision,
        "" if outcome.refusal is None else outcome.refusal.reason,
        "" if outcome.refusal is None else outcome.refusal.message,
        unix_s,
        journal_revision,
        record.accepted_step,
        record.decision_id,
        outcome.timeline,
        outcome.sequence,
        {} if outcome.refusal is None else outcome.refusal.metadata,
    )


def outcome_of(record: CommandRecord) -> Outcome:
    """The outcome of a record that has one."""
    refusal = None
    if record.refusal_reason:
        refusal = Refusal(record.refusal_reason, record.refusal_message, record.refusal_metadata)
    return Outcome(
        record.command_id,
        record.state,
        record.global_step,
        record.revision,
        refusal,
        record.seed_id,
        record.timeline,
        record.sequence,
    )


def seed_of(record: HistoryRecord) -> int:
    """The seed that a history record is about, 0 if none."""
    return record.seed_id if isinstance(record, TransitionEvent | FieldReportRecord) else 0
