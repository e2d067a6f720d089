"""PolicyService: sessions of policies, and their field reports.

Event loop only. A session reads signed answers and writes packets, receipts and outcomes through a bounded outbox, so
that a policy which stops reading, answers rubbish or dies costs its lease and nothing else.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

from esper.leyline.v1 import field_report_pb2, policy_service_pb2

from esperd.control.asked import read_report
from esperd.control.call import Call, Receive, Route, Send, Shape
from esperd.control.errors import InvalidRequest
from esperd.control.gate import Gate
from esperd.control.pages import page_size
from esperd.control.policy_sessions import PolicySession, PolicySessions
from esperd.control.validation import decode, parse
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import Verified
from esperd.leyline.vocabulary import LeaseMode
from esperd.oona.failures import DuplicateRecord
from esperd.oona.journal import Journal
from esperd.oona.records import FieldReportRecord, HistoryQuery, RowKind

_SERVICE = "/esper.leyline.v1.PolicyService/"


class PolicyService:
    """Serves policies."""

    def __init__(
        self,
        *,
        sessions: PolicySessions,
        gate: Gate,
        policy: MethodPolicy,
        journal: Journal,
        clock: Callable[[], float],
        global_step: Callable[[], int],
    ) -> None:
        """`policy` is DecisionStream's; `global_step` the step that a field report is dated with."""
        self._sessions = sessions
        self._gate = gate
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._global_step = global_step
        self._numbers = itertools.count(1)

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        request = policy_service_pb2
        yield Route(_SERVICE + "DecisionStream", Shape.SESSION, request.DecisionStreamRequest, self.decision_stream)
        yield Route(_SERVICE + "SubmitFieldReport", Shape.UNARY, request.SubmitFieldReportRequest, self.submit_report)
        yield Route(_SERVICE + "ListFieldReports", Shape.UNARY, request.ListFieldReportsRequest, self.list_reports)

    async def decision_stream(self, call: Call, receive: Receive, send: Send) -> None:
        """One session, from its opening to its end."""
        first = await receive()
        if first is None:
            return
        verified = self._gate.verify(self._policy, first.envelope, call)
        try:
            session = self._open(verified)
        except EsperdError as refusal:
            self._gate.note(self._policy, verified, call, refusal)
            raise
        self._gate.note(self._policy, verified, call)
        why = "its stream broke"
        try:
            await self._serve(call, session, receive, send)
            why = "it left"
        except EsperdError as error:
            why = f"its stream was ended: {error.reason}"
            raise
        finally:
            self._sessions.close(session, f"{session.principal}: {why}")

    async def submit_report(self, call: Call, data: bytes) -> policy_service_pb2.SubmitFieldReportResponse:
        """Store a report once, however often it is sent."""
        report = read_report(parse(field_report_pb2.FieldReport, data))
        record = FieldReportRecord(
            report.report_id,
            call.signer.principal,
            report.command_id,
            report.seed_id,
            report.outcome,
            self._global_step(),
            self._clock(),
            data,
        )
        try:
            await self._journal.append(record)
        except DuplicateRecord:
            return policy_service_pb2.SubmitFieldReportResponse(duplicate=True)
        return policy_service_pb2.SubmitFieldReportResponse()

    async def list_reports(
        self, _: Call, request: policy_service_pb2.ListFieldReportsRequest
    ) -> policy_service_pb2.ListFieldReportsResponse:
        """Reports in the journal's order."""
        query = HistoryQuery(kinds=(RowKind.FIELD_REPORT,))
        page = await self._journal.list_history(query, page_size(request.page_size), request.page_token)
        reports = [
            field_report_pb2.FieldReport.FromString(row.record.data)
            for row in page.rows
            if isinstance(row.record, FieldReportRecord)
        ]
        return policy_service_pb2.ListFieldReportsResponse(reports=reports, next_page_token=page.next_page_token)

    def _open(self, verified: Verified) -> PolicySession:
        opening = parse(policy_service_pb2.SessionOpening, verified.payload)
        return self._sessions.open(
            number=next(self._numbers),
            mode=LeaseMode(opening.mode),
            principal=verified.principal,
            key_id=verified.key_id,
            policy=f"{opening.policy_name} {opening.policy_version}".strip(),
            packet_every_steps=opening.packet_every_steps,
        )

    async def _serve(self, call: Call, session: PolicySession, receive: Receive, send: Send) -> None:
        reader = asyncio.get_running_loop().create_task(self._read(call, session, receive))
        reader.add_done_callback(lambda done: session.outbox.end(None if done.cancelled() else done.exception()))
        try:
            while (message := await session.outbox.take()) is not None:
                await send(message)
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _read(self, call: Call, session: PolicySession, receive: Receive) -> None:
        while (message := await receive()) is not None:
            verified = self._gate.verify(self._policy, message.envelope, call)
            # Its rules are looked at where a broken one is answered by a receipt: it does not end the session.
            decision = decode(policy_service_pb2.PolicyDecision, verified.payload)
            refusal = await self._decide(session, verified, decision)
            self._gate.note(self._policy, verified, call, refusal)

    async def _decide(
        self, session: PolicySession, verified: Verified, decision: policy_service_pb2.PolicyDecision
    ) -> EsperdError | None:
        """Carry out one decision and write its receipt; returns why it was refused, if it was."""
        try:
            if verified.principal != session.principal:
                raise EsperdError("LEASE_LOST", detail=f"this session is {session.principal}'s")
            commands = await self._sessions.decide(session, decision.decision_id, verified.payload, decision.rationale)
        except InvalidRequest as error:
            self._sessions.spoil(session)
            session.put_receipt(decision.decision_id, [], error)
            return error
        except EsperdError as error:
            session.put_receipt(decision.decision_id, [], error)
            return error
        session.put_receipt(decision.decision_id, commands, None)
        return None
