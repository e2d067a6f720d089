"""The audit log over the wire and on the command line: what is in it, how it is narrowed, and that a forgery shows."""

import asyncio
import json
import sqlite3

import grpc
import pytest
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError
from esper.leyline.v1.emergency_service_pb2 import EmergencySignal, RaiseEmergencyRequest
from esper.leyline.v1.emergency_service_pb2_grpc import EmergencyServiceStub
from esper.leyline.v1.vocabulary_pb2 import EMERGENCY_LEVEL_HALT

from tests.integration.control.stage import SUBMIT, Theatre, eventually, fresh_command

RAISE = "/esper.leyline.v1.EmergencyService/RaiseEmergency"


async def commanded(stage: Theatre) -> None:
    """One command by the operator, one refusal for a lack of permission, one for an unknown key."""
    async with AsyncClient(stage.address, stage.credentials("operator")) as client:
        await client.submit(fresh_command(stage))
    for who, reason in (("reader", "PERMISSION_REQUIRED"), ("old", "KEY_NOT_ACTIVE")):
        async with AsyncClient(stage.address, stage.credentials(who)) as client:
            with pytest.raises(LeylineError) as caught:
                await client.submit(fresh_command(stage))
            assert caught.value.reason == reason
    await eventually(lambda: stage.server.parts.recorder.is_idle)


async def test_rows_come_newest_first_and_can_be_narrowed(stage: Theatre) -> None:
    """Who, with which key, what, how it was answered; every filter says the same of the same rows."""
    await commanded(stage)
    async with AsyncClient(stage.address) as client:
        rows = (await client.audit_entries()).entries
        assert [row.number for row in rows] == [3, 2, 1]
        assert [row.decision for row in rows] == ["KEY_NOT_ACTIVE", "PERMISSION_REQUIRED", "OK"]
        ok = rows[-1]
        assert (ok.principal, ok.key_id, ok.method) == ("operator", "operator-1", SUBMIT)
        assert len(ok.payload_sha256) == len(ok.row_hash) == 32
        assert rows[0].previous_hash == rows[1].row_hash

        async def numbers(**narrowed: object) -> list[int]:
            return [row.number for row in (await client.audit_entries(**narrowed)).entries]  # type: ignore[arg-type]

        assert [(row.principal, len(row.payload_sha256)) for row in rows[:2]] == [("", 0), ("reader", 32)]
        assert await numbers(principal="operator") == [1]
        assert await numbers(principal="reader") == [2]
        assert await numbers(key_id="reader-1") == [2]
        assert await numbers(method="SubmitCommand") == await numbers(method=SUBMIT) == [3, 2, 1]
        assert await numbers(method="StopRun") == []
        assert await numbers(decision="KEY_NOT_ACTIVE") == [3]
        assert await numbers(refused_only=True) == [3, 2]


async def test_who_leaves_before_the_answer_has_a_row(stage: Theatre) -> None:
    """What was asked for may be done although its caller has hung up: it is in the log all the same."""
    stage.trainer.is_stuck.set()
    signal = EmergencySignal(request_id=stage.request_id(), level=EMERGENCY_LEVEL_HALT, reason="a test")
    request = RaiseEmergencyRequest(envelope=stage.envelope(RAISE, signal.SerializeToString()))
    call = EmergencyServiceStub(stage.channel).RaiseEmergency(request)
    waiting = asyncio.ensure_future(call.code())
    await eventually(lambda: any(stage.bridge.depths().values()))
    call.cancel()
    assert await waiting is grpc.StatusCode.CANCELLED
    async with AsyncClient(stage.address) as client:
        async with asyncio.timeout(10.0):
            while not (rows := (await client.audit_entries()).entries):
                await asyncio.sleep(0.01)
    assert [(row.principal, row.method, row.decision) for row in rows] == [("operator", RAISE, "OK")]
    assert "left before" in rows[0].detail


async def test_pages_follow_one_another(stage: Theatre) -> None:
    """A page's token goes on where it ended; a token of another list is refused."""
    await commanded(stage)
    async with AsyncClient(stage.address) as client:
        first = await client.audit_entries(page_size=2)
        rest = await client.audit_entries(page_size=2, page_token=first.next_page_token)
        assert [row.number for row in (*first.entries, *rest.entries)] == [3, 2, 1]
        assert not rest.next_page_token
        with pytest.raises(LeylineError) as caught:
            await client.audit_entries(page_token="no such")
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


async def test_a_whole_chain_is_intact_and_a_changed_row_is_found(stage: Theatre) -> None:
    """Whoever can write the file can change a row, but not without a trace."""
    await commanded(stage)
    async with AsyncClient(stage.address) as client:
        found = await client.verify_audit_log()
        newest = (await client.audit_entries(page_size=1)).entries[0]
        assert (found.intact, found.num_entries, found.head_hash) == (True, 3, newest.row_hash)
        forge(stage)
        found = await client.verify_audit_log()
        assert (found.intact, found.first_bad_number) == (False, 2)


async def test_checks_wait_for_each_other(stage: Theatre) -> None:
    """Several callers at once all get their answer."""
    await commanded(stage)
    async with AsyncClient(stage.address) as client:
        answers = await asyncio.gather(*(client.verify_audit_log() for _ in range(5)))
    assert all(answer.intact for answer in answers)


async def test_esperctl_audit_list(stage: Theatre) -> None:
    """A table for eyes, JSON for scripts; an unproven caller is shown by the key it claimed."""
    await commanded(stage)
    table = (await stage.ctl("audit", "list")).stdout
    assert "SubmitCommand  PERMISSION_REQUIRED" in table
    found = json.loads((await stage.ctl("audit", "list", "--refused", "--limit", "1", "-o", "json")).stdout)
    assert [entry["decision"] for entry in found["entries"]] == ["KEY_NOT_ACTIVE"]
    assert "more with --page-token" in (await stage.ctl("audit", "list", "--limit", "1")).stdout
    assert (await stage.ctl("audit", "list", "--principal", "nobody")).stdout == "nothing was tried\n"


async def test_esperctl_audit_verify(stage: Theatre) -> None:
    """0 and the head hash while it is whole; 1 when it is broken, or when a hash that was noted is no longer there."""
    await commanded(stage)
    async with AsyncClient(stage.address) as client:
        rows = (await client.audit_entries()).entries
    whole = await stage.ctl("audit", "verify", "--noted", rows[1].row_hash.hex())
    assert (whole.exit_code, rows[0].row_hash.hex() in whole.stdout) == (0, True)
    cut = await stage.ctl("audit", "verify", "--noted", "ab" * 32)
    assert (cut.exit_code, "cut off" in cut.stderr) == (1, True)
    forge(stage)
    broken = await stage.ctl("audit", "verify")
    assert (broken.exit_code, "broken at row 2" in broken.stderr) == (1, True)


def forge(stage: Theatre) -> None:
    """Change the second row in the file, as somebody who owns it could."""
    connection = sqlite3.connect(stage.directory / "journal.db", isolation_level=None)
    connection.execute("DROP TRIGGER audit_is_not_changed")
    connection.execute("UPDATE audit SET decision = 'OK' WHERE number = 2")
    connection.close()
