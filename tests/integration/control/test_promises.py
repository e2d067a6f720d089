"""The six promises of a watch, by name, for WatchState and WatchCommands alike; what LATEST and slow readers get."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from esper.client.errors import LeylineError, decode_rpc_error
from esper.leyline.v1 import command_pb2, command_service_pb2, state_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.state_service_pb2_grpc import StateServiceStub

from tests.integration.control.stage import Theatre, eventually, fresh_command

SUBMIT_ALL = "/esper.leyline.v1.CommandService/SubmitCommands"
LATEST = state_service_pb2.DELIVERY_POLICY_LATEST


class Watched(ABC):
    """One of the two watches: how it is opened, how its next revision comes about, what a message tells."""

    def __init__(self, stage: Theatre) -> None:
        self.stage = stage

    @abstractmethod
    def open(self, **fields: Any) -> Any:
        """Begin to watch."""

    @abstractmethod
    async def change(self) -> tuple[Hashable, ...]:
        """Make the next revision, of more than one change; returns what a message must tell of it."""

    @abstractmethod
    async def flood(self) -> int:
        """Make more than may wait for one reader; returns the last revision."""

    @abstractmethod
    def told(self, message: Any) -> tuple[Hashable, ...]:
        """What a message tells; empty for a bookmark, or for the first message."""

    async def read(self, call: Any, num: int) -> list[Any]:
        """The next messages that tell of changes."""
        found: list[Any] = []
        async with asyncio.timeout(20):
            while len(found) < num:
                message = await call.read()
                assert message is not grpc.aio.EOF
                if self.told(message):
                    found.append(message)
        return found

    async def begin(self, **fields: Any) -> Any:
        """Begin to watch, and read the first message: from then on nothing is missed."""
        call = self.open(**fields)
        await asyncio.wait_for(call.read(), 10)
        return call

    async def changes(self, num: int) -> list[tuple[Hashable, ...]]:
        """Make several revisions."""
        return [await self.change() for _ in range(num)]


class WatchedState(Watched):
    """WatchState: each revision is a step of the run, and a seed that stands there."""

    def open(self, **fields: Any) -> Any:
        request = state_service_pb2.WatchStateRequest(**fields)
        return StateServiceStub(self.stage.channel).WatchState(request)

    async def change(self) -> tuple[Hashable, ...]:
        trainer = self.stage.trainer
        done = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def step() -> None:
            snapshot = trainer.snapshot
            run = replace(snapshot.run, global_step=snapshot.run.global_step + 1)
            seed = replace(snapshot.seeds[0], alpha=snapshot.seeds[0].alpha + 1.0)
            trainer.publish(run=run, seeds=(seed, *snapshot.seeds[1:]))
            loop.call_soon_threadsafe(done.set_result, (run.global_step, seed.alpha))

        trainer.at_safe_point(step)
        told: tuple[Hashable, ...] = await asyncio.wait_for(done, 10)
        return told

    async def flood(self) -> int:
        trainer, feed = self.stage.trainer, self.stage.server.parts.state.feed
        last = feed.token.revision + 3000

        def many() -> None:
            for step in range(3000):
                run = replace(trainer.snapshot.run, global_step=step, stall="x" * 4096)
                trainer.publish(run=run)

        trainer.at_safe_point(many)
        await eventually(lambda: feed.token.revision == last)
        return last

    def told(self, message: Any) -> tuple[Hashable, ...]:
        if message.WhichOneof("content") != "delta":
            return ()
        return (message.delta.run.global_step, message.delta.seeds[0].alpha)


class WatchedCommands(Watched):
    """WatchCommands: each revision is a batch of three that was accepted; the trainer holds them back."""

    def __init__(self, stage: Theatre) -> None:
        super().__init__(stage)
        stage.trainer.holds_commands = True

    def open(self, **fields: Any) -> Any:
        fields = {"restart_on_gap" if name == "resnapshot_on_gap" else name: value for name, value in fields.items()}
        request = command_service_pb2.WatchCommandsRequest(**fields)
        return CommandServiceStub(self.stage.channel).WatchCommands(request)

    async def change(self) -> tuple[Hashable, ...]:
        return await self.submit(3, "a test")

    async def flood(self) -> int:
        for _ in range(40):
            await self.submit(256, "x" * 1000)
        return self.stage.server.parts.commands.feed.token.revision

    async def submit(self, num: int, reason: str) -> tuple[Hashable, ...]:
        """Have a batch accepted."""
        pause = command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE)
        commands = [fresh_command(self.stage, run_control=pause, reason=reason) for _ in range(num)]
        payload = command_service_pb2.CommandBatch(commands=commands).SerializeToString()
        request = command_service_pb2.SubmitCommandsRequest(envelope=self.stage.envelope(SUBMIT_ALL, payload))
        await CommandServiceStub(self.stage.channel).SubmitCommands(request)
        return tuple(command.request_id for command in commands)

    def told(self, message: Any) -> tuple[Hashable, ...]:
        return tuple(command.request.request_id for command in message.commands)


@pytest.fixture(params=[WatchedState, WatchedCommands], ids=["state", "commands"])
def watched(request: pytest.FixtureRequest, stage: Theatre) -> Watched:
    kind: type[Watched] = request.param
    return kind(stage)


async def until_refused(call: Any) -> tuple[list[Any], LeylineError]:
    """Every message up to the refusal that ends the stream."""
    seen: list[Any] = []
    while True:
        try:
            seen.append(await asyncio.wait_for(call.read(), 20))
        except grpc.aio.AioRpcError as error:
            return seen, decode_rpc_error(error, "")


def all_told(watched: Watched, messages: Sequence[Any]) -> list[tuple[Hashable, ...]]:
    return [watched.told(message) for message in messages]


async def test_ordered(watched: Watched) -> None:
    """Changes come in the order in which they were made, with revisions that only grow."""
    call = await watched.begin()
    made = await watched.changes(30)
    messages = await watched.read(call, 30)
    assert all_told(watched, messages) == made
    revisions = [message.revision for message in messages]
    assert revisions == list(range(revisions[0], revisions[0] + 30))


async def test_unique(watched: Watched) -> None:
    """No change comes twice, however often the watch is cut and resumed."""
    call = await watched.begin()
    made = await watched.changes(20)
    seen: list[Any] = []
    for num in (1, 4, 2, 7, 1, 5):
        seen += await watched.read(call, num)
        call.cancel()
        call = watched.open(resume_token=seen[-1].resume_token)
    told = all_told(watched, seen)
    assert len(set(told)) == len(told) == 20
    made += await watched.changes(1)
    assert all_told(watched, await watched.read(call, 1)) == made[-1:]


async def test_reliable(watched: Watched) -> None:
    """Nothing is missing, also of what came about while nobody was connected."""
    call = await watched.begin()
    made, seen = await watched.changes(3), list[Any]()
    seen += await watched.read(call, 2)
    call.cancel()
    made += await watched.changes(10)
    call = watched.open(resume_token=seen[-1].resume_token)
    made += await watched.changes(3)
    seen += await watched.read(call, 14)
    assert all_told(watched, seen) == made


async def test_atomic(watched: Watched) -> None:
    """All that changed together is in one message, also when it is told again after a resume."""
    call = await watched.begin()
    first, second = await watched.changes(2)
    messages = await watched.read(call, 2)
    assert all_told(watched, messages) == [first, second]
    assert min(len(first), len(second)) > 1
    again = watched.open(resume_token=messages[0].resume_token)
    assert all_told(watched, await watched.read(again, 1)) == [second]


async def test_resumable(watched: Watched) -> None:
    """From the token of every message exactly that follows which had followed it."""
    call = await watched.begin()
    made = await watched.changes(8)
    messages = await watched.read(call, 8)
    for index, message in enumerate(messages[:-1]):
        again = watched.open(resume_token=message.resume_token)
        assert all_told(watched, await watched.read(again, 7 - index)) == made[index + 1 :]
        again.cancel()


async def test_bookmarkable(watched: Watched) -> None:
    """While it is quiet a bookmark says up to where nothing is missing; its token resumes right there."""
    call = await watched.begin(bookmark_interval_s=1)
    await watched.changes(3)
    newest = (await watched.read(call, 3))[-1]
    bookmark = await asyncio.wait_for(call.read(), 10)
    assert watched.told(bookmark) == ()
    assert bookmark.revision == newest.revision
    made = await watched.changes(2)
    again = watched.open(resume_token=bookmark.resume_token)
    assert all_told(watched, await watched.read(again, 2)) == made


async def test_a_token_that_cannot_be_served_is_refused(watched: Watched) -> None:
    """Another start's is OUT_OF_RANGE, or begins now if asked; one of the future and rubbish are INVALID_ARGUMENT."""
    first = await asyncio.wait_for(watched.open().read(), 10)
    future = first.resume_token[:16] + (1 << 40).to_bytes(8, "big")
    refused = ((bytes(24), "REVISION_COMPACTED"), (future, "RESUME_TOKEN_INVALID"), (b"no", "RESUME_TOKEN_INVALID"))
    for token, reason in refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watched.open(resume_token=token).read()
        assert decode_rpc_error(caught.value, "").reason == reason
    anew = watched.open(resume_token=bytes(24), resnapshot_on_gap=True)
    opening = await asyncio.wait_for(anew.read(), 10)
    assert (opening.resume_token, opening.revision) == (first.resume_token, first.revision)
    made = await watched.changes(1)
    assert all_told(watched, await watched.read(anew, 1)) == made


