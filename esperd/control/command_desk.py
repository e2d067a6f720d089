"""Where commands are accepted: checks 11 to 16 of design 01, in their order, and then the journal.

Event loop only. A place in the trainer's box is reserved before the journal is written and filled after it, so that a
durable command always fits; between the two the caller may vanish, the command may not. A whole batch costs one
reservation, one journal write and one hand-over.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from esperd.bridge.bridge import TrainerPort
from esperd.control.admissible import check_revision, check_state
from esperd.control.asked import Asked
from esperd.control.command_board import CommandBoard
from esperd.control.command_messages import DAEMON
from esperd.control.errors import InvalidRequest, Violation
from esperd.control.recorded_commands import own_payload
from esperd.control.recorder import Recorder
from esperd.leyline.commands import Command, KernelSwapCommand, Outcome, Payload
from esperd.leyline.errors import EsperdError
from esperd.leyline.failpoints import failpoint
from esperd.leyline.vocabulary import CommandState
from esperd.oona.failures import JournalUnavailable, RequestIdReused
from esperd.oona.journal import Journal
from esperd.oona.records import AcceptStatus, CommandRecord


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends commands, and by which method."""

    principal: str
    key_id: str
    method: str


@dataclass(frozen=True, slots=True)
class Submission:
    """One well-formed command with the signed bytes that it was read from."""

    asked: Asked
    payload: bytes
    payload_sha256: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one submission: a record, or an error."""

    record: CommandRecord | None = None
    duplicate: bool = False
    error: EsperdError | None = None


class CommandDesk:
    """Accepts commands for the trainer."""

    def __init__(
        self,
        *,
        port: TrainerPort,
        journal: Journal,
        recorder: Recorder,
        board: CommandBoard,
        clock: Callable[[], float],
        id_prefix: str,
        on_health: Callable[[bool], None],
        check_swap: Callable[[KernelSwapCommand], None],
    ) -> None:
        """`id_prefix` begins every command id and must be new at each start; `on_health` hears of the journal.

        `check_swap` raises EsperdError for a kernel that cannot be given to a seed.
        """
        self._port = port
        self._journal = journal
        self._recorder = recorder
        self._board = board
        self._clock = clock
        self._ids: Iterator[str] = (f"{id_prefix}-{number}" for number in itertools.count(1))
        self._on_health = on_health
        self._check_swap = check_swap
        self._accepting: set[asyncio.Task[list[Answer]]] = set()
        self.is_draining = False

    async def submit_one(self, origin: Origin, submission: Submission) -> Answer:
        """Accept one command, or raise what refuses it."""
        return (await self.submit(origin, [submission], atomic=True))[0]

    async def submit(self, origin: Origin, submissions: Sequence[Submission], *, atomic: bool) -> list[Answer]:
        """Accept commands.

        Args:
            origin: who asks.
            submissions: what is asked.
            atomic: accept all or none; otherwise each answer has its own error.

        Raises:
            EsperdError: why all were refused.
        """
        known = await self._known_requests(submissions)
        answers = self._judge(submissions, known, atomic=atomic)
        wanted = [i for i, answer in enumerate(answers) if answer is None]
        if wanted:
            accepted = await self._accept([submissions[i] for i in wanted], origin)
            for i, answer in zip(wanted, accepted, strict=True):
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def hand_over_urgent(self, payload: Payload, reason: str, record: CommandRecord | None = None) -> str:
        """Hand a command over on the emergency lane, then record it; returns its id.

        Args:
            payload: what the trainer is told.
            reason: why.
            record: who asked; None means the daemon itself.

        Raises:
            EsperdError: TRAINER_NOT_RUNNING or DRAINING.
        """
        principal = DAEMON if record is None else record.principal
        command_id = self.new_id() if record is None else record.command_id
        self._port.submit_urgent(Command(command_id, payload, principal, reason))
        self._recorder.accept_later(record or self._own_record(command_id, payload, reason))
        return command_id

    async def submit_own(self, payload: Payload, reason: str, seed_id: int = 0) -> None:
        """Accept a command of the daemon's own: durable first, as those of clients are, then handed over.

        Raises:
            EsperdError: COMMAND_BOX_FULL, TRAINER_NOT_RUNNING, DRAINING or JOURNAL_UNAVAILABLE; nothing was accepted.
        """
        if self.is_draining:
            raise EsperdError("DRAINING")
        self._port.reserve()
        record = replace(self._own_record(self.new_id(), payload, reason), seed_id=seed_id)
        await self._finish([Command(record.command_id, payload, DAEMON, reason)], [record])

    def new_id(self) -> str:
        """A command id that was never used."""
        return next(self._ids)

    async def finish_accepting(self) -> None:
        """Wait until every command whose journal write has begun is handed over or refused."""
        if self._accepting:
            await asyncio.wait(set(self._accepting))

    # Checks 12 to 16

    async def _known_requests(self, submissions: Sequence[Submission]) -> Mapping[str, CommandRecord]:
        names = [submission.asked.request_id for submission in submissions]
        if len(names) > 1 and len(set(names)) < len(names):
            raise InvalidRequest([Violation("commands", "two commands have the same request_id")])
        return await self._journal.find_requests(names)

    def _judge(
        self, submissions: Sequence[Submission], known: Mapping[str, CommandRecord], *, atomic: bool
    ) -> list[Answer | None]:
        """For each submission its answer, or None when it may go on to the journal."""
        answers: list[Answer | None] = []
        named_seeds: set[int] = set()
        for number, submission in enumerate(submissions):
            try:
                answers.append(self._judge_one(submission, known, named_seeds))
            except EsperdError as error:
                if atomic:
                    if len(submissions) > 1:
                        error.metadata["index"] = str(number)
                    raise
                answers.append(Answer(error=error))
        return answers

    def _judge_one(
        self, submission: Submission, known: Mapping[str, CommandRecord], named_seeds: set[int]
    ) -> Answer | None:
        asked = submission.asked
        first = known.get(asked.request_id)
        if first is not None:
            if first.payload_sha256 != submission.payload_sha256:
                raise RequestIdReused(asked.request_id, first.command_id)
            return Answer(first, duplicate=True)
        snapshot = self._port.snapshot()
        check_revision(asked, snapshot)
        is_seed_busy = asked.seed_id in named_seeds or self._board.is_seed_busy(asked.seed_id)
        check_state(asked, snapshot, self._clock(), is_seed_busy=is_seed_busy)
        if isinstance(asked.payload, KernelSwapCommand):
            self._check_swap(asked.payload)
        if asked.seed_id:
            named_seeds.add(asked.seed_id)
        if self.is_draining:
            raise EsperdError("DRAINING")
        if asked.validate_only:
            self._port.reserve()
            self._port.give_back()
            return Answer(_unaccepted(submission))
        return None

    # The journal and the hand-over

    async def _accept(self, submissions: Sequence[Submission], origin: Origin) -> list[Answer]:
        self._port.reserve(len(submissions))
        now_s = self._clock()
        records = [self._record(submission, origin, now_s) for submission in submissions]
        commands = [
            submission.asked.as_command(record.command_id, record.principal, submission.asked.decision_id)
            for submission, record in zip(submissions, records, strict=True)
        ]
        return await self._finish(commands, records)

    async def _finish(self, commands: Sequence[Command], records: Sequence[CommandRecord]) -> list[Answer]:
        """Journal and hand over; a place in the box is reserved for each."""
        task = asyncio.get_running_loop().create_task(self._write_and_hand_over(commands, records))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        # Shielded: a caller that leaves now must not leave a durable command behind that nobody hands over.
        return await asyncio.shield(task)

    async def _write_and_hand_over(self, commands: Sequence[Command], records: Sequence[CommandRecord]) -> list[Answer]:
        try:
            answers = await self._journal.accept(records)
        except BaseException as error:
            self._port.give_back(len(records))
            if isinstance(error, JournalUnavailable):
                self._on_health(False)
            raise
        self._board.accepted([found.record for found in answers if found.status is AcceptStatus.ACCEPTED])
        for command, found in zip(commands, answers, strict=True):
            if found.status is AcceptStatus.DUPLICATE:
                self._port.give_back()
            else:
                self._hand_over(command)
        failpoint("accept.before_answer")
        return [Answer(found.record, duplicate=found.status is AcceptStatus.DUPLICATE) for found in answers]

    def _hand_over(self, command: Command) -> None:
        try:
            self._port.submit(command)
        except EsperdError as gone:
            if gone.reason == "DRAINING":
                return  # durable, so the run's next start carries it out
            # Accepted and durable, but the run ended meanwhile: this is its outcome.
            snapshot = self._port.snapshot()
            step, revision, timeline = snapshot.run.global_step, snapshot.revision, snapshot.run.timeline
            refused = CommandState.REJECTED
            self._recorder.settle_later(
                Outcome(command.command_id, refused, step, revision, gone.refusal(), timeline=timeline)
            )

    def _record(self, submission: Submission, origin: Origin, now_s: float) -> CommandRecord:
        asked = submission.asked
        return CommandRecord(
            command_id=self.new_id(),
            request_id=asked.request_id,
            principal=origin.principal,
            key_id=origin.key_id,
            method=origin.method,
            kind=asked.kind,
            payload=submission.payload,
            payload_sha256=submission.payload_sha256,
            accepted_unix_s=now_s,
            reason=asked.reason,
            seed_id=asked.seed_id,
            accepted_step=self._port.snapshot().run.global_step,
            decision_id=asked.decision_id,
        )

    def _own_record(self, command_id: str, payload: Payload, reason: str) -> CommandRecord:
        data = own_payload(payload)
        return CommandRecord(
            command_id=command_id,
            request_id="",
            principal=DAEMON,
            key_id="",
            method=DAEMON,
            kind=type(payload).__name__,
            payload=data,
            payload_sha256=hashlib.sha256(data).digest(),
            accepted_unix_s=self._clock(),
            reason=reason,
            accepted_step=self._port.snapshot().run.global_step,
        )


def _unaccepted(submission: Submission) -> CommandRecord:
    """What `validate_only` answers with: the request as it was read, without id and without a state."""
    asked = submission.asked
    return CommandRecord(
        command_id="",
        request_id=asked.request_id,
        principal="",
        key_id="",
        method="",
        kind=asked.kind,
        payload=submission.payload,
        payload_sha256=submission.payload_sha256,
        accepted_unix_s=0.0,
        reason=asked.reason,
        seed_id=asked.seed_id,
        state=CommandState.UNSPECIFIED,
    )
