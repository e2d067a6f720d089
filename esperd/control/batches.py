"""Batches of commands: the very bytes of each command, cut out of the signed bytes of its batch.

Pure. A command's hash is that of its own bytes, so that it is the same request whether it came alone or in a batch; and
protobuf output is not canonical, so nothing is serialised again to find them.
"""

import hashlib
from dataclasses import replace

from esper.leyline.v1 import command_pb2, command_service_pb2, policy_service_pb2

from esperd.control.asked import read_command
from esperd.control.command_desk import Submission
from esperd.control.errors import InvalidRequest, Violation
from esperd.control.validation import max_entries, parse

MAX_COMMANDS = max_entries(command_service_pb2.CommandBatch, "commands")
_LENGTH_DELIMITED = 2


def read_batch(data: bytes) -> list[Submission]:
    """The commands of a serialised CommandBatch, each with its own bytes, in order. Raises InvalidRequest."""
    batch = parse(command_service_pb2.CommandBatch, data)
    parts = slices(data, command_service_pb2.CommandBatch.COMMANDS_FIELD_NUMBER)
    return [
        _submission(command, part, f"commands[{number}].", "")
        for number, (command, part) in enumerate(zip(batch.commands, parts, strict=True))
    ]


def read_decision(data: bytes) -> list[Submission]:
    """The commands of a serialised PolicyDecision; they may leave their request ids to it. Raises InvalidRequest."""
    decision = parse(policy_service_pb2.PolicyDecision, data)
    parts = slices(data, policy_service_pb2.PolicyDecision.COMMANDS_FIELD_NUMBER)
    submissions = []
    for number, (command, part) in enumerate(zip(decision.commands, parts, strict=True)):
        prefix = f"commands[{number}]."
        found = _submission(command, part, prefix, f"{decision.decision_id}/{number}")
        if found.asked.decision_id not in ("", decision.decision_id):
            raise InvalidRequest([Violation(prefix + "decision_id", f"must be empty or {decision.decision_id}")])
        submissions.append(replace(found, asked=replace(found.asked, decision_id=decision.decision_id)))
    return submissions


def read_single(data: bytes, payload_sha256: bytes) -> Submission:
    """One command that was signed alone. Raises InvalidRequest."""
    return Submission(read_command(parse(command_pb2.AdaptationCommand, data)), data, payload_sha256)


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


def _submission(
    command: command_pb2.AdaptationCommand, part: bytes, prefix: str, default_request_id: str
) -> Submission:
    asked = read_command(command, prefix, default_request_id)
    return Submission(asked, part, hashlib.sha256(part).digest())


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
