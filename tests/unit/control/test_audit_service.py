"""A check of a long audit log: it leaves time for others, and a daemon that drains breaks it off."""

import asyncio

import pytest
from esper.leyline.v1 import audit_service_pb2 as pb

from esperd.control.audit_service import MAX_CHECKS, AuditService
from esperd.control.call import Call
from esperd.control.condition import ConditionBoard
from esperd.leyline.errors import EsperdError
from esperd.oona.journal import AUDIT_PAGE_ROWS
from esperd.oona.memory_journal import MemoryJournal
from tests.unit.oona.samples import audit

CALL = Call("/esper.leyline.v1.AuditService/VerifyAuditLog", "unix:")
NUM_ROWS = 3 * AUDIT_PAGE_ROWS + 1


@pytest.fixture
async def journal() -> MemoryJournal:
    found = MemoryJournal()
    await found.append(*(audit(str(number)) for number in range(NUM_ROWS)))
    return found


def serving(journal: MemoryJournal) -> tuple[AuditService, ConditionBoard]:
    conditions = ConditionBoard()
    return AuditService(journal=journal, conditions=conditions, is_training=lambda: False), conditions


async def test_others_have_their_turn_between_pages(journal: MemoryJournal) -> None:
    """Rows are read page by page; callers that come meanwhile wait for theirs."""
    service, _ = serving(journal)
    first, second = (
        asyncio.ensure_future(service.verify_audit_log(CALL, pb.VerifyAuditLogRequest())) for _ in range(2)
    )
    num_turns = 0
    while not first.done():
        num_turns += 1
        await asyncio.sleep(0)
    assert num_turns >= 3
    assert not second.done()
    await journal.append(audit("meanwhile"))
    assert ((await first).num_entries, (await second).num_entries) == (NUM_ROWS, NUM_ROWS + 1)


async def test_a_drain_breaks_a_check_off(journal: MemoryJournal) -> None:
    """Within a page, also for those who wait for their turn: nobody is told of a chain that was not read."""
    service, conditions = serving(journal)
    checks = [asyncio.ensure_future(service.verify_audit_log(CALL, pb.VerifyAuditLogRequest())) for _ in range(2)]
    await asyncio.sleep(0)
    conditions.drain()
    for check in checks:
        with pytest.raises(EsperdError) as caught:
            await check
        assert caught.value.reason == "DRAINING"


async def test_checks_do_not_pile_up(journal: MemoryJournal) -> None:
    """Reads are unsigned: who asks for check after check is told to come again, and leaves room for other calls."""
    service, _ = serving(journal)
    asked = [
        asyncio.ensure_future(service.verify_audit_log(CALL, pb.VerifyAuditLogRequest())) for _ in range(MAX_CHECKS + 5)
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer.reason for answer in answers if isinstance(answer, EsperdError)]
    assert refused == ["PACED_OUT"] * 5
    assert (await service.verify_audit_log(CALL, pb.VerifyAuditLogRequest())).intact
