"""What can go wrong for a client, as exceptions decoded from the daemon's rich gRPC errors.

Any thread. Every refusal of the daemon carries a reason of its error catalogue; the few errors that arise without a
daemon's answer carry the same codes and words. Knows nothing of retries.
"""

from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from esper.leyline.v1.command_pb2 import CommandError

_DETAILS_KEY = "grpc-status-details-bin"
_CUT_WHILE_WRITING = "Internal error from Core"
"""What grpc.aio says instead of the true status when a write meets the end of its stream."""

_CUT = "the connection was cut"
_SIGNS = (
    ("No such file or directory", "there is no such socket"),
    ("Connection refused", "nothing listens there"),
    ("Permission denied", "this user may not open the socket"),
    ("resolution failed", "its name is not known"),
    ("Name or service not known", "its name is not known"),
    ("No route to host", "there is no way to its machine"),
    ("Network is unreachable", "there is no way to its machine"),
    ("Socket closed", _CUT),
    ("Connection reset", _CUT),
    ("Broken pipe", _CUT),
    ("GOAWAY", _CUT),
    ("stream was cut", _CUT),
    ("Hostname Verification Check failed", "its certificate is for other names"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not of the named CA, or has expired"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there"),
    ("Tls handshake failed", "no TLS connection came about"),
)
"""What gRPC says of a connection, and the same for people; the first that fits."""

_LOCAL = {
    "DAEMON_UNREACHABLE": (
        "UNAVAILABLE",
        (
            "E-CLI-001: No daemon answers at {address}: {detail}. "
            "Start one with esperd serve FILE, or name its address with --address."
        ),
    ),
    "NO_KEY": (
        "FAILED_PRECONDITION",
        (
            "E-CLI-002: This change must be signed and no key was given. "
            "Use --key FILE or set ESPER_KEY; esperctl keys new makes one."
        ),
    ),
    "CLIENT_TLS_INVALID": (
        "INVALID_ARGUMENT",
        (
            "E-CLI-003: The files for TLS cannot be used: {detail}. Name all three in the key file (ca, certificate, "
            "private_key) or with --tls-ca, --tls-cert and --tls-key."
        ),
    ),
    "KERNEL_FOLDER_INVALID": (
        "INVALID_ARGUMENT",
        (
            "E-CLI-004: The directory {path} holds no kernel that can be used: {detail}. "
            "Compile one into it: esper tezzeret compile BLUEPRINT -o DIR."
        ),
    ),
    "KEY_FILE_INVALID": (
        "INVALID_ARGUMENT",
        "E-CFG-004: The key file {path} is not valid: {detail}. Make a key with esperctl keys new --client-file.",
    ),
}
"""Reason: (status, text) of the errors that a client meets by itself; the words are the catalogue's."""


class LeylineError(Exception):
    """A call that came to nothing: refused by the daemon, or never answered."""

    def __init__(
        self,
        status: str,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        """Name of the gRPC status; empty in a refusal that came inside a stream."""
        self.reason = reason
        """The catalogue's reason, e.g. `SEED_STAGE`; the status name when the server gave none."""
        self.message = message
        """Code, what happened and what to do next."""
        self.metadata = dict(metadata or {})
        """The facts of this case."""
        self.retry_after_s = retry_after_s
        """Seconds after which the same call may succeed; None when waiting does not help."""
        self.violations = violations
        """(field, what is wrong with it) of an invalid request."""


class Unreachable(LeylineError):
    """No daemon answered: nothing listens there, the connection broke, or the time ran out."""


def local_error(reason: str, **facts: object) -> LeylineError:
    """An error that arises without a daemon's answer, in the catalogue's words."""
    status, text = _LOCAL[reason]
    kind = Unreachable if reason == "DAEMON_UNREACHABLE" else LeylineError
    return kind(status, reason, text.format(**facts), {name: str(value) for name, value in facts.items()})


def decode_rpc_error(error: grpc.RpcError, address: str) -> LeylineError:
    """Turn the exception of a gRPC call, of grpc or of grpc.aio, into a LeylineError."""
    call: grpc.Call = error  # type: ignore[assignment]  # every RpcError of a call is also that call
    code = call.code()
    details = call.details() or ""
    status = _rich_status(call)
    if status is None:
        return _plain_error(code, details, address)
    info = ErrorInfo()
    retry_after_s: float | None = None
    violations: list[tuple[str, str]] = []
    for detail in status.details:
        try:
            retry_after_s = _read_detail(detail, info, violations, retry_after_s)
        except DecodeError:
            continue  # what cannot be read says nothing; the status stands without it
    reason = info.reason or code.name
    return LeylineError(code.name, reason, status.message, dict(info.metadata), retry_after_s, tuple(violations))


def from_command_error(error: CommandError) -> LeylineError:
    """Turn the refusal inside a stream's answer or a command into a LeylineError."""
    metadata = dict(error.metadata)
    return LeylineError("", error.reason, error.message, metadata, _seconds(metadata.get("retry_after_s")))


def _rich_status(call: grpc.Call) -> Status | None:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _plain_error(code: grpc.StatusCode, details: str, address: str) -> LeylineError:
    if code is grpc.StatusCode.INTERNAL and details == _CUT_WHILE_WRITING:
        details = "the stream was cut"
    elif code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return LeylineError(code.name, code.name, details or code.name)
    return local_error("DAEMON_UNREACHABLE", address=address, detail=_in_plain_words(code, details, address))


def _in_plain_words(code: grpc.StatusCode, details: str, address: str) -> str:
    """Why nobody answered, without what gRPC says to those who know its insides."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    words = next((words for sign, words in _SIGNS if sign.lower() in details.lower()), "it cannot be reached")
    if words == _CUT and address.startswith("tls:"):
        return f"{_CUT}; perhaps this certificate has expired, or the daemon does not know its CA"
    return words


def _read_detail(
    detail: AnyMessage, info: ErrorInfo, violations: list[tuple[str, str]], retry_after_s: float | None
) -> float | None:
    retry, bad = RetryInfo(), BadRequest()
    if detail.Is(ErrorInfo.DESCRIPTOR):
        detail.Unpack(info)
    elif detail.Unpack(retry):
        seconds: float = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
        return seconds
    elif detail.Unpack(bad):
        violations.extend((item.field, item.description) for item in bad.field_violations)
    return retry_after_s


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
