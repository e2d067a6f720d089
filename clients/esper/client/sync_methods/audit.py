"""The sync client's methods for AuditService: who tried to change what.

Any one thread at a time.
"""

from esper.client import plans
from esper.client.sync_methods.caller import Caller
from esper.leyline.v1 import audit_service_pb2 as audit_pb


class Audit(Caller):
    """The audit log."""

    def audit_entries(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        principal: str = "",
        key_id: str = "",
        method: str = "",
        decision: str = "",
        refused_only: bool = False,
    ) -> audit_pb.ListAuditEntriesResponse:
        """A page of audit rows, newest first: those of a principal, a key, a method, a decision, or refusals only."""
        request = audit_pb.ListAuditEntriesRequest(
            page_size=page_size,
            page_token=page_token,
            principal=principal,
            key_id=key_id,
            method=method,
            decision=decision,
            refused_only=refused_only,
        )
        return self._carry_out(plans.audit_entries(request))

    def verify_audit_log(self, *, timeout_s: float = plans.VERIFY_S) -> audit_pb.VerifyAuditLogResponse:
        """Have the whole audit chain computed again. Note its head hash elsewhere: it shows a tail that was cut off."""
        return self._carry_out(plans.verify_audit_log(timeout_s))
