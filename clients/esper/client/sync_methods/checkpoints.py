"""The sync client's methods for CheckpointService: checkpoints.

Any one thread at a time.
"""

from esper.client import plans
from esper.client.sync_methods.caller import Caller
from esper.leyline.v1 import checkpoint_service_pb2 as checkpoint_pb


class Checkpoints(Caller):
    """Checkpoints."""

    def checkpoints(
        self, *, page_size: int = 0, page_token: str = "", run_id: str = "", all_runs: bool = False
    ) -> checkpoint_pb.ListCheckpointsResponse:
        """A page of checkpoints, newest first, and the states that memory holds; of the current run unless named."""
        return self._carry_out(plans.checkpoints(page_size, page_token, run_id, all_runs))

    def checkpoint_info(self, checkpoint_id: str, *, run_id: str = "") -> checkpoint_pb.GetCheckpointResponse:
        """One checkpoint with its manifest; of the current run unless named."""
        return self._carry_out(plans.checkpoint_info(checkpoint_id, run_id))

    def verify_checkpoint(
        self, checkpoint_id: str, *, run_id: str = "", timeout_s: float = plans.VERIFY_S
    ) -> checkpoint_pb.VerifyCheckpointResponse:
        """Have every file of a checkpoint read and compared; without problems it is sound."""
        return self._carry_out(plans.verify_checkpoint(checkpoint_id, run_id, timeout_s))

    def prune_checkpoints(
        self,
        *,
        keep: int = 0,
        keep_requested: int | None = None,
        run_id: str = "",
        dry_run: bool = False,
        reason: str = "",
    ) -> checkpoint_pb.PruneCheckpointsResponse:
        """Remove all but the newest `keep` scheduled checkpoints (0: as many as the daemon is configured to keep).

        Of those that a command asked for the newest `keep_requested` stay, all of them without it; the newest good one
        stays in any case. With `dry_run` nothing is removed.
        """
        return self._carry_out(plans.prune_checkpoints(keep, keep_requested, run_id, dry_run, reason))

    def export_checkpoint(
        self,
        checkpoint_id: str,
        as_format: checkpoint_pb.ExportFormat,
        *,
        run_id: str = "",
        without_live_seeds: bool = False,
        directory: str = "",
        reason: str = "",
        timeout_s: float = plans.EXPORT_S,
    ) -> checkpoint_pb.ExportCheckpointResponse:
        """Have the model of a checkpoint written, fossilized seeds folded in, as files that load without the daemon.

        They go into a new directory below the daemon's run directory: `directory` (absolute), or one in `exports`.
        Refused while a seed is live, unless live seeds are to be left out.
        """
        plan = plans.export_checkpoint(
            checkpoint_id, as_format, run_id, without_live_seeds, directory, reason, timeout_s
        )
        return self._carry_out(plan)
