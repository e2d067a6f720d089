"""A command's bytes for watchers are its message, whatever brought it."""

import pytest
from esper.leyline.v1 import command_pb2, command_service_pb2, run_service_pb2

from esperd.control.command_messages import STOP_RUN, change_bytes, command_bytes, command_message, watch_bytes
from esperd.leyline.vocabulary import CommandState
from esperd.oona.feed_values import ResumeToken
from esperd.oona.records import CommandRecord

TOKEN = ResumeToken(bytes(16), 7)

CONTROL = command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE)
PAUSE = command_pb2.AdaptationCommand(request_id="r", reason="why", run_control=CONTROL)
UNNAMED = command_pb2.AdaptationCommand(reason="why", run_control=CONTROL)
STOP = run_service_pb2.StopRunPayload(request_id="r", reason="why")
SUBMIT = "/esper.leyline.v1.CommandService/SubmitCommand"


def record(method: str, payload: bytes) -> CommandRecord:
    return CommandRecord(
        "c-1",
        "r",
        "operator",
        "operator-1",
        method,
        "pause",
        payload,
        bytes(32),
        1.8e9,
        "why",
        seed_id=3,
        state=CommandState.REJECTED,
        refusal_reason="SEED_STAGE",
        refusal_message="no",
    )


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        (SUBMIT, PAUSE.SerializeToString()),
        (SUBMIT, UNNAMED.SerializeToString()),
        (STOP_RUN, STOP.SerializeToString()),
        ("daemon", b""),
    ],
)
def test_bytes_and_message_agree(method: str, payload: bytes) -> None:
    """Whoever watches sees the same command as whoever asks."""
    found = record(method, payload)
    assert command_pb2.Command.FromString(command_bytes(found)) == command_message(found)
    message = command_service_pb2.WatchCommandsResponse.FromString(watch_bytes([change_bytes(found)] * 2, TOKEN))
    assert (list(message.commands), message.resume_token) == ([command_message(found)] * 2, TOKEN.encode())
    assert message.revision == 7
    assert (command_message(found).request.request_id, command_message(found).error.code) == ("r", "E-SEED-002")
