"""The open sessions of policies: packets out, decisions in, and what the trainer is told of the lease.

Event loop only. Carries out what the lease table says; knows neither gRPC nor signatures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from esper.leyline.v1 import command_pb2, policy_service_pb2

from esperd.control import shown
from esperd.control.batches import read_decision
from esperd.control.command_board import CommandBoard
from esperd.control.command_desk import Answer, CommandDesk, Origin, Submission
from esperd.control.command_messages import command_message
from esperd.control.errors import command_error
from esperd.control.lease import LeaseTable, Presence
from esperd.control.outbox import Outbox
from esperd.control.recorder import Recorder
from esperd.leyline.commands import PolicyPresence
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent, SiteView, Snapshot, StatePacket
from esperd.leyline.vocabulary import CommandState, LeaseMode
from esperd.oona.records import CommandRecord

METHOD = "/esper.leyline.v1.PolicyService/DecisionStream"
_PACED_REASON = "interval"
"""The reason of packets that a session may want less often; every other packet goes to every session."""
_FULL_REASONS = ("epoch_end", "run_finished")
"""Packets that carry the run in full."""


@dataclass(slots=True, eq=False)
class PolicySession:
    """One open session."""

    session_id: str
    mode: LeaseMode
    principal: str
    key_id: str
    policy: str
    packet_every_steps: int
    outbox: Outbox = field(default_factory=Outbox)
    waiting: StatePacket | None = None
    """The newest packet, while an earlier decision is outstanding."""
    last_step: int = -1
    sent_sites: tuple[SiteView, ...] | None = None
    """The sites as this policy knows them; None before the first packet."""
    request_ids: set[str] = field(default_factory=set)
    """Of its commands without an outcome."""

    def put_receipt(self, decision_id: str, commands: Sequence[command_pb2.Command], error: EsperdError | None) -> None:
        """Answer a decision."""
        receipt = policy_service_pb2.DecisionReceipt(
            decision_id=decision_id,
            commands=commands,
            error=None if error is None else command_error(error.refusal()),
        )
        self.outbox.put(policy_service_pb2.DecisionStreamResponse(receipt=receipt).SerializeToString())


class PolicySessions:
    """Every open session, and the lease."""

    def __init__(
        self,
        *,
        desk: CommandDesk,
        board: CommandBoard,
        recorder: Recorder,
        snapshot: Callable[[], Snapshot],
        answer_within_s: float,
        max_missed: int,
        run_name: str,
        id_prefix: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`id_prefix` begins session and decision ids and must be new at each start."""
        self._desk = desk
        self._recorder = recorder
        self._snapshot = snapshot
        self._answer_within_s = answer_within_s
        self._run_name = run_name
        self._id_prefix = id_prefix
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        self._table = LeaseTable(max_missed)
        self._sessions: dict[str, PolicySession] = {}
        self._owners: dict[str, PolicySession] = {}
        self._is_draining = False
        board.listen(self._tell_outcome)

    def set_patience(self, answer_within_s: float, max_missed: int) -> None:
        """From the next question on, wait so long for an answer, and take so many missed ones in a row."""
        self._answer_within_s = answer_within_s
        self._table.max_missed = max_missed

    @property
    def lease_principal(self) -> str:
        """Principal of the steering policy, empty if none."""
        return self._table.holder_principal

    def open(
        self, *, number: int, mode: LeaseMode, principal: str, key_id: str, policy: str, packet_every_steps: int
    ) -> PolicySession:
        """Begin a session. Raises EsperdError DRAINING or LEASE_TAKEN."""
        if self._is_draining:
            raise EsperdError("DRAINING")
        session = PolicySession(f"{self._id_prefix}-s{number}", mode, principal, key_id, policy, packet_every_steps)
        presence = self._table.open(session.session_id, mode, principal)
        self._sessions[session.session_id] = session
        opened = policy_service_pb2.SessionOpened(
            lease_id=session.session_id, mode=shown.wire(mode), run_id=self._snapshot().run.run_id
        )
        session.outbox.put(policy_service_pb2.DecisionStreamResponse(opened=opened).SerializeToString())
        self._tell_trainer(presence, packet_every_steps)
        return session

    def note_restart(self) -> None:
        """An earlier start told the trainer of a policy, whose session ended with that start."""
        self._tell_trainer(Presence(False, "the daemon was started again"))

    def close(self, session: PolicySession, why: str) -> None:
        """End a session; its lease, if it holds one, is lost."""
        if self._sessions.pop(session.session_id, None) is None:
            return
        for request_id in session.request_ids:
            self._owners.pop(request_id, None)
        self._tell_trainer(self._table.close(session.session_id, why))

    def packet(self, packet: StatePacket) -> None:
        """Ask every session that wants this packet for a decision; who still thinks gets the newest one later."""
        for session in self._sessions.values():
            if self._wants(session, packet):
                session.waiting = packet
                self._ask(session)

    def tick(self) -> None:
        """Let deadlines pass."""
        late, told = self._table.expire(self._monotonic())
        for presence in told:
            self._tell_trainer(presence)
        for session_id in late:
            self._ask(self._sessions[session_id])

    def spoil(self, session: PolicySession) -> None:
        """Count a decision that could not be used as a missed deadline."""
        self._tell_trainer(self._table.spoil(session.session_id))

    async def decide(
        self, session: PolicySession, decision_id: str, payload: bytes, rationale: str
    ) -> list[command_pb2.Command]:
        """Carry out a decision; in advise mode only record it.

        Raises:
            InvalidRequest: the decision or a command of it breaks a rule; nothing was done.
            EsperdError: DECISION_STALE or LEASE_LOST; nothing was done.
        """
        submissions = read_decision(payload)
        presence = self._table.answer(session.session_id, decision_id, self._monotonic())
        self._tell_trainer(presence, session.packet_every_steps)
        self._record(session, decision_id, submissions, rationale)
        try:
            if session.mode is LeaseMode.ADVISE:
                return [_recorded(submission) for submission in submissions]
            if not submissions:
                return []
            return await self._submit(session, submissions)
        finally:
            if session.session_id in self._sessions:
                self._ask(session)

    def drain(self) -> None:
        """End every session, after telling it why."""
        self._is_draining = True
        last = policy_service_pb2.DecisionStreamResponse(draining=policy_service_pb2.SessionDraining())
        for session in self._sessions.values():
            session.outbox.put(last.SerializeToString())
            session.outbox.end()

    def _wants(self, session: PolicySession, packet: StatePacket) -> bool:
        if packet.reason != _PACED_REASON or not session.packet_every_steps:
            return True
        return packet.snapshot.run.global_step >= session.last_step + session.packet_every_steps

    def _ask(self, session: PolicySession) -> None:
        """Send the newest packet, unless the policy still thinks about an earlier one."""
        packet = session.waiting
        if packet is None:
            return
        decision_id = f"{session.session_id}-{packet.packet_number}"
        if not self._table.ask(session.session_id, decision_id, self._monotonic() + self._answer_within_s):
            return
        session.waiting = None
        is_first = session.sent_sites is None
        sites = packet.snapshot.sites
        message = shown.packet(
            packet,
            sites=_changed_sites(session.sent_sites or (), sites),
            with_run=is_first or packet.reason in _FULL_REASONS,
            name=self._run_name,
        )
        session.sent_sites, session.last_step = sites, packet.snapshot.run.global_step
        request = policy_service_pb2.DecisionRequest(
            decision_id=decision_id, deadline=shown.timestamp(self._clock() + self._answer_within_s), packet=message
        )
        session.outbox.put_request(policy_service_pb2.DecisionStreamResponse(request=request).SerializeToString())

    async def _submit(self, session: PolicySession, submissions: Sequence[Submission]) -> list[command_pb2.Command]:
        """Submit commands, and have the session hear of their outcomes, which may come before their receipt."""
        for submission in submissions:
            session.request_ids.add(submission.asked.request_id)
            self._owners[submission.asked.request_id] = session
        origin = Origin(session.principal, session.key_id, METHOD)
        answers: Sequence[Answer] = [Answer()] * len(submissions)
        try:
            answers = await self._desk.submit(origin, submissions, atomic=False)
        finally:
            for submission, answer in zip(submissions, answers, strict=True):
                if answer.record is None or answer.record.state is not CommandState.ACCEPTED:
                    self._forget(submission.asked.request_id)
        return [_receipt(submission, answer) for submission, answer in zip(submissions, answers, strict=True)]

    def _forget(self, request_id: str) -> PolicySession | None:
        session = self._owners.pop(request_id, None)
        if session is not None:
            session.request_ids.discard(request_id)
        return session

    def _tell_outcome(self, record: CommandRecord) -> None:
        session = self._forget(record.request_id)
        if session is None:
            return
        outcome = policy_service_pb2.DecisionOutcome(command=command_message(record))
        session.outbox.put(policy_service_pb2.DecisionStreamResponse(outcome=outcome).SerializeToString())

    def _record(
        self, session: PolicySession, decision_id: str, submissions: Sequence[Submission], rationale: str
    ) -> None:
        """Write what was decided, and why, into the run's history."""
        if not submissions and not rationale:
            return
        kind = "policy.advice" if session.mode is LeaseMode.ADVISE else "policy.decision"
        snapshot = self._snapshot()
        attributes = {
            "decision_id": decision_id,
            "principal": session.principal,
            "policy": session.policy,
            "request_ids": " ".join(submission.asked.request_id for submission in submissions),
            "commands": " ".join(_in_words(submission) for submission in submissions),
        }
        run, revision, now_s = snapshot.run, snapshot.revision, self._clock()
        self._recorder.append_later(
            NoticeEvent(kind, rationale, "info", run.global_step, revision, now_s, attributes, run.timeline)
        )

    def _tell_trainer(self, presence: Presence | None, packet_every_steps: int = 0) -> None:
        if presence is None:
            return
        self._log.info("policy", present=presence.present, detail=presence.detail)
        try:
            payload = PolicyPresence(presence.present, presence.detail, packet_every_steps, presence.num_missed)
            self._desk.hand_over_urgent(payload, presence.detail)
        except EsperdError as gone:
            self._log.info("the trainer was not told of the policy", error=gone.message)


def _changed_sites(known: Sequence[SiteView], now: Sequence[SiteView]) -> list[SiteView]:
    before = {site.site: site for site in known}
    return [site for site in now if before.get(site.site) != site]


def _receipt(submission: Submission, answer: Answer) -> command_pb2.Command:
    """What became of one command of a decision."""
    if answer.record is not None:
        return command_message(answer.record)
    assert answer.error is not None  # an answer is one or the other
    refused = _recorded(submission)
    refused.state = shown.wire(CommandState.REJECTED)
    refused.error.CopyFrom(command_error(answer.error.refusal()))
    return refused


def _recorded(submission: Submission) -> command_pb2.Command:
    """A command that was taken down, not handed over."""
    request = command_pb2.AdaptationCommand.FromString(submission.payload)
    request.request_id = submission.asked.request_id
    return command_pb2.Command(request=request)


def _in_words(submission: Submission) -> str:
    asked = submission.asked
    return f"{asked.kind}:{asked.seed_id}" if asked.seed_id else asked.kind
