"""The async client's methods for StateService: seeds, sites, optimizers, and watching them.

One event loop.
"""

from collections.abc import AsyncIterator

from esper.client import plans, watches
from esper.client.aio_methods.caller import AsyncCaller
from esper.client.watches import RECONNECT_S
from esper.leyline.v1 import state_service_pb2 as state_pb
from esper.leyline.v1.vocabulary_pb2 import SEED_STAGE_UNKNOWN, SeedLifecycleStage


class AsyncState(AsyncCaller):
    """Seeds, sites, optimizers, and watching them."""

    async def seeds(
        self, *, stage: SeedLifecycleStage = SEED_STAGE_UNKNOWN, with_gone: bool = False
    ) -> state_pb.ListSeedsResponse:
        """Every seed in order of germination, or those in one stage; with those that are gone, from the journal."""
        return await self._carry_out(plans.seeds(stage, with_gone))

    async def seed(self, seed_id: str) -> state_pb.GetSeedResponse:
        """One seed with its story."""
        return await self._carry_out(plans.seed(seed_id))

    async def sites(self) -> state_pb.ListSitesResponse:
        """Every site in forward order, with what may grow there and what it would cost."""
        return await self._carry_out(plans.sites())

    async def timelines(self, run_id: str = "") -> state_pb.ListTimelinesResponse:
        """Every timeline of a run, oldest first, with what each rollback did; the current run unless named."""
        return await self._carry_out(plans.timelines(run_id))

    async def optimizers(self) -> state_pb.GetOptimizersResponse:
        """Every optimizer group."""
        return await self._carry_out(plans.optimizers())

    def watch_state(
        self,
        *,
        latest: bool = False,
        resume_token: bytes = b"",
        resnapshot: bool = True,
        bookmark_interval_s: int = 0,
        reconnect_s: float = RECONNECT_S,
    ) -> AsyncIterator[state_pb.WatchStateResponse]:
        """A snapshot, then deltas, with bookmarks: every revision, or only the newest of each thing with `latest`.

        After a cut the watch resumes by itself for up to `reconnect_s`; 0 ends it at the first cut. A token that is
        too old brings a fresh snapshot, or OUT_OF_RANGE without `resnapshot`.
        """
        watch = watches.state(latest=latest, resnapshot=resnapshot, bookmark_interval_s=bookmark_interval_s)
        return self._watch(watch, resume_token, reconnect_s)
