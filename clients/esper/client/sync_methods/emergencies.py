"""The sync client's methods for EmergencyService: emergencies.

Any one thread at a time.
"""

from esper.client import plans
from esper.client.sync_methods.caller import Caller
from esper.leyline.v1 import emergency_service_pb2 as emergency_pb
from esper.leyline.v1.vocabulary_pb2 import EmergencyLevel


class Emergencies(Caller):
    """Emergencies."""

    def emergencies(self) -> emergency_pb.ListEmergenciesResponse:
        """Emergencies that stand."""
        return self._carry_out(plans.emergencies())

    def raise_emergency(
        self,
        level: EmergencyLevel,
        reason: str,
        *,
        origin: str = "",
        acknowledge_within_s: float = 2.0,
        request_id: str = "",
    ) -> emergency_pb.RaiseEmergencyResponse:
        """Raise the emergency level; answered when the trainer has acknowledged it."""
        request_id = request_id or self._signer.new_id()
        return self._carry_out(plans.raise_emergency(level, reason, origin, acknowledge_within_s, request_id))

    def clear_emergency(
        self, emergency_id: str, reason: str, *, request_id: str = ""
    ) -> emergency_pb.ClearEmergencyResponse:
        """Clear an emergency."""
        request_id = request_id or self._signer.new_id()
        return self._carry_out(plans.clear_emergency(emergency_id, reason, request_id))
