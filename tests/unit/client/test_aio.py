"""The async client against a real server: signing anew, waiting, resuming, and what is never tried again."""

import asyncio
import time

import pytest
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1.command_pb2 import AdaptationCommand
from esper.leyline.v1.state_service_pb2 import WatchStateResponse
from esper.leyline.v1.vocabulary_pb2 import COMMAND_STATE_ACCEPTED, COMMAND_STATE_APPLIED

from esperd.leyline.errors import EsperdError
from tests.unit.client.daemon import CREDENTIALS, SECRET, Daemon

SUBMIT = "CommandService/SubmitCommand"
INFO = "ServerService/GetServerInfo"


async def test_reads_need_no_key(daemon: Daemon) -> None:
    """A client without credentials looks at the run."""
    async with AsyncClient(daemon.address) as client:
        assert (await client.run()).run.global_step == 7
        assert (await client.server_info()).server_id == "daemon-1"


async def test_submit_signs_and_fills_the_request_id(daemon: Daemon) -> None:
    """The daemon's identity is asked once; the caller's message is left as it is."""
    command = AdaptationCommand(reason="because")
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        first = await client.submit(command)
        second = await client.submit(AdaptationCommand(request_id="mine"))
    assert first.state == COMMAND_STATE_ACCEPTED
    assert len(first.request.request_id) == 32
    assert second.request.request_id == "mine"
    assert command.request_id == ""
    assert daemon.attempts == [INFO, SUBMIT, SUBMIT]


async def test_submit_waits_for_the_outcome(daemon: Daemon) -> None:
    """`wait` asks until the command is final; time that runs out leaves it ACCEPTED."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        daemon.polls_until_applied = 3
        assert (await client.submit(AdaptationCommand(), wait=True)).state == COMMAND_STATE_APPLIED
        assert daemon.attempts.count("CommandService/GetCommand") == 3
        daemon.polls_until_applied = 10**9
        unsettled = await client.submit(AdaptationCommand(), wait=True, timeout_s=0.2)
        assert unsettled.state == COMMAND_STATE_ACCEPTED


async def test_waiting_for_an_outcome_rides_out_a_restart(daemon: Daemon) -> None:
    """The daemon goes away after it has accepted; the outcome is found when it is back."""
    daemon.polls_until_applied = 10**9
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        accepted = await client.submit(AdaptationCommand())
        await daemon.stop()
        waiting = asyncio.create_task(client.outcome(accepted))
        await asyncio.sleep(0.15)
        assert not waiting.done()
        daemon.polls_until_applied = 1
        await daemon.start()
        assert (await waiting).state == COMMAND_STATE_APPLIED
        await daemon.stop()
        with pytest.raises(Unreachable):
            await client.outcome(accepted, timeout_s=0.3)


async def test_change_without_a_key_is_refused_before_any_call(daemon: Daemon) -> None:
    """NO_KEY comes from the client itself."""
    async with AsyncClient(daemon.address) as client:
        with pytest.raises(LeylineError, match="E-CLI-002") as caught:
            await client.submit(AdaptationCommand())
    assert caught.value.reason == "NO_KEY"
    assert daemon.attempts == []


async def test_stale_epoch_is_adopted_and_signed_again_once(daemon: Daemon) -> None:
    """After a restart of the daemon the same command goes through with the same request_id and a new nonce."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.submit(AdaptationCommand())
        await daemon.restart()
        daemon.attempts.clear()
        command = await client.submit(AdaptationCommand(request_id="across"))
        assert command.request.request_id == "across"
        assert daemon.attempts[-2:] == [SUBMIT, SUBMIT]
        daemon.attempts.clear()
        await client.submit(AdaptationCommand())
        assert daemon.attempts == [SUBMIT]


async def test_skewed_clock_is_adopted_and_signed_again_once(daemon: Daemon) -> None:
    """A client whose clock is wrong by an hour signs by the daemon's clock from then on."""
    daemon.clock_offset_s = 3600.0
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.submit(AdaptationCommand())
        await client.submit(AdaptationCommand())
    assert daemon.attempts == [INFO, SUBMIT, SUBMIT, SUBMIT]
    assert len(set(daemon.nonces)) == len(daemon.nonces) == 2


