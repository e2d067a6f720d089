"""RunService: the current run, those before it in the journal, the order to stop and the order to begin another.

Event loop only.
"""

from collections.abc import Callable, Iterable

import structlog
from esper.leyline.v1 import run_service_pb2, state_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control import shown
from esperd.control.asked import Asked
from esperd.control.call import Call, Route, Shape
from esperd.control.command_desk import CommandDesk, Origin, Submission
from esperd.control.command_messages import command_message
from esperd.control.histories import read_all
from esperd.control.noting import note
from esperd.control.pages import page_size
from esperd.control.supervisor import Supervisor
from esperd.control.validation import parse
from esperd.leyline.commands import StopCommand
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import RunResumed
from esperd.leyline.vocabulary import TrainerPhase
from esperd.oona.failures import PageTokenInvalid
from esperd.oona.journal import Journal
from esperd.oona.records import HistoryQuery, RowKind, RunFinished, RunStarted

_SERVICE = "/esper.leyline.v1.RunService/"
_OVER = (TrainerPhase.FINISHED, TrainerPhase.FAILED)
"""Phases in which the trainer has nothing more to do."""


class RunService:
    """Serves runs."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        journal: Journal,
        desk: CommandDesk,
        supervisor: Supervisor,
        lease_principal: Callable[[], str],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`supervisor` begins runs; `lease_principal` names the steering policy's principal."""
        self._port = port
        self._journal = journal
        self._desk = desk
        self._supervisor = supervisor
        self._lease_principal = lease_principal
        self._log = log

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = run_service_pb2
        yield Route(_SERVICE + "GetRun", Shape.UNARY, pb.GetRunRequest, self.get_run)
        yield Route(_SERVICE + "ListRuns", Shape.UNARY, pb.ListRunsRequest, self.list_runs)
        yield Route(_SERVICE + "StartRun", Shape.UNARY, pb.StartRunRequest, self.start_run)
        yield Route(_SERVICE + "StopRun", Shape.UNARY, pb.StopRunRequest, self.stop_run)

    async def get_run(self, _: Call, request: run_service_pb2.GetRunRequest) -> run_service_pb2.GetRunResponse:
        """The current run, or an earlier one as far as the journal kept it."""
        snapshot = self._port.snapshot()
        if request.run_id not in ("", snapshot.run.run_id):
            return run_service_pb2.GetRunResponse(run=await self._earlier_run(request.run_id))
        return run_service_pb2.GetRunResponse(
            run=shown.run(snapshot.run),
            revision=snapshot.revision,
            emergencies=[shown.emergency(view) for view in snapshot.emergencies],
            breakers=[shown.breaker(view) for view in snapshot.breakers],
            lease_principal=self._lease_principal(),
            timelines=[shown.timeline(view) for view in snapshot.timelines],
            restore_points=[shown.restore_point(view) for view in snapshot.restore_points],
        )

    async def list_runs(self, _: Call, request: run_service_pb2.ListRunsRequest) -> run_service_pb2.ListRunsResponse:
        """Runs, newest first; the token is the number of runs that were shown."""
        num_rows = page_size(request.page_size)
        if request.page_token and not (request.page_token.isascii() and request.page_token.isdigit()):
            raise PageTokenInvalid
        start = int(request.page_token[:9] or 0)
        current = self._port.snapshot().run
        earlier = [run for run in await self._recorded_runs() if run.run_id != current.run_id]
        runs = [shown.run(current), *reversed(earlier)]
        end = start + num_rows
        return run_service_pb2.ListRunsResponse(
            runs=runs[start:end], next_page_token=str(end) if end < len(runs) else ""
        )

    async def start_run(self, call: Call, data: bytes) -> run_service_pb2.StartRunResponse:
        """Have the process begin another run once this call is answered."""
        asked = parse(run_service_pb2.StartRunPayload, data)
        note(self._log, call, asked.reason)
        run = self._port.snapshot().run
        if asked.after_run_id != run.run_id:
            raise EsperdError("RUN_CHANGED", run_id=run.run_id, expected=asked.after_run_id)
        if run.phase not in _OVER:
            raise EsperdError("RUN_ACTIVE", run_id=run.run_id, phase=run.phase.name)
        return run_service_pb2.StartRunResponse(run_id=self._supervisor.start_run())

    async def stop_run(self, call: Call, data: bytes) -> run_service_pb2.StopRunResponse:
        """End the current run at its next safe point."""
        asked = parse(run_service_pb2.StopRunPayload, data)
        submission = Submission(Asked(asked.request_id, StopCommand(), asked.reason), data, call.signer.payload_sha256)
        origin = Origin(call.signer.principal, call.signer.key_id, call.method)
        answer = await self._desk.submit_one(origin, submission)
        assert answer.record is not None  # an atomic submission answers or raises
        return run_service_pb2.StopRunResponse(command=command_message(answer.record), duplicate=answer.duplicate)

    async def _earlier_run(self, run_id: str) -> state_pb2.Run:
        found = next((run for run in await self._recorded_runs() if run.run_id == run_id), None)
        if found is None:
            raise EsperdError("RUN_UNKNOWN", run_id=run_id)
        return found

    async def _recorded_runs(self) -> list[state_pb2.Run]:
        """Every run in the journal, oldest first."""
        runs: dict[str, state_pb2.Run] = {}
        query = HistoryQuery(kinds=(RowKind.RUN_STARTED, RowKind.RUN_RESUMED, RowKind.RUN_FINISHED))
        for row in await read_all(self._journal, query):
            match row.record:
                case RunStarted():
                    runs[row.record.run_id] = _started(row.record)
                case RunResumed(run_id=run_id) if run_id in runs:
                    _resume(runs[run_id], row.record)
                case RunFinished(run_id=run_id) if run_id in runs:
                    _finish(runs[run_id], row.record)
        return list(runs.values())


def _started(record: RunStarted) -> state_pb2.Run:
    return state_pb2.Run(run_id=record.run_id, task=record.task, start_time=shown.timestamp(record.unix_s))


def _resume(run: state_pb2.Run, record: RunResumed) -> None:
    """What an earlier start of the daemon left behind is not how the run ended."""
    run.ClearField("phase")
    run.ClearField("failure")
    run.global_step, run.timeline = record.global_step, record.timeline
    run.resumed_from = record.checkpoint_id


def _finish(run: state_pb2.Run, record: RunFinished) -> None:
    run.phase = shown.wire(record.phase)
    run.global_step, run.epoch, run.timeline = record.global_step, record.epoch, record.timeline
    run.train_loss, run.val_loss = record.train_loss, record.val_loss
    run.metrics.update(record.metrics)
    if record.phase is TrainerPhase.FAILED:
        run.failure = record.detail
