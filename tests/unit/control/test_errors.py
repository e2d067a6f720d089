"""Errors of the catalogue as gRPC statuses."""

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from esperd.control.errors import InvalidRequest, Violation, code_of, status_of
from esperd.leyline.errors import CATALOGUE, DOMAIN, EsperdError


def details(error: EsperdError, kind: type[Message]) -> list[Message]:
    found = []
    for detail in status_of(error).details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


PASSING = {
    "COMMAND_BOX_FULL",
    "DRAINING",
    "JOURNAL_UNAVAILABLE",
    "KERNEL_NOT_RESIDENT",
    "NONCE_CAPACITY",
    "PACED_OUT",
    "RUN_CATCHING_UP",
    "RUN_STARTING",
    "TOO_MANY_STREAMS",
}
"""Refusals that pass by themselves, so that a client may ask again."""


@pytest.mark.parametrize("reason", sorted(CATALOGUE))
def test_every_entry_translates(reason: str) -> None:
    """A known status, ErrorInfo with code and domain, and RetryInfo where waiting helps."""
    error = EsperdError(reason)
    assert isinstance(code_of(error), grpc.StatusCode)
    (info,) = details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, DOMAIN)  # type: ignore[attr-defined]
    assert info.metadata["code"] == CATALOGUE[reason].code  # type: ignore[attr-defined]
    assert bool(details(error, error_details_pb2.RetryInfo)) == (reason in PASSING)


def test_retry_info_says_what_the_error_knows() -> None:
    """A time that is known beats the default."""
    (retry,) = details(EsperdError("AUTH_THROTTLED", retry_after_s="2.500"), error_details_pb2.RetryInfo)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)  # type: ignore[attr-defined]


def test_violations_travel_and_the_status_stays_small() -> None:
    """Headers are limited: a thousand broken rules still make a status that a client accepts."""
    error = InvalidRequest([Violation(f"field_{i}", "x" * 500) for i in range(1000)])
    (bad,) = details(error, error_details_pb2.BadRequest)
    assert bad.field_violations[0].field == "field_0"  # type: ignore[attr-defined]
    assert len(status_of(error).SerializeToString()) < 8192
