"""The sync client's methods for PolicyService: field reports and decision sessions.

Any one thread at a time.
"""

from esper.client import plans
from esper.client.sync_methods.caller import Caller
from esper.leyline.v1 import policy_service_pb2 as policy_pb
from esper.leyline.v1.field_report_pb2 import FieldReport


class Policies(Caller):
    """Field reports and decision sessions."""

    def field_reports(self, *, page_size: int = 0, page_token: str = "") -> policy_pb.ListFieldReportsResponse:
        """A page of field reports, newest first."""
        return self._carry_out(plans.field_reports(page_size, page_token))

    def submit_field_report(self, report: FieldReport) -> policy_pb.SubmitFieldReportResponse:
        """Store a field report; an empty report_id is filled in, and sending an id again changes nothing."""
        return self._carry_out(plans.submit_field_report(report, self._signer.new_id))
