"""Records for the tests of Oona."""

import hashlib
import math

from esperd.leyline.commands import Outcome, Refusal
from esperd.leyline.views import (
    CheckpointEvent,
    Evidence,
    GateResult,
    NoticeEvent,
    RunResumed,
    TimelineEvent,
    TransitionEvent,
)
from esperd.leyline.vocabulary import (
    CheckpointKind,
    CommandState,
    EmergencyLevel,
    FieldReportOutcome,
    Gate,
    Stage,
    TrainerPhase,
    Verdict,
)
from esperd.oona.records import AuditEntry, CommandRecord, EmergencyRecord, FieldReportRecord, RunFinished, RunStarted

NOW_S = 1_800_000_000.25


def command(name: str, payload: bytes = b"payload", request_id: str | None = None, seed_id: int = 0) -> CommandRecord:
    """A command as it is offered to the journal."""
    return CommandRecord(
        command_id=f"command-{name}",
        request_id=f"request-{name}" if request_id is None else request_id,
        principal="tamiyo",
        key_id="policy-1",
        method="/esper.leyline.v1.CommandService/SubmitCommand",
        kind="seed",
        payload=payload,
        payload_sha256=hashlib.sha256(payload).digest(),
        accepted_unix_s=NOW_S,
        reason="loss has stalled",
        seed_id=seed_id,
    )


def applied(name: str, seed_id: int = 0) -> Outcome:
    """The outcome of a command that took effect."""
    return Outcome(f"command-{name}", CommandState.APPLIED, global_step=120, revision=7, seed_id=seed_id)


def rejected(name: str) -> Outcome:
    """The outcome of a command that was refused."""
    refusal = Refusal("SEED_STAGE", "Seed 3 is DORMANT.", {"seed_id": "3"})
    return Outcome(f"command-{name}", CommandState.REJECTED, global_step=121, revision=8, refusal=refusal)


def transition(seed_id: int = 3, step: int = 100) -> TransitionEvent:
    """A transition whose gate holds evidence with numbers that JSON does not know."""
    evidence = (
        Evidence("output_ratio", 0.12, 0.5, "at_most", passed=True, num_samples=32),
        Evidence("loss_gain", math.inf, 0.0, "above", passed=True, detail='ünï "quoted"'),
    )
    gate = GateResult(Gate.G1_GRADIENT_HEALTH, Verdict.PASSED, step, evidence)
    return TransitionEvent(
        seed_id, "block.1", "bottleneck", Stage.TRAINING, Stage.BLENDING, step, 9, "auto", gate, NOW_S
    )


def notice() -> NoticeEvent:
    """A notice with attributes."""
    return NoticeEvent("guard.tripped", "non-finite loss", "error", 101, 10, NOW_S, {"seed": "3"})


def emergency() -> EmergencyRecord:
    """A raised emergency."""
    return EmergencyRecord("emergency-1", EmergencyLevel.HALT, "loss is NaN", "loss", 102, NOW_S)


def field_report(name: str = "1", seed_id: int = 3) -> FieldReportRecord:
    """What a policy found."""
    return FieldReportRecord(
        f"report-{name}", "tamiyo", "command-1", seed_id, FieldReportOutcome.SUCCESS, 300, NOW_S, b"\x00\xff"
    )


def run_started() -> RunStarted:
    """A run that began."""
    return RunStarted("run-1", "digits", NOW_S, "[run]\n")


def run_finished() -> RunFinished:
    """A run that ended."""
    return RunFinished("run-1", TrainerPhase.FINISHED, 500, NOW_S, "", 3, 0.25, 0.5, {"accuracy": 0.75}, timeline=2)


def run_resumed() -> RunResumed:
    """A run that a later start picked up."""
    return RunResumed("run-1", "t001-s000000500", 1, 500, 1_000_000, 999_000, NOW_S)


def checkpoint() -> CheckpointEvent:
    """A checkpoint on disk."""
    return CheckpointEvent("t001-s000000500", CheckpointKind.SCHEDULED, 500, 1, 4096, 0.5, 12.5, NOW_S)


def timeline() -> TimelineEvent:
    """A rollback."""
    return TimelineEvent(2, 1, 400, 510, "t001-s000000400", "loss_anomaly", (4, 5), (3,), 11, NOW_S)


def audit(name: str = "1", decision: str = "OK") -> AuditEntry:
    """One audited attempt."""
    digest = hashlib.sha256(name.encode()).digest()
    return AuditEntry("tamiyo", "policy-1", "unix:pid=7", "/m", digest, decision, f"detail {name}", NOW_S)
