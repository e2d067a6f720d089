"""AuditService: who tried to change what and how it was answered, and whether the chain of these rows is whole.

Event loop only. Reads the journal; what is in the rows was written behind the answers by `audit.py`.
"""

import asyncio
from collections.abc import Callable, Iterable

from esper.leyline.v1 import audit_service_pb2 as pb

from esperd.control import shown
from esperd.control.call import Call, Route, Shape
from esperd.control.condition import ConditionBoard
from esperd.control.pages import page_size
from esperd.leyline.errors import EsperdError
from esperd.oona.journal import Journal
from esperd.oona.records import AuditQuery, AuditRow

_SERVICE = "/esper.leyline.v1.AuditService/"
PAUSE_S = 0.05
"""Between two pages of rows, while there is training to protect: a page takes 3 ms, so that a check has the interpreter
for a twentieth of the time and passes 9,000 rows a second."""

MAX_CHECKS = 8
"""Checks under way and waiting for their turn; a long log takes minutes, and anybody may ask."""


class AuditService:
    """Serves the audit log."""

    def __init__(self, *, journal: Journal, conditions: ConditionBoard, is_training: Callable[[], bool]) -> None:
        """`is_training` says whether a check must leave time for training; a daemon that drains breaks it off."""
        self._journal = journal
        self._conditions = conditions
        self._is_training = is_training
        self._turn = asyncio.Lock()
        self._num_checks = 0

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        yield Route(_SERVICE + "ListAuditEntries", Shape.UNARY, pb.ListAuditEntriesRequest, self.list_audit_entries)
        yield Route(_SERVICE + "VerifyAuditLog", Shape.UNARY, pb.VerifyAuditLogRequest, self.verify_audit_log)

    async def list_audit_entries(self, _: Call, request: pb.ListAuditEntriesRequest) -> pb.ListAuditEntriesResponse:
        """A page of rows, newest first."""
        query = AuditQuery(
            principal=request.principal,
            key_id=request.key_id,
            method=request.method,
            decision=request.decision,
            refused_only=request.refused_only,
        )
        page = await self._journal.list_audit(query, page_size(request.page_size), request.page_token)
        entries = [_shown(row) for row in page.rows]
        return pb.ListAuditEntriesResponse(entries=entries, next_page_token=page.next_page_token)

    async def verify_audit_log(self, _: Call, __: pb.VerifyAuditLogRequest) -> pb.VerifyAuditLogResponse:
        """Compute the chain again, one caller after another: each gets what was there after it had asked."""
        if self._num_checks >= MAX_CHECKS:
            raise EsperdError("PACED_OUT")
        self._num_checks += 1
        try:
            async with self._turn:
                verdict = await self._journal.verify_audit(self._pause)
        finally:
            self._num_checks -= 1
        return pb.VerifyAuditLogResponse(
            intact=verdict.intact,
            num_entries=verdict.num_rows,
            head_hash=verdict.head_hash,
            first_bad_number=verdict.first_bad_number,
        )

    async def _pause(self) -> None:
        if self._conditions.now.is_draining:
            raise EsperdError("DRAINING")
        await asyncio.sleep(PAUSE_S if self._is_training() else 0.0)


def _shown(row: AuditRow) -> pb.AuditLogEntry:
    entry = row.entry
    return pb.AuditLogEntry(
        number=row.number,
        time=shown.timestamp(entry.unix_s),
        principal=entry.principal,
        key_id=entry.key_id,
        peer=entry.peer,
        method=entry.method,
        payload_sha256=entry.payload_sha256,
        decision=entry.decision,
        detail=entry.detail,
        previous_hash=row.previous_hash,
        row_hash=row.row_hash,
    )
