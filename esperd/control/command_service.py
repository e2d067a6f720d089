"""CommandService: submit, cancel, look at and watch commands.

Event loop only. CommandStream reads ahead of the journal: while one batch is being written the next is verified, so
that group commit has something to group; receipts keep the order of the batches.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from esper.leyline.v1 import command_pb2, command_service_pb2

from esperd.bridge.bridge import TrainerPort
from esperd.control.batches import read_batch, read_single
from esperd.control.call import Call, Receive, Route, Send, Shape
from esperd.control.command_board import CommandBoard
from esperd.control.command_desk import Answer, CommandDesk, Origin, Submission
from esperd.control.command_messages import command_message, refusal_of
from esperd.control.errors import command_error
from esperd.control.gate import Gate
from esperd.control.pacing import COMMAND_UNITS, Pacer
from esperd.control.pages import page_size
from esperd.control.shown import wire
from esperd.control.streams import read_wishes, watch
from esperd.control.validation import parse
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.verify import Verified
from esperd.leyline.views import NoticeEvent
from esperd.leyline.vocabulary import CommandState
from esperd.oona.journal import Journal
from esperd.oona.records import CommandQuery, CommandRecord

_SERVICE = "/esper.leyline.v1.CommandService/"
CANCEL_WAIT_S = 30.0
MAX_BATCHES_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class _Batch:
    """One batch of a stream: what is being written, or why it was refused."""

    number: int
    submissions: Sequence[Submission]
    answers: "asyncio.Future[list[Answer]]"


@dataclass(frozen=True, slots=True)
class _End:
    """No batch follows; with the fault that ended the stream, if any."""

    fault: Exception | None


class CommandService:
    """Serves commands."""

    def __init__(
        self,
        *,
        desk: CommandDesk,
        board: CommandBoard,
        journal: Journal,
        port: TrainerPort,
        gate: Gate,
        pacer: Pacer,
        policy: MethodPolicy,
        record: Callable[[NoticeEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """`policy` is CommandStream's; `record` writes into the run's history."""
        self._desk = desk
        self._board = board
        self._journal = journal
        self._port = port
        self._gate = gate
        self._pacer = pacer
        self._policy = policy
        self._record = record
        self._clock = clock

    def routes(self) -> Iterable[Route]:
        """What this service serves."""
        pb = command_service_pb2
        yield Route(_SERVICE + "SubmitCommand", Shape.UNARY, pb.SubmitCommandRequest, self.submit_command)
        yield Route(_SERVICE + "SubmitCommands", Shape.UNARY, pb.SubmitCommandsRequest, self.submit_commands)
        yield Route(_SERVICE + "CancelCommand", Shape.UNARY, pb.CancelCommandRequest, self.cancel_command)
        yield Route(_SERVICE + "CommandStream", Shape.SESSION, pb.CommandStreamRequest, self.command_stream)
        yield Route(_SERVICE + "GetCommand", Shape.UNARY, pb.GetCommandRequest, self.get_command)
        yield Route(_SERVICE + "ListCommands", Shape.UNARY, pb.ListCommandsRequest, self.list_commands)
        yield Route(_SERVICE + "WatchCommands", Shape.STREAM, pb.WatchCommandsRequest, self.watch_commands)

    async def submit_command(self, call: Call, data: bytes) -> command_service_pb2.SubmitCommandResponse:
        """Accept one command."""
        submission = read_single(data, call.signer.payload_sha256)
        answer = await self._desk.submit_one(_origin(call.method, call.signer), submission)
        assert answer.record is not None  # an atomic submission answers or raises
        return command_service_pb2.SubmitCommandResponse(
            command=command_message(answer.record), duplicate=answer.duplicate
        )

    async def submit_commands(self, call: Call, data: bytes) -> command_service_pb2.SubmitCommandsResponse:
        """Accept several commands, or none."""
        submissions = read_batch(data)
        await self._pacer.admit(COMMAND_UNITS * len(submissions), in_bunch=False)
        answers = await self._desk.submit(_origin(call.method, call.signer), submissions, atomic=True)
        records = [answer.record for answer in answers if answer.record is not None]
        return command_service_pb2.SubmitCommandsResponse(
            commands=[command_message(record) for record in records],
            duplicate_request_ids=[a.record.request_id for a in answers if a.duplicate and a.record is not None],
        )

    async def cancel_command(self, call: Call, data: bytes) -> command_service_pb2.CancelCommandResponse:
        """Take a command back, and answer with what became of it."""
        asked = parse(command_service_pb2.CancelCommandPayload, data)
        record = await self._command(asked.command_id)
        if not record.state.is_final and self._board.is_open(asked.command_id):
            self._port.cancel(asked.command_id)
            self._record(self._cancellation(call, asked))
            record = await self._wait_settled(record, CANCEL_WAIT_S)
        if record.state is not CommandState.CANCELLED:
            raise EsperdError("COMMAND_NOT_CANCELLABLE", state=record.state.name, command_id=record.command_id)
        return command_service_pb2.CancelCommandResponse(command=command_message(record))

    async def get_command(
        self, _: Call, request: command_service_pb2.GetCommandRequest
    ) -> command_service_pb2.GetCommandResponse:
        """One command, after its outcome if the caller waits for it."""
        record = await self._command(request.command_id)
        if request.wait_ms and self._board.is_open(request.command_id):
            record = await self._wait_settled(record, request.wait_ms / 1e3)
        elif request.wait_ms and not record.state.is_final:
            record = await self._command(request.command_id)  # it was settled while its record was read
        return command_service_pb2.GetCommandResponse(command=command_message(record))

    async def list_commands(
        self, _: Call, request: command_service_pb2.ListCommandsRequest
    ) -> command_service_pb2.ListCommandsResponse:
        """A page of commands, newest first."""
        query = CommandQuery(state=CommandState(request.state), seed_id=int(request.seed_id or 0))
        page = await self._journal.list_commands(query, page_size(request.page_size), request.page_token)
        commands = [command_message(record) for record in page.rows]
        return command_service_pb2.ListCommandsResponse(commands=commands, next_page_token=page.next_page_token)

    async def watch_commands(self, _: Call, request: command_service_pb2.WatchCommandsRequest, send: Send) -> None:
        """Every change from now on, or from a token on; or the newest state of each command that changed."""
        await watch(self._board, read_wishes(request, begins_anew=request.restart_on_gap), send)

    async def command_stream(self, call: Call, receive: Receive, send: Send) -> None:
        """Signed batches up, receipts down, in order."""
        batches: asyncio.Queue[_Batch | _End] = asyncio.Queue(MAX_BATCHES_IN_FLIGHT)
        reader = asyncio.get_running_loop().create_task(self._read_batches(call, receive, batches))
        try:
            while isinstance(batch := await batches.get(), _Batch):
                await send((await _receipts(batch)).SerializeToString())
            if batch.fault is not None:
                raise batch.fault
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _read_batches(self, call: Call, receive: Receive, batches: "asyncio.Queue[_Batch | _End]") -> None:
        fault: Exception | None = None
        try:
            for number in itertools.count(1):
                message = await receive()
                if message is None:
                    break
                await batches.put(await self._begin(call, message, number))
        except Exception as error:  # noqa: BLE001 - raised again by the stream's handler, behind the receipts
            fault = error
        await batches.put(_End(fault))

    async def _begin(self, call: Call, message: command_service_pb2.CommandStreamRequest, number: int) -> _Batch:
        """Check one batch and begin to write it; a refused one is a batch that has failed."""
        loop = asyncio.get_running_loop()
        submissions: Sequence[Submission] = ()
        try:
            verified = self._gate.verify(self._policy, message.envelope, call)
        except EsperdError as refusal:
            return _Batch(number, (), _failed(refusal))
        try:
            submissions = read_batch(verified.payload)
            await self._pacer.admit(COMMAND_UNITS * len(submissions), in_bunch=False)
        except EsperdError as refusal:
            self._gate.note(self._policy, verified, call, refusal)
            return _Batch(number, submissions, _failed(refusal))
        self._gate.note(self._policy, verified, call)
        answers = loop.create_task(self._desk.submit(_origin(call.method, verified), submissions, atomic=False))
        answers.add_done_callback(_look_at)  # nobody else does, if the stream breaks before its receipts
        return _Batch(number, submissions, answers)

    def _cancellation(self, call: Call, asked: command_service_pb2.CancelCommandPayload) -> NoticeEvent:
        """Who wanted the command back, and why; its outcome says whether it came in time."""
        snapshot = self._port.snapshot()
        run, revision = snapshot.run, snapshot.revision
        facts = {"command_id": asked.command_id, "principal": call.signer.principal}
        now_s = self._clock()
        return NoticeEvent(
            "command.cancel", asked.reason, "info", run.global_step, revision, now_s, facts, run.timeline
        )

    async def _wait_settled(self, record: CommandRecord, within_s: float) -> CommandRecord:
        """The command after its outcome, or as it is when the time is over. Raises DRAINING if no outcome will come."""
        settled = await self._board.wait_settled(record.command_id, within_s)
        if settled is None and self._desk.is_draining:
            raise EsperdError("DRAINING")
        return settled or record

    async def _command(self, command_id: str) -> CommandRecord:
        record = await self._journal.get_command(command_id) if command_id else None
        if record is None:
            raise EsperdError("COMMAND_UNKNOWN", command_id=command_id)
        return record


def _origin(method: str, verified: Verified) -> Origin:
    return Origin(verified.principal, verified.key_id, method)


def _look_at(answers: "asyncio.Future[list[Answer]]") -> None:
    if not answers.cancelled():
        answers.exception()


def _failed(refusal: EsperdError) -> "asyncio.Future[list[Answer]]":
    future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
    future.set_exception(refusal)
    future.add_done_callback(_look_at)
    return future


async def _receipts(batch: _Batch) -> command_service_pb2.CommandStreamResponse:
    try:
        answers = await batch.answers
    except EsperdError as refusal:
        return command_service_pb2.CommandStreamResponse(
            batch_number=batch.number, error=command_error(refusal.refusal())
        )
    receipts = [_receipt(submission, answer) for submission, answer in zip(batch.submissions, answers, strict=True)]
    return command_service_pb2.CommandStreamResponse(batch_number=batch.number, receipts=receipts)


def _receipt(submission: Submission, answer: Answer) -> command_service_pb2.CommandReceipt:
    record = answer.record
    if record is None:
        error: command_pb2.CommandError | None = None
        if answer.error is not None:
            error = command_error(answer.error.refusal())
        return command_service_pb2.CommandReceipt(request_id=submission.asked.request_id, error=error)
    return command_service_pb2.CommandReceipt(
        request_id=record.request_id,
        command_id=record.command_id,
        state=wire(record.state),
        error=refusal_of(record),
        duplicate=answer.duplicate,
    )
