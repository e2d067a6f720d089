"""StateService: seeds, sites and optimizers as they are, and as they change.

Event loop only. Reads come from the bridge's newest snapshot, a seed's story from the journal.
"""

from collections.abc import Iterable

from esper.leyline.v1 import state_pb2, state_service_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control import shown
from esperd.control.call import Call, Route, Send, Shape
from esperd.control.histories import find_run, read_all
from esperd.control.state_board import StateBoard
from esperd.control.streams import read_wishes, watch
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import is_on, lineage
from esperd.leyline.views import Snapshot, TimelineEvent, TransitionEvent
from esperd.leyline.vocabulary import Stage
from esperd.oona.journal import Journal
from esperd.oona.records import HistoryQuery, RowKind

_SERVICE = "/esper.leyline.v1.StateService/"


class StateService:
    """Serves the run's state."""

    def __init__(self, *, port: TrainerPort, board: StateBoard, journal: Journal) -> None:
        self._port = port
        self._board = board
        self._journal = journal

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = state_service_pb2
        yield Route(_SERVICE + "GetSeed", Shape.UNARY, pb.GetSeedRequest, self.get_seed)
        yield Route(_SERVICE + "ListSeeds", Shape.UNARY, pb.ListSeedsRequest, self.list_seeds)
        yield Route(_SERVICE + "ListSites", Shape.UNARY, pb.ListSitesRequest, self.list_sites)
        yield Route(_SERVICE + "GetOptimizers", Shape.UNARY, pb.GetOptimizersRequest, self.get_optimizers)
        yield Route(_SERVICE + "ListTimelines", Shape.UNARY, pb.ListTimelinesRequest, self.list_timelines)
        yield Route(_SERVICE + "WatchState", Shape.STREAM, pb.WatchStateRequest, self.watch_state)

    async def get_seed(self, _: Call, request: state_service_pb2.GetSeedRequest) -> state_service_pb2.GetSeedResponse:
        """One seed and how it came to where it is; also one that is gone, from the journal."""
        seed_id = int(request.seed_id)
        story = await self._story(seed_id)
        snapshot = self._port.snapshot()
        seed = _present(seed_id, snapshot) or _gone(seed_id, story, snapshot)
        if seed is None:
            raise EsperdError("SEED_UNKNOWN", seed_id=seed_id)
        transitions = [shown.transition(event) for event in story]
        return state_service_pb2.GetSeedResponse(seed=seed, transitions=transitions, revision=snapshot.revision)

    async def list_seeds(
        self, _: Call, request: state_service_pb2.ListSeedsRequest
    ) -> state_service_pb2.ListSeedsResponse:
        """Every seed, or those in one stage; also those that are gone if asked."""
        stage = Stage(request.stage)
        snapshot = self._port.snapshot()
        seeds = shown.seeds(snapshot.seeds, snapshot)
        if request.with_gone:
            present = {seed.seed_id for seed in seeds}
            seeds += [seed for seed in await self._gone_seeds() if seed.seed_id not in present]
            seeds.sort(key=lambda seed: int(seed.seed_id))
        wanted = [seed for seed in seeds if stage in (Stage.UNKNOWN, seed.stage)]
        return state_service_pb2.ListSeedsResponse(seeds=wanted, revision=snapshot.revision)

    async def list_sites(self, _: Call, __: state_service_pb2.ListSitesRequest) -> state_service_pb2.ListSitesResponse:
        """Every site."""
        snapshot = self._port.snapshot()
        sites = [shown.site(view) for view in snapshot.sites]
        return state_service_pb2.ListSitesResponse(sites=sites, revision=snapshot.revision)

    async def get_optimizers(
        self, _: Call, __: state_service_pb2.GetOptimizersRequest
    ) -> state_service_pb2.GetOptimizersResponse:
        """Every optimizer group."""
        snapshot = self._port.snapshot()
        groups = [shown.optimizer(view) for view in snapshot.optimizers]
        return state_service_pb2.GetOptimizersResponse(groups=groups, revision=snapshot.revision)

    async def list_timelines(
        self, _: Call, request: state_service_pb2.ListTimelinesRequest
    ) -> state_service_pb2.ListTimelinesResponse:
        """Every timeline of a run: the first, and those that rollbacks opened."""
        snapshot = self._port.snapshot()
        run = snapshot.run
        is_current = request.run_id in ("", run.run_id)
        span = await find_run(self._journal, request.run_id or run.run_id)
        if span is None and not is_current:
            raise EsperdError("RUN_UNKNOWN", run_id=request.run_id)
        timelines = [state_pb2.Timeline(timeline=1)]
        if span is not None:
            query = HistoryQuery(kinds=(RowKind.TIMELINE,), after_revision=span.begin)
            rows = [row.record for row in await read_all(self._journal, query) if row in span]
            timelines += [shown.opened_timeline(event) for event in rows if isinstance(event, TimelineEvent)]
        if is_current:  # of a journal in memory a restart leaves nothing, but the run's state knows its timelines
            known = {one.timeline for one in timelines}
            timelines += [shown.timeline(view) for view in snapshot.timelines if view.timeline not in known]
            timelines.sort(key=lambda one: one.timeline)
        return state_service_pb2.ListTimelinesResponse(timelines=timelines)

    async def watch_state(self, _: Call, request: state_service_pb2.WatchStateRequest, send: Send) -> None:
        """A snapshot, or what came after a token, then every change."""
        await watch(self._board, read_wishes(request, begins_anew=request.resnapshot_on_gap), send)

    async def _gone_seeds(self) -> list[state_pb2.SeedState]:
        stories: dict[int, list[TransitionEvent]] = {}
        for event in await self._story(0):
            stories.setdefault(event.seed_id, []).append(event)
        snapshot = self._port.snapshot()
        found = [_gone(seed_id, story, snapshot) for seed_id, story in stories.items()]
        return [seed for seed in found if seed is not None]

    async def _story(self, seed_id: int) -> list[TransitionEvent]:
        """Of one seed, or of all for 0; from the rows of this run only: numbers of other runs are other seeds."""
        span = await find_run(self._journal, self._port.snapshot().run.run_id)
        if span is None:
            return []  # its beginning is not durable yet, so nothing after it is
        query = HistoryQuery(kinds=(RowKind.TRANSITION,), seed_id=seed_id, after_revision=span.begin)
        rows = await read_all(self._journal, query)
        return [row.record for row in rows if isinstance(row.record, TransitionEvent)]


def _present(seed_id: int, snapshot: Snapshot) -> state_pb2.SeedState | None:
    views = [view for view in snapshot.seeds if view.seed_id == seed_id]
    return next(iter(shown.seeds(views, snapshot)), None)


def _gone(seed_id: int, story: list[TransitionEvent], snapshot: Snapshot) -> state_pb2.SeedState | None:
    """What the journal knows of a seed that the trainer has let go, or that a rollback has left behind."""
    if not story:
        return None
    steps = lineage(snapshot.timelines, snapshot.run.timeline)
    lived = [event for event in story if is_on(steps, event.timeline, event.global_step)]
    last = lived[-1] if lived else story[-1]
    return state_pb2.SeedState(
        seed_id=str(seed_id),
        stage=shown.wire(last.target if lived else Stage.UNKNOWN),
        site=last.site,
        blueprint_id=last.blueprint_id,
        germinated_step=(lived or story)[0].global_step,
        note="" if lived else f"left behind on timeline {last.timeline} by a rollback",
    )
