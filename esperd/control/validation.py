"""Reads a message and checks it against the rules that its contract states; each broken rule is told in plain words.

Event loop only. The rules are options in the proto files (protovalidate); what depends on the run's state, or on
another message, is checked where that is known. Reject, never clamp: a value out of range is refused, and an enum
number that this daemon does not know too. A rule that compares several fields has an id of the form `PATH-WHAT`, PATH
being the field that is reported.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from esper.buf.validate import validate_pb2
from esper.leyline.v1 import (
    command_pb2,
    command_service_pb2,
    emergency_service_pb2,
    field_report_pb2,
    kernel_pb2,
    policy_service_pb2,
    run_service_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from protovalidate import FieldPathPb, Validator
from protovalidate import Violation as BrokenRule

from esperd.control.errors import MAX_VIOLATIONS, InvalidRequest, Violation

MessageT = TypeVar("MessageT", bound=Message)

MAX_NAME_CHARS = 64
"""Of what a caller called a map's entry, as it is shown in a path: refusals travel in headers of 8 KiB."""
SMALL_BYTES = 1024
"""So small a message cannot hold so many faults that telling them takes long."""
MAX_ENTRIES_FOR_ALL = 512
"""A message with more list and map entries than that is told its first fault only: a megabyte of faults, each of them
worded, would hold the loop, and with it training, for seconds."""

_COMMAND = "COMMAND_INVALID"
_REASONS: Mapping[type[Message], str] = {
    command_pb2.AdaptationCommand: _COMMAND,
    command_service_pb2.CommandBatch: _COMMAND,
    command_service_pb2.CancelCommandPayload: _COMMAND,
    emergency_service_pb2.EmergencySignal: _COMMAND,
    emergency_service_pb2.ClearEmergencyPayload: _COMMAND,
    policy_service_pb2.PolicyDecision: _COMMAND,
    run_service_pb2.StopRunPayload: _COMMAND,
    field_report_pb2.FieldReport: "REPORT_INVALID",
    kernel_pb2.KernelManifest: "KERNEL_MANIFEST_INVALID",
}
"""The catalogue's reason by what is read; of every other message it is REQUEST_INVALID."""

_validator = Validator()


def _nothing_more(_: Message) -> Iterable[Violation]:
    return ()


def parse(
    kind: type[MessageT], data: bytes, more: Callable[[MessageT], Iterable[Violation]] = _nothing_more
) -> MessageT:
    """Read a message that keeps its rules.

    Args:
        kind: what the bytes should be.
        data: a request, or the payload of a signed one.
        more: tells what the contract's rules cannot say.

    Raises:
        InvalidRequest: COMMAND_INVALID, REPORT_INVALID or REQUEST_INVALID, with every broken rule; of a message that is
            overfull, with one of them.
    """
    message = decode(kind, data)
    is_vast = False
    if len(data) > SMALL_BYTES:
        # Counted before anything else looks at them: the rules look at every entry.
        count = _Count()
        overfull = next(count.overfull(message, ""), None)
        if overfull is not None:
            raise InvalidRequest([overfull], _reason(kind))
        is_vast = count.num_entries > MAX_ENTRIES_FOR_ALL
    found = _validator.collect_violations(message, fail_fast=is_vast)
    broken = [_told(rule) for rule in found[:MAX_VIOLATIONS]]
    broken.extend(more(message))
    if broken:
        raise InvalidRequest(broken, _reason(kind))
    return message


def decode(kind: type[MessageT], data: bytes) -> MessageT:
    """Read a message without a look at its rules, for what has checks of its own. Raises InvalidRequest."""
    try:
        return kind.FromString(data)
    except DecodeError:
        broken = Violation("payload", f"is not a serialized {kind.DESCRIPTOR.name}")
        raise InvalidRequest([broken], _reason(kind)) from None


def max_entries(kind: type[Message], field: str) -> int:
    """How many entries a list or a map of a message may hold."""
    return next(found.max_entries for found in _containers(kind.DESCRIPTOR) if found.name == field)


