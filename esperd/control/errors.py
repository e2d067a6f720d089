"""The one place where errors of the catalogue become gRPC statuses.

Event loop only. Every refusal carries `google.rpc.ErrorInfo`; one that may be tried again carries `RetryInfo`, one
about fields `BadRequest`, one about a rate `QuotaFailure`. The texts are the catalogue's; nothing is worded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from esper.leyline.v1 import command_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from esperd.leyline.commands import Refusal
from esperd.leyline.errors import CATALOGUE, DOMAIN, EsperdError

DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_CHARS = 1024
"""Statuses travel as HTTP/2 headers, of which clients accept 8 KiB by default."""
MAX_FACT_CHARS = 256
MAX_VIOLATIONS = 16

_RETRY_S = {
    "COMMAND_BOX_FULL": 1.0,
    "NONCE_CAPACITY": 5.0,
    "TOO_MANY_STREAMS": 1.0,
    "PACED_OUT": 1.0,
    "DRAINING": 2.0,
    "JOURNAL_UNAVAILABLE": 2.0,
    "KERNEL_NOT_RESIDENT": 0.5,
    "RUN_CATCHING_UP": 1.0,
    "RUN_STARTING": 1.0,
}
"""Refusals that pass by themselves. A finished run or a full set of seeds does not: to ask again would be in vain."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks a rule."""

    field: str
    """Path of the field, e.g. `seed_operation.alpha.target`."""
    rule: str
    """What the rule is, in plain words."""


class InvalidRequest(EsperdError):
    """A request whose fields break rules; carries each of them."""

    def __init__(self, violations: Sequence[Violation], reason: str = "COMMAND_INVALID") -> None:
        told = "; ".join(f"{v.field}: {v.rule}" for v in violations[:MAX_VIOLATIONS])
        super().__init__(reason, detail=told)
        self.violations = tuple(violations)


def status_of(error: EsperdError) -> status_pb2.Status:
    """The error as a `google.rpc.Status`."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message[:MAX_MESSAGE_CHARS])
    facts = {name: value[:MAX_FACT_CHARS] for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={**facts, "code": error.entry.code})
    status.details.add().Pack(info)
    retry_s = retry_after_s(error)
    if retry_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.reason == "RATE_LIMITED":
        status.details.add().Pack(_quota_failure(error))
    if isinstance(error, InvalidRequest):
        status.details.add().Pack(_bad_request(error.violations))
    return status


def code_of(error: EsperdError) -> grpc.StatusCode:
    """The gRPC status code of the error."""
    return grpc.StatusCode[error.entry.status]


def retry_after_s(error: EsperdError) -> float | None:
    """After how many seconds another try makes sense; None when it never does by itself."""
    told = error.metadata.get("retry_after_s")
    return float(told) if told is not None else _RETRY_S.get(error.reason)


def command_error(refusal: Refusal) -> command_pb2.CommandError:
    """A refusal as it travels inside a Command or a receipt."""
    entry = CATALOGUE.get(refusal.reason)
    return command_pb2.CommandError(
        code="" if entry is None else entry.code,
        reason=refusal.reason,
        message=refusal.message,
        metadata=dict(refusal.metadata),
    )


def _quota_failure(error: EsperdError) -> error_details_pb2.QuotaFailure:
    facts = error.metadata
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=facts.get("principal", "")[:MAX_FACT_CHARS],
        description=f"{facts.get('rate', '?')} {facts.get('what', 'requests')} a second",
    )
    return error_details_pb2.QuotaFailure(violations=[violation])


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    shown = [
        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.rule[:MAX_FACT_CHARS])
        for v in violations[:MAX_VIOLATIONS]
    ]
    return error_details_pb2.BadRequest(field_violations=shown)
