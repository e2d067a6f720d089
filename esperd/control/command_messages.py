"""A command's record in the journal as the Command that clients see.

Pure. The request is shown from the very bytes that were signed.
"""

from collections.abc import Iterable

from esper.leyline.v1 import command_pb2, command_service_pb2

from esperd.control.errors import command_error
from esperd.control.shown import timestamp, wire
from esperd.control.wire_bytes import submessage
from esperd.leyline.commands import KernelSwapCommand, Refusal
from esperd.oona.codec import from_json
from esperd.oona.feed_values import ResumeToken
from esperd.oona.records import CommandRecord

STOP_RUN = "/esper.leyline.v1.RunService/StopRun"
RAISE_EMERGENCY = "/esper.leyline.v1.EmergencyService/RaiseEmergency"
CLEAR_EMERGENCY = "/esper.leyline.v1.EmergencyService/ClearEmergency"
DAEMON = "daemon"
"""Principal and method of what the daemon itself tells the trainer."""

_OTHER_PAYLOADS = frozenset({STOP_RUN, RAISE_EMERGENCY, CLEAR_EMERGENCY, DAEMON})
"""Methods whose payload is no AdaptationCommand."""
_REQUEST_FIELD = command_pb2.Command.REQUEST_FIELD_NUMBER
_COMMANDS_FIELD = command_service_pb2.WatchCommandsResponse.COMMANDS_FIELD_NUMBER


def command_bytes(record: CommandRecord) -> bytes:
    """The same message as `command_message`, serialised, around the signed bytes of its request."""
    head = _without_request(record).SerializeToString()
    if record.method in _OTHER_PAYLOADS:
        return head + submessage(_REQUEST_FIELD, _request(record).SerializeToString())
    # Fields that come later win: the daemon's id, and the request id of a decision's command.
    names = command_pb2.AdaptationCommand(command_id=record.command_id, request_id=record.request_id)
    return head + submessage(_REQUEST_FIELD, record.payload + names.SerializeToString())


def command_message(record: CommandRecord) -> command_pb2.Command:
    """The command as it stands in this record."""
    message = _without_request(record)
    message.request.CopyFrom(_request(record))
    return message


def _without_request(record: CommandRecord) -> command_pb2.Command:
    return command_pb2.Command(
        command_id=record.command_id,
        state=wire(record.state),
        principal=record.principal,
        accept_time=timestamp(record.accepted_unix_s),
        update_time=timestamp(record.updated_unix_s),
        global_step=record.global_step,
        revision=record.revision,
        error=refusal_of(record),
        seed_id=str(record.seed_id) if record.seed_id else "",
        timeline=record.timeline if record.state.is_final else 0,
        sequence=record.sequence,
        kind=record.kind,
    )


def refusal_of(record: CommandRecord) -> command_pb2.CommandError | None:
    """Why the command came to nothing, if it did."""
    if not record.refusal_reason:
        return None
    return command_error(Refusal(record.refusal_reason, record.refusal_message, record.refusal_metadata))


def change_bytes(record: CommandRecord) -> bytes:
    """The command as a part of a WatchCommandsResponse, serialised."""
    return submessage(_COMMANDS_FIELD, command_bytes(record))


def watch_bytes(
    changes: Iterable[bytes], token: ResumeToken, *, num_conflated: int = 0, draining: bool = False
) -> bytes:
    """A WatchCommandsResponse with these changes, or a bookmark when there are none, serialised."""
    tail = command_service_pb2.WatchCommandsResponse(
        resume_token=token.encode(), revision=token.revision, num_conflated=num_conflated, draining=draining
    )
    return b"".join((*changes, tail.SerializeToString()))


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
    if record.method == DAEMON and record.kind == KernelSwapCommand.__name__:
        swap = from_json(KernelSwapCommand, record.payload.decode())
        asked = command_pb2.CommandKernelSwap(artifact_id=swap.artifact_id)
        return command_pb2.AdaptationCommand(reason=record.reason, target_seed_id=str(swap.seed_id), kernel_swap=asked)
    if record.method == DAEMON:
        return command_pb2.AdaptationCommand(reason=record.reason)
    return command_pb2.AdaptationCommand.FromString(record.payload)
