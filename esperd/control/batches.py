"""Batches of commands: the very bytes of each command, cut out of the signed bytes of its batch.

Pure. A command's hash is that of its own bytes, so that it is the same request whether it came alone or in a batch; and
protobuf output is not canonical, so nothing is serialised again to find them.
"""

import hashlib
from dataclasses import replace

from esper.leyline.v1 import command_pb2
from google.protobuf.message import DecodeError

from esperd.control.asked import read_command
from esperd.control.command_desk import Submission
from esperd.control.errors import InvalidRequest, Violation

MAX_COMMANDS = 256
_LENGTH_DELIMITED = 2


def read_batch(data: bytes, commands_field: int = 1, decision_id: str = "") -> list[Submission]:
    """The commands of a message that parses, each with its own bytes, in order.

    Args:
        data: a serialised message with a repeated AdaptationCommand.
        commands_field: number of that field.
        decision_id: the decision that the commands belong to; they may then leave their request ids to it.

    Raises:
        InvalidRequest: COMMAND_INVALID with every broken rule of the first faulty command.
    """
    parts = slices(data, commands_field)
    if len(parts) > MAX_COMMANDS:
        raise InvalidRequest([Violation("commands", f"has more than {MAX_COMMANDS} entries")])
    return [_submission(part, f"commands[{number}].", decision_id, number) for number, part in enumerate(parts)]


def read_single(data: bytes, payload_sha256: bytes) -> Submission:
    """One command that was signed alone. Raises InvalidRequest."""
    return Submission(read_command(_parse(data, "")), data, payload_sha256)


def slices(data: bytes, field: int) -> list[bytes]:
    """The bytes of each entry of a repeated message field; `data` must have been parsed as a message before."""
    found: list[bytes] = []
    position, end = 0, len(data)
    wanted = field << 3 | _LENGTH_DELIMITED
    while position < end:
        tag, position = _varint(data, position)
        if tag & 7 == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            if tag == wanted:
                found.append(data[position : position + length])
            position += length
        else:
            position = _skip(data, position, tag & 7)
    return found


def _submission(part: bytes, prefix: str, decision_id: str, number: int) -> Submission:
    default_id = f"{decision_id}/{number}" if decision_id else ""
    asked = read_command(_parse(part, prefix), prefix, default_id)
    if decision_id:
        if asked.decision_id not in ("", decision_id):
            raise InvalidRequest([Violation(prefix + "decision_id", f"must be empty or {decision_id}")])
        asked = replace(asked, decision_id=decision_id)
    return Submission(asked, part, hashlib.sha256(part).digest())


def _parse(data: bytes, prefix: str) -> command_pb2.AdaptationCommand:
    try:
        return command_pb2.AdaptationCommand.FromString(data)
    except DecodeError:
        raise InvalidRequest([Violation(prefix + "payload", "is not a serialized AdaptationCommand")]) from None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        position += 1
        byte = data[position]
        number |= (byte & 0x7F) << shift
        shift += 7
    return number, position + 1


def _skip(data: bytes, position: int, wire_type: int) -> int:
    if wire_type == 0:
        return _varint(data, position)[1]
    if wire_type in (1, 5):
        return position + (8 if wire_type == 1 else 4)
    raise InvalidRequest([Violation("payload", "holds a field of a kind that no message of ours has")])
