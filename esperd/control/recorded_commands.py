"""A command's record in the journal as the command that the trainer carries out.

Pure. For a run that is picked up again: what was accepted by an earlier start is read once more from the very bytes
that were signed, or, for what the daemon itself told the trainer, from the JSON that it wrote.
"""

from collections.abc import Callable, Mapping

from esper.leyline.v1 import command_pb2, emergency_service_pb2
from google.protobuf.message import DecodeError

from esperd.control.asked import Asked, read_command, read_emergency
from esperd.control.command_messages import CLEAR_EMERGENCY, DAEMON, RAISE_EMERGENCY, STOP_RUN
from esperd.leyline.commands import (
    Command,
    EmergencyCommand,
    KernelSwapCommand,
    Payload,
    PolicyPresence,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import EmergencyLevel
from esperd.oona.codec import from_json, to_json
from esperd.oona.records import CommandRecord


def to_command(record: CommandRecord) -> Command:
    """The command of a record.

    Raises:
        EsperdError: JOURNAL_UNREADABLE, when its bytes are not what its method takes.
    """
    try:
        read = _READERS.get(record.method, _adaptation)
        return read(record)
    except (EsperdError, DecodeError, ValueError, KeyError, TypeError) as error:
        detail = f"the command {record.command_id} ({record.method}) cannot be read again: {error}"
        raise EsperdError("JOURNAL_UNREADABLE", path="of the run", detail=detail) from error


def emergency_id_of(command_id: str) -> str:
    """The emergency that a command raises."""
    return f"e-{command_id}"


def own_payload(payload: Payload) -> bytes:
    """What the journal keeps of a command of the daemon's own."""
    return to_json(payload).encode()


def _adaptation(record: CommandRecord) -> Command:
    message = command_pb2.AdaptationCommand.FromString(record.payload)
    asked: Asked = read_command(message, default_request_id=record.request_id or record.command_id)
    return asked.as_command(record.command_id, record.principal, record.decision_id)


def _stop(record: CommandRecord) -> Command:
    return Command(record.command_id, StopCommand(), record.principal, record.reason)


def _raised(record: CommandRecord) -> Command:
    asked = read_emergency(emergency_service_pb2.EmergencySignal.FromString(record.payload))
    payload = EmergencyCommand(asked.level, emergency_id_of(record.command_id))
    return Command(record.command_id, payload, record.principal, record.reason)


def _cleared(record: CommandRecord) -> Command:
    asked = emergency_service_pb2.ClearEmergencyPayload.FromString(record.payload)
    payload = EmergencyCommand(EmergencyLevel.UNSPECIFIED, asked.emergency_id)
    return Command(record.command_id, payload, record.principal, record.reason)


def _own(record: CommandRecord) -> Command:
    return Command(record.command_id, _read_own(record), record.principal, record.reason)


def _read_own(record: CommandRecord) -> PolicyPresence | KernelSwapCommand:
    return from_json(_OWN_PAYLOADS[record.kind], record.payload.decode())


_OWN_PAYLOADS: Mapping[str, type[PolicyPresence] | type[KernelSwapCommand]] = {
    PolicyPresence.__name__: PolicyPresence,
    KernelSwapCommand.__name__: KernelSwapCommand,
}
"""What the daemon itself tells the trainer, by the record's kind."""
_READERS: Mapping[str, Callable[[CommandRecord], Command]] = {
    STOP_RUN: _stop,
    RAISE_EMERGENCY: _raised,
    CLEAR_EMERGENCY: _cleared,
    DAEMON: _own,
}
"""By method; every other method brings an AdaptationCommand."""