async def test_adopting_does_not_go_round_in_circles(daemon: Daemon) -> None:
    """A daemon that calls every epoch stale is asked twice, then believed."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        daemon.refusals = [EsperdError("EPOCH_STALE", epoch="00" * 16) for _ in range(5)]
        with pytest.raises(LeylineError) as caught:
            await client.submit(AdaptationCommand())
    assert caught.value.reason == "EPOCH_STALE"
    assert daemon.attempts.count(SUBMIT) == 2


@pytest.mark.parametrize("reason", ["JOURNAL_UNAVAILABLE", "COMMAND_BOX_FULL", "PACED_OUT", "DRAINING"])
async def test_retry_info_is_waited_for_with_the_same_request_id(daemon: Daemon, reason: str) -> None:
    """UNAVAILABLE and RESOURCE_EXHAUSTED with RetryInfo are tried again after that time."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        daemon.refusals = [EsperdError(reason, retry_after_s=0.05), EsperdError(reason, retry_after_s=0.05)]
        begun = time.monotonic()
        command = await client.submit(AdaptationCommand(request_id="same"))
        assert time.monotonic() - begun >= 0.1
        assert command.request.request_id == "same"
        assert daemon.attempts.count(SUBMIT) == 3
        daemon.refusals = [EsperdError("PACED_OUT", retry_after_s=0.01)]
        assert (await client.run()).run.run_id == "r1"


async def test_retry_info_beyond_the_deadline_is_not_waited_for(daemon: Daemon) -> None:
    """A call ends at once when its time would run out before the next attempt; the error says when to come back."""
    async with AsyncClient(daemon.address, CREDENTIALS, timeout_s=5.0) as client:
        await client.server_info()
        daemon.refusals = [EsperdError("PACED_OUT", retry_after_s=60)]
        with pytest.raises(LeylineError) as caught:
            await client.submit(AdaptationCommand())
    assert caught.value.retry_after_s == 60.0


