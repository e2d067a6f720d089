"""The sync client's methods for RunService: runs.

Any one thread at a time.
"""

from esper.client import plans
from esper.client.sync_methods.caller import Caller
from esper.leyline.v1 import run_service_pb2 as run_pb
from esper.leyline.v1.command_pb2 import Command


class Runs(Caller):
    """Runs."""

    def run(self, run_id: str = "") -> run_pb.GetRunResponse:
        """A run with its emergencies, breakers and lease; the current one unless named."""
        return self._carry_out(plans.run(run_id))

    def runs(self, *, page_size: int = 0, page_token: str = "") -> run_pb.ListRunsResponse:
        """A page of runs, newest first."""
        return self._carry_out(plans.runs(page_size, page_token))

    def stop_run(self, reason: str, *, request_id: str = "") -> Command:
        """End the current run at the next safe point; the daemon stays up."""
        return (self._carry_out(plans.stop_run(reason, request_id or self._signer.new_id()))).command
