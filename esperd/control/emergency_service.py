"""EmergencyService: a lane of its own that overtakes every queue, waits for no disk and is never paced.

Event loop only. The trainer is told first and the journal after it: an emergency must not stand behind a slow disk.
Answered when the trainer has acknowledged it and its outcome is durable, so that a kill of the daemon changes nothing
of what was answered; with a disk that is stuck it is answered without that when the deadline has come: the answer says
so, and a notice.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from esper.leyline.v1 import emergency_service_pb2, state_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control import shown
from esperd.control.asked import DEFAULT_ACKNOWLEDGE_MS, read_emergency
from esperd.control.call import Call, Route, Shape
from esperd.control.command_board import CommandBoard
from esperd.control.command_desk import CommandDesk
from esperd.control.recorded_commands import emergency_id_of
from esperd.control.recorder import Recorder
from esperd.control.validation import parse
from esperd.leyline.commands import EmergencyCommand, Outcome
from esperd.leyline.errors import EsperdError
from esperd.leyline.verify import Verified
from esperd.leyline.views import EmergencyView, NoticeEvent, Snapshot
from esperd.leyline.vocabulary import CommandState, EmergencyLevel
from esperd.oona.failures import JournalUnavailable, RequestIdReused
from esperd.oona.journal import Journal
from esperd.oona.records import CommandRecord, outcome_of

_SERVICE = "/esper.leyline.v1.EmergencyService/"
LOOK_S = 0.25
"""How long an emergency waits to learn whether an earlier start had it already. After very many requests not all their
ids are in memory, and then the disk must say, which may be the very thing that is stuck."""
MAX_REMEMBERED = 1024
"""Requests of this start whose answers are remembered, in case one is sent again."""


@dataclass(frozen=True, slots=True)
class _Handed:
    """One request that went to the trainer."""

    command_id: str
    emergency_id: str
    payload_sha256: bytes
    outcome: "asyncio.Future[Outcome]"


class EmergencyService:
    """Serves emergencies."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        desk: CommandDesk,
        board: CommandBoard,
        journal: Journal,
        recorder: Recorder,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._port = port
        self._desk = desk
        self._board = board
        self._journal = journal
        self._recorder = recorder
        self._clock = clock
        self._monotonic = monotonic
        self._handed: OrderedDict[str, _Handed] = OrderedDict()

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = emergency_service_pb2
        yield Route(_SERVICE + "RaiseEmergency", Shape.UNARY, pb.RaiseEmergencyRequest, self.raise_emergency)
        yield Route(_SERVICE + "ClearEmergency", Shape.UNARY, pb.ClearEmergencyRequest, self.clear_emergency)
        yield Route(_SERVICE + "ListEmergencies", Shape.UNARY, pb.ListEmergenciesRequest, self.list_emergencies)

    async def raise_emergency(self, call: Call, data: bytes) -> emergency_service_pb2.RaiseEmergencyResponse:
        """Raise the level, and answer when the trainer knows."""
        signal = parse(emergency_service_pb2.EmergencySignal, data)
        asked = read_emergency(signal)
        run_id = self._port.snapshot().run.run_id
        if signal.run_id not in ("", run_id):
            raise EsperdError("RUN_UNKNOWN", run_id=signal.run_id)
        handed = await self._hand_over(call, asked.request_id, asked.reason, data, asked.level, "")
        outcome, is_durable = await self._acknowledged(handed, asked.acknowledge_within_s)
        snapshot = self._port.snapshot()
        emergency = _find(snapshot, handed.emergency_id)
        if emergency is None:
            # The trainer has it; the snapshot that shows it is on its way.
            step, now_s = outcome.global_step, self._clock()
            emergency = EmergencyView(
                handed.emergency_id, asked.level, asked.reason, call.signer.principal, step, now_s
            )
        return emergency_service_pb2.RaiseEmergencyResponse(
            emergency=shown.emergency(emergency),
            global_step=outcome.global_step,
            revision=outcome.revision,
            durable=is_durable,
        )

    async def clear_emergency(self, call: Call, data: bytes) -> emergency_service_pb2.ClearEmergencyResponse:
        """Clear one emergency, and answer with what still stands."""
        asked = parse(emergency_service_pb2.ClearEmergencyPayload, data)
        level = EmergencyLevel.UNSPECIFIED
        handed = await self._hand_over(call, asked.request_id, asked.reason, data, level, asked.emergency_id)
        outcome, is_durable = await self._acknowledged(handed, DEFAULT_ACKNOWLEDGE_MS / 1e3)
        standing = [view for view in self._port.snapshot().emergencies if view.emergency_id != asked.emergency_id]
        return emergency_service_pb2.ClearEmergencyResponse(
            level=_level(standing), revision=outcome.revision, durable=is_durable
        )

    async def list_emergencies(
        self, _: Call, __: emergency_service_pb2.ListEmergenciesRequest
    ) -> emergency_service_pb2.ListEmergenciesResponse:
        """What stands."""
        views = self._port.snapshot().emergencies
        emergencies: list[state_pb2.Emergency] = [shown.emergency(view) for view in views]
        return emergency_service_pb2.ListEmergenciesResponse(emergencies=emergencies, level=_level(views))

    async def _hand_over(
        self, call: Call, request_id: str, reason: str, data: bytes, level: EmergencyLevel, emergency_id: str
    ) -> _Handed:
        """Tell the trainer, once for each request id."""
        signer = call.signer
        handed = self._handed.get(request_id) or await self._handed_earlier(request_id)
        # Looked up again after the wait: the same request may have come a second time and been handed over.
        handed = self._handed.get(request_id) or handed
        if handed is not None:
            if handed.payload_sha256 != signer.payload_sha256:
                raise RequestIdReused(request_id, handed.command_id)
            return handed
        record = self._record(call.method, signer, request_id, reason, data)
        emergency_id = emergency_id or emergency_id_of(record.command_id)
        self._desk.hand_over_urgent(EmergencyCommand(level, emergency_id), reason, record)
        # The answer comes through the loop, so it cannot have come yet.
        outcome = self._board.expect_acknowledgement(record.command_id)
        return self._remember(request_id, _Handed(record.command_id, emergency_id, signer.payload_sha256, outcome))

    def _remember(self, request_id: str, handed: _Handed) -> _Handed:
        self._handed[request_id] = handed
        if len(self._handed) > MAX_REMEMBERED:
            self._handed.popitem(last=False)
        return handed

    async def _handed_earlier(self, request_id: str) -> _Handed | None:
        """A request of an earlier start that the journal knows; the disk is asked only if it may, and for a moment."""
        try:
            async with asyncio.timeout(LOOK_S):
                record = (await self._journal.find_requests([request_id])).get(request_id)
        except (JournalUnavailable, TimeoutError):
            return None  # raised twice is better than not raised
        if record is None or request_id in self._handed:
            return None
        outcome: asyncio.Future[Outcome]
        if self._board.is_open(record.command_id):
            outcome = self._board.expect_acknowledgement(record.command_id)
        else:
            outcome = asyncio.get_running_loop().create_future()
            outcome.set_result(outcome_of(record))
        handed = _Handed(record.command_id, emergency_id_of(record.command_id), record.payload_sha256, outcome)
        return self._remember(request_id, handed)

    def _record(self, method: str, signer: Verified, request_id: str, reason: str, data: bytes) -> CommandRecord:
        return CommandRecord(
            command_id=self._desk.new_id(),
            request_id=request_id,
            principal=signer.principal,
            key_id=signer.key_id,
            method=method,
            kind="emergency",
            payload=data,
            payload_sha256=signer.payload_sha256,
            accepted_unix_s=self._clock(),
            reason=reason,
            accepted_step=self._port.snapshot().run.global_step,
        )

    async def _acknowledged(self, handed: _Handed, within_s: float) -> tuple[Outcome, bool]:
        """Wait for the trainer, and for the disk as long as there is time; the answer, and whether it is durable.

        Raises:
            EsperdError: EMERGENCY_UNACKNOWLEDGED, DRAINING, or why the trainer refused.
        """
        deadline_s = self._monotonic() + within_s
        await asyncio.wait([handed.outcome], timeout=within_s)
        if handed.outcome.cancelled():
            raise EsperdError("DRAINING")
        if not handed.outcome.done():
            raise EsperdError("EMERGENCY_UNACKNOWLEDGED", emergency_id=handed.emergency_id)
        outcome = handed.outcome.result()
        if outcome.refusal is not None:
            raise EsperdError(outcome.refusal.reason, **outcome.refusal.metadata)
        if outcome.state is not CommandState.APPLIED:
            raise EsperdError("EMERGENCY_UNACKNOWLEDGED", emergency_id=handed.emergency_id)
        is_durable = await self._recorder.wait_settled(handed.command_id, deadline_s - self._monotonic())
        if not is_durable:
            self._recorder.append_later(self._unwritten(handed, outcome))
        return outcome, is_durable

    def _unwritten(self, handed: _Handed, outcome: Outcome) -> NoticeEvent:
        text = f"{handed.emergency_id} was answered before it was durable: the journal cannot be written in time"
        facts = {"command_id": handed.command_id, "emergency_id": handed.emergency_id}
        step, revision, now_s = outcome.global_step, outcome.revision, self._clock()
        return NoticeEvent("emergency.unwritten", text, "warning", step, revision, now_s, facts, outcome.timeline)


def _find(snapshot: Snapshot, emergency_id: str) -> EmergencyView | None:
    return next((view for view in snapshot.emergencies if view.emergency_id == emergency_id), None)


def _level(views: Iterable[EmergencyView]) -> Any:
    return shown.wire(max((view.level for view in views), default=EmergencyLevel.UNSPECIFIED))