def _reason(kind: type[Message]) -> str:
    return _REASONS.get(kind, "REQUEST_INVALID")


# How full a message is


class _Shape(enum.Enum):
    LIST = enum.auto()
    MAP = enum.auto()
    ONE = enum.auto()


@dataclass(frozen=True, slots=True)
class _Container:
    """A field that holds entries, or a message that may."""

    name: str
    shape: _Shape
    max_entries: int
    """0 where the contract states none."""
    holds_messages: bool


class _Count:
    """Counts the entries of a message's lists and maps."""

    def __init__(self) -> None:
        self.num_entries = 0

    def overfull(self, message: Message, prefix: str) -> Iterator[Violation]:
        """Each list or map, at any depth, that holds more than it may; nothing inside it is looked at."""
        for field in _containers(message.DESCRIPTOR):
            path = prefix + field.name
            if field.shape is _Shape.ONE:
                if message.HasField(field.name):
                    yield from self.overfull(getattr(message, field.name), path + ".")
                continue
            entries = getattr(message, field.name)
            self.num_entries += len(entries)
            if field.max_entries and len(entries) > field.max_entries:
                yield Violation(path, f"has more than {field.max_entries} entries")
            elif field.holds_messages and field.shape is _Shape.LIST:
                for number, entry in enumerate(entries):
                    yield from self.overfull(entry, f"{path}[{number}].")


@cache
def _containers(kind: Descriptor) -> tuple[_Container, ...]:
    """The fields of a message that hold entries at any depth."""
    return tuple(
        _container(field)
        for field in kind.fields
        if field.is_repeated or (field.message_type and _containers(field.message_type))
    )


def _container(field: FieldDescriptor) -> _Container:
    extension: Any = validate_pb2.field
    rules = field.GetOptions().Extensions[extension]
    if not field.is_repeated:
        return _Container(field.name, _Shape.ONE, 0, True)
    if field.message_type and field.message_type.GetOptions().map_entry:
        return _Container(field.name, _Shape.MAP, rules.map.max_pairs, False)
    return _Container(field.name, _Shape.LIST, rules.repeated.max_items, field.message_type is not None)


# Broken rules in words


def _told(broken: BrokenRule) -> Violation:
    facts = broken.proto
    path = "" if facts.field is None else _path(facts.field)
    named, is_cross_field, _ = facts.rule_id.partition("-")
    if is_cross_field:
        path = f"{path}.{named}" if path else named
    words = _in_words(facts.rule_id, facts.message, broken.field_value, broken.rule_value)
    return Violation(path, f"its name {words}" if facts.for_key else words)


def _path(field: FieldPathPb) -> str:
    """As in `seed_operation.parameters[width]` or `risk[0].action`."""
    path = ""
    for element in field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{_shown(element.subscript.value)}]"
    return path


def _shown(key: object) -> str:
    """An index or a name, in ASCII: in a header any other character takes up to twelve."""
    return str(key).encode("ascii", "backslashreplace").decode()[:MAX_NAME_CHARS]


def _in_words(rule_id: str, message: str, value: Any, limit: Any) -> str:
    """What protovalidate says, for somebody who sees nothing but the field's name."""
    kind, _, rule = rule_id.partition(".")
    match kind, rule:
        case "required", _:
            return "is required"
        case "enum", "defined_only":
            return f"{value} is not known to this daemon"
        case "string" | "bytes", "max_bytes" | "max_len":
            return f"has more than {limit} bytes" if limit else "must be empty"
        case "string", "min_len":
            return "is empty"
        case "string", "in":
            return f"must be one of {', '.join(word for word in limit if word)}"
        case "map" | "repeated", "max_pairs" | "max_items":
            return f"has more than {limit} entries"
        case "float" | "double", "finite":
            return "is not a finite number"
        case "float" | "double" | "uint32" | "uint64", _:
            bounds = message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
            return f"is {value if isinstance(value, int) else format(value, '.9g')}; it {bounds}"
        case "timestamp", "gt":
            return "must be a time after 1970"
    return message
