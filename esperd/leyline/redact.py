"""Keeps secrets, signatures and envelopes out of the log: a structlog processor.

Any thread. It looks at types and at the names of fields, at any depth; text is left as it is, so nobody may format a
secret into a message (a `Secret` prints as redacted by itself).
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from esper.leyline.v1.envelope_pb2 import SignedEnvelope, SignedHeader
from google.protobuf.message import Message

from esperd.leyline.secret import Secret

REDACTED = "(redacted)"
_NAMES = frozenset({"secret", "signature", "envelope", "header", "nonce", "password", "token", "authorization"})
_MAX_DEPTH = 8


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the event with everything that must stay secret replaced."""
    return {name: REDACTED if _is_secret_name(name) else _clean(value, 0) for name, value in event.items()}


def _is_secret_name(name: object) -> bool:
    return isinstance(name, str) and name.lower() in _NAMES


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str | int | float | None):
        return value
    if depth >= _MAX_DEPTH or isinstance(value, Secret):
        return REDACTED
    if isinstance(value, bytes | bytearray | memoryview):
        # Bytes in a log are payloads, keys or signatures; their length is all that helps.
        return f"({len(value)} bytes)"
    if isinstance(value, Message):
        return _clean_message(value)
    if isinstance(value, Mapping):
        return {name: REDACTED if _is_secret_name(name) else _clean(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return value


def _clean_message(message: Message) -> str:
    if isinstance(message, SignedEnvelope | SignedHeader) or "envelope" in message.DESCRIPTOR.fields_by_name:
        return f"({message.DESCRIPTOR.name}, {message.ByteSize()} bytes)"
    return str(message)
