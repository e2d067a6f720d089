"""A command's record in the journal as the Command that clients see.

Pure. The request is shown from the very bytes that were signed.
"""

from collections.abc import Sequence

from esper.leyline.v1 import command_pb2, command_service_pb2

from esperd.control.errors import command_error
from esperd.control.shown import timestamp, wire
from esperd.leyline.commands import Refusal
from esperd.oona.records import CommandRecord

STOP_RUN = "/esper.leyline.v1.RunService/StopRun"
RAISE_EMERGENCY = "/esper.leyline.v1.EmergencyService/RaiseEmergency"
CLEAR_EMERGENCY = "/esper.leyline.v1.EmergencyService/ClearEmergency"
DAEMON = "daemon"
"""Principal and method of what the daemon itself tells the trainer."""


def command_message(record: CommandRecord) -> command_pb2.Command:
    """The command as it stands in this record."""
    return command_pb2.Command(
        command_id=record.command_id,
        state=wire(record.state),
        request=_request(record),
        principal=record.principal,
        accept_time=timestamp(record.accepted_unix_s),
        update_time=timestamp(record.updated_unix_s),
        global_step=record.global_step,
        revision=record.revision,
        error=refusal_of(record),
        seed_id=str(record.seed_id) if record.seed_id else "",
    )


def refusal_of(record: CommandRecord) -> command_pb2.CommandError | None:
    """Why the command came to nothing, if it did."""
    if not record.refusal_reason:
        return None
    return command_error(Refusal(record.refusal_reason, record.refusal_message))


def watch_message(
    records: Sequence[CommandRecord], resume_token: bytes, *, draining: bool = False
) -> command_service_pb2.WatchCommandsResponse:
    """One change of WatchCommands, or a bookmark when there are no records."""
    return command_service_pb2.WatchCommandsResponse(
        commands=[command_message(record) for record in records], resume_token=resume_token, draining=draining
    )


def _request(record: CommandRecord) -> command_pb2.AdaptationCommand:
    request = _parsed(record)
    request.request_id = record.request_id
    request.command_id = record.command_id
    return request


def _parsed(record: CommandRecord) -> command_pb2.AdaptationCommand:
    if record.method == STOP_RUN:
        control = command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_STOP)
        return command_pb2.AdaptationCommand(reason=record.reason, run_control=control)
    if record.method in (RAISE_EMERGENCY, CLEAR_EMERGENCY):
        return command_pb2.AdaptationCommand(command_type=command_pb2.COMMAND_TYPE_EMERGENCY, reason=record.reason)
    if record.method == DAEMON:
        return command_pb2.AdaptationCommand(reason=record.reason)
    return command_pb2.AdaptationCommand.FromString(record.payload)
