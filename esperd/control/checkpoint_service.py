"""CheckpointService: what checkpoints there are, whether they are sound, and which may go.

Event loop, and two threads of its own for the files, so that neither the loop nor training waits for a disk. Making a
checkpoint and going back to one are commands; nothing here touches the run's state.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from esper.leyline.v1 import checkpoint_service_pb2 as pb

from esperd.bridge.bridge import TrainerPort
from esperd.config.settings import CheckpointSettings
from esperd.control import shown
from esperd.control.call import Call, Route, Shape
from esperd.control.pages import page_size
from esperd.control.thread_work import result_of
from esperd.control.validation import parse
from esperd.leyline.errors import EsperdError
from esperd.leyline.restore_points import needed_by_trainer
from esperd.oona.checkpoints.reading import StoredCheckpoint
from esperd.oona.checkpoints.retention import Retention, removable
from esperd.oona.checkpoints.store import CheckpointStore
from esperd.oona.failures import PageTokenInvalid

_SERVICE = "/esper.leyline.v1.CheckpointService/"
NUM_THREADS = 2
"""One may verify for minutes; the other one answers meanwhile."""

FoundT = TypeVar("FoundT")


class CheckpointService:
    """Serves checkpoints."""

    def __init__(self, *, port: TrainerPort, store: CheckpointStore | None, settings: CheckpointSettings) -> None:
        """`store` is None for a daemon that keeps no checkpoints: then there are none."""
        self._port = port
        self._store = store
        self._settings = settings
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="checkpoint reader")
        self._verifying = ""
        self._is_closed = False

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        yield Route(_SERVICE + "ListCheckpoints", Shape.UNARY, pb.ListCheckpointsRequest, self.list_checkpoints)
        yield Route(_SERVICE + "GetCheckpoint", Shape.UNARY, pb.GetCheckpointRequest, self.get_checkpoint)
        yield Route(_SERVICE + "VerifyCheckpoint", Shape.UNARY, pb.VerifyCheckpointRequest, self.verify_checkpoint)
        yield Route(_SERVICE + "PruneCheckpoints", Shape.UNARY, pb.PruneCheckpointsRequest, self.prune_checkpoints)

    def close(self) -> None:
        """Take no more work; a verification that is under way ends within a few megabytes, what waits is refused."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def list_checkpoints(self, _: Call, request: pb.ListCheckpointsRequest) -> pb.ListCheckpointsResponse:
        """A page, newest first; the token is the last one that was shown."""
        num_rows = page_size(request.page_size)
        run_id = "" if request.all_runs else self._run_id(request.run_id)
        found, damaged = await self._in_thread(partial(self._everything, run_id))
        newest_first = found[::-1]
        start = _start(newest_first, request.page_token)
        page = newest_first[start : start + num_rows]
        is_first = not request.page_token
        in_memory = [point for point in self._port.snapshot().restore_points if point.in_memory]
        return pb.ListCheckpointsResponse(
            checkpoints=[_shown(stored) for stored in page],
            next_page_token=_name(page[-1]) if start + num_rows < len(found) else "",
            memory_points=[shown.restore_point(point) for point in in_memory] if is_first else [],
            damaged=[pb.DamagedCheckpoint(checkpoint_id=name, problem=text) for name, text in damaged]
            if is_first
            else [],
        )

    async def get_checkpoint(self, _: Call, request: pb.GetCheckpointRequest) -> pb.GetCheckpointResponse:
        """One checkpoint with its files and the configuration that it was written with."""
        store = self._store_of(request.checkpoint_id)
        stored = await self._in_thread(partial(store.get, request.checkpoint_id, self._run_id(request.run_id)))
        return pb.GetCheckpointResponse(
            checkpoint=_shown(stored),
            files=[
                pb.CheckpointFile(name=entry.name, num_bytes=entry.num_bytes, sha256=entry.sha256)
                for entry in stored.manifest.files
            ],
            config_json=json.dumps(dict(stored.manifest.config), indent=2),
            directory=str(stored.path),
        )

    async def verify_checkpoint(self, _: Call, request: pb.VerifyCheckpointRequest) -> pb.VerifyCheckpointResponse:
        """Read it whole; one at a time, also when a caller has left before its answer."""
        store = self._store_of(request.checkpoint_id)
        if self._verifying:
            raise EsperdError("VERIFICATION_BUSY", checkpoint_id=self._verifying)
        work = partial(self._verify, store, request.checkpoint_id, self._run_id(request.run_id))
        future = self._begin(work)
        self._verifying = request.checkpoint_id
        future.add_done_callback(self._verified)
        problems, num_bytes = await result_of(future)
        return pb.VerifyCheckpointResponse(problems=problems, num_bytes=num_bytes)

    async def prune_checkpoints(self, _: Call, data: bytes) -> pb.PruneCheckpointsResponse:
        """Remove what the retention lets go, or say what it would be."""
        asked = parse(pb.PruneCheckpointsPayload, data)
        if self._store is None:
            return pb.PruneCheckpointsResponse()
        keep_requested = asked.keep_requested if asked.HasField("keep_requested") else None
        rule = Retention(asked.keep or self._settings.keep, self._settings.keep_every_steps, keep_requested)
        run_id, snapshot = self._run_id(asked.run_id), self._port.snapshot()
        needed = needed_by_trainer(snapshot) if run_id == snapshot.run.run_id else []
        work = partial(_prune, self._store, rule, run_id, needed, is_dry=asked.dry_run)
        gone, num_kept = await self._in_thread(work)
        return pb.PruneCheckpointsResponse(removed=[_shown(stored) for stored in gone], num_kept=num_kept)

    def _run_id(self, run_id: str) -> str:
        return run_id or self._port.snapshot().run.run_id

    def _store_of(self, checkpoint_id: str) -> CheckpointStore:
        if self._store is None:
            raise EsperdError("CHECKPOINT_UNKNOWN", checkpoint_id=checkpoint_id)
        return self._store

    def _everything(self, run_id: str) -> tuple[tuple[StoredCheckpoint, ...], tuple[tuple[str, str], ...]]:
        return ((), ()) if self._store is None else (self._store.list(run_id), self._store.damaged(run_id))

    def _verified(self, future: "asyncio.Future[tuple[list[str], int]]") -> None:
        self._verifying = ""
        if not future.cancelled():
            future.exception()  # whoever still waits gets it; a caller that has left must not make it a stray one

    def _verify(self, store: CheckpointStore, checkpoint_id: str, run_id: str) -> tuple[list[str], int]:
        """In a thread."""
        problems = store.verify(checkpoint_id, run_id, is_unwanted=lambda: self._is_closed)
        try:
            num_bytes = store.get(checkpoint_id, run_id).num_bytes
        except EsperdError:  # among the problems already: the manifest is not right
            num_bytes = 0
        return list(problems), num_bytes

    async def _in_thread(self, work: Callable[[], FoundT]) -> FoundT:
        return await result_of(self._begin(work))

    def _begin(self, work: Callable[[], FoundT]) -> "asyncio.Future[FoundT]":
        if self._is_closed:
            raise EsperdError("DRAINING")
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


