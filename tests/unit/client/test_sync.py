"""The sync client: the same methods, the same behaviour, no event loop of its own."""

import asyncio
import inspect
from collections.abc import Callable
from typing import TypeVar

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError, Unreachable
from esper.client.sync import Client
from esper.leyline.v1.command_pb2 import AdaptationCommand
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED

from esperd.leyline.errors import EsperdError
from tests.unit.client.daemon import CREDENTIALS, Daemon

ASYNC_ONLY = {"command_stream", "decision_session"}
T = TypeVar("T")


def public(client: type) -> dict[str, inspect.Signature]:
    """The public methods with their parameters; what they return differs by async and iterators alone."""
    return {
        name: inspect.signature(method).replace(return_annotation=inspect.Signature.empty)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_methods() -> None:
    """Names, parameters and defaults are those of the async client, except for what is async by nature."""
    assert public(Client) == {name: value for name, value in public(AsyncClient).items() if name not in ASYNC_ONLY}


async def away(work: Callable[[], T]) -> T:
    """Do blocking work while the server's loop goes on."""
    return await asyncio.to_thread(work)


async def test_calls_sign_wait_and_decode_like_the_async_client(daemon: Daemon) -> None:
    """Reads, a skewed clock, RetryInfo, waiting for the outcome, and refusals, in one session."""
    daemon.clock_offset_s = -7200.0
    daemon.polls_until_applied = 2

    def work() -> None:
        with Client(daemon.address, CREDENTIALS) as client:
            assert client.run().run.global_step == 7
            assert client.submit(AdaptationCommand(), wait=True).state == COMMAND_STATE_APPLIED
            daemon.refusals = [EsperdError("PACED_OUT", retry_after_s=0.02)]
            assert client.submit(AdaptationCommand(request_id="x")).request.request_id == "x"
            daemon.refusals = [EsperdError("SEED_STAGE")]
            with pytest.raises(LeylineError, match="E-SEED-002") as caught:
                client.submit(AdaptationCommand())
            assert caught.value.status == "FAILED_PRECONDITION"

    await away(work)
    assert daemon.attempts.count("CommandService/SubmitCommand") == 5


async def test_watch_resumes_and_can_be_left(daemon: Daemon) -> None:
    """A cut is bridged by the resume token; leaving the iterator ends the stream."""
    daemon.stream_errors = [EsperdError("SLOW_CONSUMER"), None]

    def work() -> list[int]:
        with Client(daemon.address) as client:
            watch = client.watch_state()
            return [next(watch).revision for _ in range(5)]

    assert await away(work) == [1, 2, 3, 4, 5]


async def test_nobody_there(daemon: Daemon) -> None:
    """Unreachable, at once."""
    await daemon.stop()

    def work() -> None:
        with Client(daemon.address) as client, pytest.raises(Unreachable, match="E-CLI-001"):
            client.run()

    await away(work)