async def test_a_slow_reader_of_every_is_ended_where_it_stands(watched: Watched) -> None:
    """SLOW_CONSUMER with the last revision that was sent; resuming there misses nothing."""
    call = await watched.begin()
    # Nobody reads: gRPC hides the first megabytes, then they wait here, and then there are too many.
    last = await watched.flood()
    seen, error = await until_refused(call)
    assert (error.reason, error.status) == ("SLOW_CONSUMER", "RESOURCE_EXHAUSTED")
    assert error.metadata["revision"] == str(seen[-1].revision)
    assert seen[-1].revision < last
    again = watched.open(resume_token=seen[-1].resume_token)
    missed = await watched.read(again, last - seen[-1].revision)
    assert [message.revision for message in missed] == list(range(seen[-1].revision + 1, last + 1))


async def test_latest_tells_the_newest_state_of_each_command_and_counts_the_rest(stage: Theatre) -> None:
    """What was accepted and settled between two messages is told once, as settled."""
    watched = WatchedCommands(stage)
    call = await watched.begin(delivery=LATEST)
    start = await watched.begin()
    made = {request_id for batch in await watched.changes(10) for request_id in batch}
    stage.trainer.holds_commands = False
    await eventually(lambda: stage.server.parts.commands.num_open == 0)
    states: dict[str, int] = {}
    num_told = num_conflated = revision = 0
    async with asyncio.timeout(10):
        while len(states) < 30 or set(states.values()) != {2}:
            message = await call.read()
            assert message.revision > revision
            revision = message.revision
            num_told, num_conflated = num_told + len(message.commands), num_conflated + message.num_conflated
            states.update({command.request.request_id: command.state for command in message.commands})
    assert set(states) == made
    assert num_told + num_conflated == 60, "30 were accepted and 30 settled"
    # From the beginning all of it is history, so that only the outcomes are left.
    messages = await watched.read(start, 1)
    first = watched.open(resume_token=messages[0].resume_token, delivery=LATEST)
    (rest,) = await watched.read(first, 1)
    assert len(rest.commands) == 30
    assert {command.state for command in rest.commands} == {2}
    assert rest.num_conflated == 27, "the acceptance of the 27 that the first message had not told of"