def _prune(
    store: CheckpointStore, rule: Retention, run_id: str, needed: Sequence[str], *, is_dry: bool
) -> tuple[list[StoredCheckpoint], int]:
    found = store.list(run_id)
    # The next start goes on from the newest one, good or not.
    protect = [*needed, *(stored.manifest.checkpoint_id for stored in found[-1:])]
    going = removable(found, rule, protect)
    if not is_dry:
        names = set(store.prune(rule, protect, run_id))
        going = [stored for stored in going if stored.manifest.checkpoint_id in names]
    return going, len(found) - len(going)


def _start(newest_first: tuple[StoredCheckpoint, ...], token: str) -> int:
    if not token:
        return 0
    names = [_name(stored) for stored in newest_first]
    if token not in names:
        raise PageTokenInvalid
    return names.index(token) + 1


def _name(stored: StoredCheckpoint) -> str:
    return f"{stored.manifest.run_id}/{stored.manifest.checkpoint_id}"


def _shown(stored: StoredCheckpoint) -> pb.Checkpoint:
    manifest = stored.manifest
    return pb.Checkpoint(
        checkpoint_id=manifest.checkpoint_id,
        run_id=manifest.run_id,
        kind=shown.wire(manifest.kind),
        timeline=manifest.timeline,
        global_step=manifest.global_step,
        epoch=manifest.epoch,
        is_good=stored.is_good,
        num_bytes=stored.num_bytes,
        num_parameters=manifest.num_parameters,
        write_time=shown.timestamp(manifest.written_unix_s),
        note=manifest.note,
        task=manifest.task,
        pause_ms=manifest.pause_ms,
        sequence=manifest.sequence,
        revision=manifest.revision,
        journal_revision=manifest.journal_revision,
        esperd_version=manifest.esperd_version,
        torch_version=manifest.torch_version,
    )
