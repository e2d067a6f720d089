"""The async client's methods for PolicyService: field reports and decision sessions.

One event loop.
"""

from esper.client import plans
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.calls import DECISION_STREAM
from esper.client.decision_session import DecisionSession
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1.field_report_pb2 import FieldReport
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER, LeaseMode


class AsyncPolicies(AsyncCaller):
    """Field reports and decision sessions."""

    async def field_reports(self, *, page_size: int = 0, page_token: str = "") -> policy_pb.ListFieldReportsResponse:
        """A page of field reports, newest first."""
        return await self._carry_out(plans.field_reports(page_size, page_token))

    async def submit_field_report(self, report: FieldReport) -> policy_pb.SubmitFieldReportResponse:
        """Store a field report; an empty report_id is filled in, and sending an id again changes nothing."""
        return await self._carry_out(plans.submit_field_report(report, self._signer.new_id))

    def decision_session(
        self,
        mode: LeaseMode = LEASE_MODE_STEER,
        policy_name: str = "",
        policy_version: str = "",
        packet_every_steps: int = 0,
    ) -> DecisionSession:
        """A policy's session: an async context manager that holds the lease, and an iterator of decision requests."""
        opening = policy_pb.SessionOpening(
            mode=mode,
            policy_name=policy_name,
            policy_version=policy_version,
            packet_every_steps=packet_every_steps,
        )
        return DecisionSession(self._signed_stream(DECISION_STREAM), opening, new_id=self._signer.new_id)