@pytest.mark.parametrize("reason", ["STATE_CHANGED", "SEED_STAGE", "REQUEST_ID_REUSED", "JOURNAL_UNREADABLE"])
async def test_other_refusals_are_final(daemon: Daemon, reason: str) -> None:
    """What waiting cannot mend is raised after one attempt, with the catalogue's words."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.server_info()
        refusal = EsperdError(reason, revision=4)
        daemon.refusals = [refusal]
        with pytest.raises(LeylineError) as caught:
            await client.submit(AdaptationCommand())
    error = caught.value
    assert (error.reason, error.status, str(error)) == (reason, refusal.entry.status, refusal.message)
    assert error.metadata == {"revision": "4"}
    assert daemon.attempts.count(SUBMIT) == 1


async def test_field_violations_are_decoded(daemon: Daemon) -> None:
    """BadRequest comes out as pairs of field and problem."""
    async with AsyncClient(daemon.address) as client:
        daemon.refusals = [EsperdError("COMMAND_INVALID", field="alpha.target", detail="x")]
        with pytest.raises(LeylineError) as caught:
            await client.run()
    assert caught.value.violations == (("alpha.target", "bad"),)


async def test_wrong_secret_is_refused_not_repeated(daemon: Daemon) -> None:
    """SIGNATURE_INVALID is final, and the secret shows nowhere in it."""
    wrong = Credentials("policy-1", "policy", SECRET[::-1])
    async with AsyncClient(daemon.address, wrong) as client:
        with pytest.raises(LeylineError) as caught:
            await client.submit(AdaptationCommand())
    assert caught.value.reason == "SIGNATURE_INVALID"
    assert daemon.attempts.count(SUBMIT) == 1
    assert wrong.secret.hex() not in repr(wrong)
    assert repr(wrong.secret) not in repr(wrong)


async def test_nobody_there_is_told_at_once(daemon: Daemon) -> None:
    """A first contact that fails is not waited for, reads and changes alike."""
    await daemon.stop()
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        for call in (client.run(), client.submit(AdaptationCommand())):
            begun = time.monotonic()
            with pytest.raises(Unreachable, match="E-CLI-001: No daemon answers at unix:") as caught:
                await call
            assert time.monotonic() - begun < 2.0
            assert caught.value.reason == "DAEMON_UNREACHABLE"


async def test_cut_connection_is_bridged_for_changes(daemon: Daemon) -> None:
    """A signed call rides out a restart of the daemon within its deadline; it is applied once."""
    async with AsyncClient(daemon.address, CREDENTIALS) as client:
        await client.submit(AdaptationCommand())
        await daemon.stop()
        submitting = asyncio.create_task(client.submit(AdaptationCommand(request_id="once")))
        await asyncio.sleep(0.15)
        assert not submitting.done()
        await daemon.start()
        assert (await submitting).request.request_id == "once"
        assert len(daemon.commands) == 2


async def take(stream: object, num: int) -> list[WatchStateResponse]:
    """The first messages of a watch."""
    taken: list[WatchStateResponse] = []
    async for response in stream:  # type: ignore[attr-defined]
        taken.append(response)
        if len(taken) == num:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return taken


@pytest.mark.parametrize("reason", [None, "SLOW_CONSUMER", "DRAINING", "JOURNAL_UNAVAILABLE"])
async def test_watch_resumes_where_it_was_cut(daemon: Daemon, reason: str | None) -> None:
    """Clean ends, slow-consumer cuts and drains are bridged by the resume token: nothing twice, nothing missed."""
    ending = None if reason is None else EsperdError(reason, retry_after_s=0.01)
    daemon.stream_errors = [ending, ending]
    async with AsyncClient(daemon.address) as client:
        responses = await take(client.watch_state(), 6)
    assert [response.revision for response in responses] == [1, 2, 3, 4, 5, 6]
    assert daemon.tokens == [b"", b"2", b"4"]


async def test_watch_survives_a_restart_of_the_daemon(daemon: Daemon) -> None:
    """A broken connection is bridged, too."""
    async with AsyncClient(daemon.address) as client:
        watch = client.watch_state()
        assert [(await anext(watch)).revision for _ in range(2)] == [1, 2]
        await daemon.restart()
        assert [(await anext(watch)).revision for _ in range(2)] == [3, 4]
        await watch.aclose()  # type: ignore[attr-defined]


async def test_watch_without_reconnecting_ends_at_the_first_cut(daemon: Daemon) -> None:
    """`reconnect_s=0` ends with the stream: quietly when the daemon ended it, with its error otherwise."""
    daemon.stream_errors = [None, EsperdError("SLOW_CONSUMER", revision=2)]
    async with AsyncClient(daemon.address) as client:
        assert len([response async for response in client.watch_state(reconnect_s=0)]) == 2
        with pytest.raises(LeylineError, match="E-SRV-004"):
            async for _ in client.watch_state(reconnect_s=0):
                pass


async def test_watch_raises_what_resuming_cannot_mend(daemon: Daemon) -> None:
    """A token that is too old, and a daemon that never answered, are errors."""
    daemon.stream_errors = [EsperdError("REVISION_COMPACTED", floor=9)]
    async with AsyncClient(daemon.address) as client:
        with pytest.raises(LeylineError, match="E-SRV-005"):
            async for _ in client.watch_state(resnapshot=False):
                pass
        await daemon.stop()
        with pytest.raises(Unreachable):
            await anext(client.watch_state())


@pytest.mark.parametrize("address", ["", "unix:", "unix:" + "/x" * 60, "localhost", "localhost:0", "localhost:x"])
def test_bad_address_is_refused_at_once(address: str) -> None:
    """An address that cannot be one is named before anything is opened."""
    with pytest.raises(Unreachable, match="E-CLI-001"):
        AsyncClient(address)


async def test_client_must_be_entered(daemon: Daemon) -> None:
    """A client that is not open says so."""
    with pytest.raises(RuntimeError, match="not open"):
        await AsyncClient(daemon.address).run()
