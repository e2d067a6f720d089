"""Batches of commands: the very bytes of each command, cut out of the signed bytes of its batch.

Pure. A command's hash is that of its own bytes, so that it is the same request whether it came alone or in a batch; and
protobuf output is not canonical, so nothing is serialised again to find them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from esper.leyline.v1 import command_pb2, command_service_pb2, policy_service_pb2

from esperd.control.asked import disagreements, read_command
from esperd.control.command_desk import Submission
from esperd.control.errors import InvalidRequest, Violation
from esperd.control.validation import max_entries, parse

MAX_COMMANDS = max_entries(command_service_pb2.CommandBatch, "commands")
_LENGTH_DELIMITED = 2


def read_single(data: bytes, payload_sha256: bytes) -> Submission:
    """One command that was signed alone. Raises InvalidRequest."""
    command = parse(command_pb2.AdaptationCommand, data, disagreements)
    return Submission(read_command(command), data, payload_sha256)


def read_batch(data: bytes) -> list[Submission]:
    """The commands of a serialised CommandBatch, each with its own bytes, in order. Raises InvalidRequest."""
    batch = parse(command_service_pb2.CommandBatch, data, _batch_disagreements)
    parts = slices(data, command_service_pb2.CommandBatch.COMMANDS_FIELD_NUMBER)
    return [
        Submission(read_command(command), part, _sha256(part))
        for command, part in zip(batch.commands, parts, strict=True)
    ]


def read_decision(data: bytes) -> list[Submission]:
    """The commands of a serialised PolicyDecision; they may leave their request ids to it. Raises InvalidRequest."""
    decision = parse(policy_service_pb2.PolicyDecision, data, _decision_disagreements)
    decision_id = decision.decision_id
    parts = slices(data, policy_service_pb2.PolicyDecision.COMMANDS_FIELD_NUMBER)
    return [
        Submission(
            replace(read_command(command, f"{decision_id}/{number}"), decision_id=decision_id), part, _sha256(part)
        )
        for number, (command, part) in enumerate(zip(decision.commands, parts, strict=True))
    ]


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


def _batch_disagreements(batch: command_service_pb2.CommandBatch) -> Iterator[Violation]:
    for number, command in enumerate(batch.commands):
        yield from disagreements(command, f"commands[{number}].")


def _decision_disagreements(decision: policy_service_pb2.PolicyDecision) -> Iterator[Violation]:
    for number, command in enumerate(decision.commands):
        prefix = f"commands[{number}]."
        yield from disagreements(command, prefix, needs_request_id=False)
        if command.decision_id not in ("", decision.decision_id):
            yield Violation(prefix + "decision_id", f"must be empty or {decision.decision_id}")


def _sha256(part: bytes) -> bytes:
    return hashlib.sha256(part).digest()


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
