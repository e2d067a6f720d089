"""Command streams and decision sessions against a real server."""

import asyncio

import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1.command_pb2 import AdaptationCommand
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_APPLIED, LEASE_MODE_STEER

from esperd.leyline.errors import EsperdError
from tests.unit.client.daemon import CREDENTIALS, Daemon


def batch(prefix: str, num: int) -> list[AdaptationCommand]:
    """Commands with readable ids."""
    return [AdaptationCommand(request_id=f"{prefix}-{index}") for index in range(num)]


async def test_batches_are_pipelined_and_receipts_matched_in_order(daemon: Daemon) -> None:
    """Twenty batches under way at once each get their own receipts."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.command_stream() as stream:
        answers = await asyncio.gather(*(stream.send(batch(f"b{number}", 3)) for number in range(20)))
    for number, receipts in enumerate(answers):
        assert [receipt.request_id for receipt in receipts] == [f"b{number}-{index}" for index in range(3)]
    assert len(daemon.commands) == 60


async def test_batch_signed_for_an_old_epoch_is_signed_again(daemon: Daemon) -> None:
    """A refusal inside the stream is adopted like that of a unary call; the others in the stream are not disturbed."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        daemon.refusals = [EsperdError("EPOCH_STALE", epoch=daemon.epoch.hex())]
        async with client.command_stream() as stream:
            first, second = await asyncio.gather(stream.send(batch("a", 1)), stream.send(batch("b", 1)))
    assert [receipts[0].request_id for receipts in (first, second)] == ["a-0", "b-0"]


async def test_refused_batch_is_raised_and_the_stream_goes_on(daemon: Daemon) -> None:
    """A final refusal of one batch is its sender's error alone; one with a time to wait is waited for."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.command_stream() as stream:
        daemon.refusals = [EsperdError("COMMAND_INVALID", detail="x")]
        with pytest.raises(LeylineError, match="E-CMD-001"):
            await stream.send(batch("a", 1))
        daemon.refusals = [EsperdError("COMMAND_BOX_FULL", retry_after_s=0.02)]
        assert (await stream.send(batch("a", 1)))[0].command_id == "c1"


async def test_cut_stream_fails_every_waiting_batch(daemon: Daemon) -> None:
    """Nobody waits for receipts that cannot come, and a later batch fails at once."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.command_stream() as stream:
        cut = [AdaptationCommand(request_id="x", reason="cut")]
        answers = await asyncio.gather(
            stream.send(cut), stream.send(batch("a", 1)), stream.send(batch("b", 1)), return_exceptions=True
        )
        assert all(isinstance(answer, Unreachable) for answer in answers)
        with pytest.raises(Unreachable):
            await stream.send(batch("c", 1))


async def test_session_decides_and_collects_outcomes(daemon: Daemon) -> None:
    """Opening, requests, decisions with filled request_ids, receipts, outcomes, and the end when the daemon drains."""
    async with (
        AsyncClient(daemon.address, CREDENTIALS) as client,
        client.decision_session(LEASE_MODE_STEER, "mine", "3", packet_every_steps=50) as session,
    ):
        assert (session.opened.lease_id, session.opened.run_id) == ("l1", "r1")
        seen = []
        outcomes = []
        async for request in session:
            seen.append(request.packet.global_step)
            last = request.packet.global_step == 2
            commands = [AdaptationCommand(reason="grow")]
            receipt = await session.decide(request.decision_id, commands, "last" if last else "")
            assert receipt.commands[0].command_id
        outcomes.extend(session.take_outcomes())
        assert session.take_outcomes() == []
        assert session.draining
    assert seen[-1] == 2
    assert seen == [1, 2] or session.num_skipped == 1
    assert [outcome.state for outcome in outcomes] == [COMMAND_STATE_APPLIED] * len(seen)
    assert (daemon.openings[0].policy_name, daemon.openings[0].packet_every_steps) == ("mine", 50)
    assert all(decision.commands[0].request_id for decision in daemon.decisions)


async def test_slow_policy_sees_the_newest_packet_only(daemon: Daemon) -> None:
    """A request that was not read in time is replaced by the newer one, and counted."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.decision_session() as session:
        await session.decide("d0")
        request = await anext(session)
        assert request.decision_id == "d2"
        assert session.num_skipped == 1


async def test_refused_decision_is_a_receipt_with_its_error(daemon: Daemon) -> None:
    """A stale decision does not end the session."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.decision_session() as session:
        receipt = await session.decide("d1", rationale="late")
        assert receipt.error.reason == "DECISION_STALE"
        assert not (await session.decide("d2")).HasField("error")


async def test_session_opens_across_a_restart(daemon: Daemon) -> None:
    """A stale epoch at the opening is adopted and the opening signed again."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        await daemon.restart()
        async with client.decision_session() as session:
            assert session.opened.lease_id == "l1"


async def test_taken_lease_is_raised(daemon: Daemon) -> None:
    """LEASE_TAKEN is final and names who steers."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        daemon.refusals = [EsperdError("LEASE_TAKEN", principal="other")]
        with pytest.raises(LeylineError, match="other steers this run"):
            async with client.decision_session():
                pass


async def test_lost_session_is_raised_to_reader_and_decider(daemon: Daemon) -> None:
    """A broken connection ends the iteration with an error, and a decision at once."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client, client.decision_session() as session:
        await anext(session)
        await daemon.stop()
        with pytest.raises(Unreachable):
            [request async for request in session]
        with pytest.raises(Unreachable):
            await session.decide("d9")
