"""What a control plane makes of the commands that an earlier start left without an outcome."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from esper.leyline.v1 import command_pb2 as pb
from esper.leyline.v1 import command_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub

from esperd.control.command_messages import DAEMON
from esperd.control.recorded_commands import own_payload, to_command
from esperd.leyline.commands import Outcome, PolicyPresence
from esperd.leyline.vocabulary import CommandState
from esperd.oona.records import CommandRecord
from tests.integration.control.stage import SUBMIT, Theatre, eventually, open_stage

CULL = pb.AdaptationCommand(
    request_id="r-old", reason="a test", seed_operation=pb.CommandSeedOperation(operation=8), target_seed_id="1"
)
OLD = CommandRecord(
    "old-1", "r-old", "operator", "operator-1", SUBMIT, "seed", CULL.SerializeToString(), bytes(32), 1.8e9, "a test", 1
)


def presence(number: int, *, present: bool, unix_s: float = 1.9e9) -> CommandRecord:
    data = own_payload(PolicyPresence(present, "told"))
    return CommandRecord(f"p-{number}", "", DAEMON, "", DAEMON, "PolicyPresence", data, bytes(32), unix_s, "told")


def applied(record: CommandRecord) -> Outcome:
    return Outcome(record.command_id, CommandState.APPLIED, 100, 5, sequence=1)


async def test_a_command_without_an_outcome_is_in_flight_again(directory: Path) -> None:
    """Its seed is busy, those who watch and wait see it, and its outcome is told like any other."""
    async with open_stage(directory, earlier=[OLD]) as stage:
        board = stage.server.parts.commands
        assert board.is_seed_busy(1)
        assert board.is_open("old-1")
        stub = CommandServiceStub(stage.channel)
        watch = stub.WatchCommands(command_service_pb2.WatchCommandsRequest())
        await watch.read()
        request = command_service_pb2.GetCommandRequest(command_id="old-1", wait_ms=5000)
        asking = asyncio.ensure_future(stub.GetCommand(request))
        await eventually(lambda: bool(board._settlements))
        command = to_command(OLD)
        stage.trainer.at_safe_point(lambda: stage.trainer._apply(command))
        assert (await asking).command.state == CommandState.APPLIED
        told = await _next_change(watch)
        assert (told.command_id, told.state) == ("old-1", CommandState.APPLIED)
        assert not board.is_seed_busy(1)
        watch.cancel()


@pytest.mark.parametrize(
    ("told", "presences"),
    [
        ([presence(1, present=True)], [False]),
        ([presence(1, present=True), presence(2, present=False)], []),
        ([presence(1, present=True, unix_s=1.7e9)], []),
        ([], []),
    ],
    ids=["was there", "had left", "an earlier run's", "none"],
)
async def test_the_trainer_hears_that_its_policy_is_gone(
    directory: Path, told: list[CommandRecord], presences: list[bool]
) -> None:
    """Every session ended with the start that had it; who was not there cannot have gone."""
    async with open_stage(directory, earlier=told, settled=[applied(record) for record in told]) as stage:
        await eventually(lambda: stage.server.parts.recorder.is_idle and stage.server.parts.commands.num_open == 0)
        assert [found.present for found in stage.trainer.presences] == presences


async def test_a_command_that_the_trainer_left_behind_stays_accepted(stage: Theatre) -> None:
    """Durable before the box closed for the run's next start: no outcome is made up for it."""
    held = asyncio.Event()
    accept = stage.journal.accept

    async def slow(records: Any) -> Any:
        answers = await accept(records)
        await held.wait()
        return answers

    stage.journal.accept = slow  # type: ignore[method-assign]
    command = pb.AdaptationCommand(request_id="late", reason="a test", run_control=pb.CommandRunControl(action=1))
    request = command_service_pb2.SubmitCommandRequest(envelope=stage.envelope(SUBMIT, command.SerializeToString()))
    asking = asyncio.ensure_future(CommandServiceStub(stage.channel).SubmitCommand(request))
    await eventually(lambda: stage.journal.revision > 1)
    stage.bridge.close("STOPPING", keep_unsettled=True)
    held.set()
    assert (await asking).command.state == CommandState.ACCEPTED
    assert [record.request_id for record in await stage.journal.unsettled()] == ["late"]


async def _next_change(watch: Any) -> pb.Command:
    while True:
        message = await watch.read()
        if message.commands:
            found: pb.Command = message.commands[0]
            return found
