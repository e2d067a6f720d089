"""The sync client's methods for RunService: runs.

Any one thread at a time.
"""

import time

from esper.client import plans
from esper.client.errors import LeylineError
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

    def start_run(
        self, reason: str, *, after_run_id: str = "", wait: bool = False, timeout_s: float | None = None
    ) -> str:
        """Have the daemon begin another run after the one that is over; returns its id.

        `after_run_id` is the run that is over, the current one unless named: a call that is repeated begins one run
        only. The daemon ends its streams and calls and serves again with a new epoch; with `wait` this returns once
        it does, at the latest after `timeout_s` (60 s unless stated).
        """
        patience = self._patience(timeout_s)
        after_run_id = after_run_id or self.run().run.run_id
        run_id = self._carry_out(plans.start_run(after_run_id, reason), timeout_s).run_id
        while wait and patience.remaining_s() > 0:
            try:
                if self.run().run.run_id == run_id:
                    break
                time.sleep(plans.LOOK_AGAIN_S)
            except LeylineError as error:
                time.sleep(patience.after(error))
        return run_id

    def stop_run(self, reason: str, *, request_id: str = "") -> Command:
        """End the current run at the next safe point; the daemon stays up."""
        return self._carry_out(plans.stop_run(reason, request_id or self._signer.new_id())).command
