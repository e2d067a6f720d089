"""One policy at work: what it makes of each packet, what it remembers, and which reports it owes.

Policy process, no network: packets and outcomes go in, messages to be signed come out. The journal of field reports is
the only file it writes. Clocks are passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from esper.leyline.v1 import command_pb2, policy_service_pb2, vocabulary_pb2
from esper.tamiyo.decision import Decision, Policy
from esper.tamiyo.field_reports import WATCHED, close_windows, open_window
from esper.tamiyo.observation import Attempt, Observation
from esper.tamiyo.packets import PacketReader
from esper.tamiyo.report_journal import ReportJournal
from esper.tamiyo.risk import RiskEngine, Verdict
from esper.tamiyo.tracker import Tracker
from esper.tamiyo.wire import to_attempts, to_commands

WINDOW_FRACTION = 0.35
"""Length of an observation window as a share of the run: a whole life of a seed in the measured recipes."""
ENDLESS_WINDOW_STEPS = 500

UNDECIDED = (vocabulary_pb2.COMMAND_STATE_UNSPECIFIED, vocabulary_pb2.COMMAND_STATE_ACCEPTED)
"""States of a command whose outcome is still to come."""

_log = structlog.get_logger("esper.tamiyo")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one packet."""

    observation: Observation
    decision: Decision
    """As it leaves, after the risk engine."""
    messages: tuple[command_pb2.AdaptationCommand, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command whose outcome has not come yet."""

    attempt: Attempt
    observation: Observation
    propensity: float
    command_id: str = ""


class Agent:
    """A policy with its memory, its risk engine and its journal of reports."""

    def __init__(
        self,
        policy: Policy,
        engine: RiskEngine,
        *,
        principal: str,
        state_directory: Path,
        advise: bool,
        process_id: str,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.reader = PacketReader()
        self._engine = engine
        self._tracker = Tracker(principal)
        self._state_directory = state_directory
        self._advise = advise
        self._process_id = process_id
        """Makes request ids unique over restarts of this process."""
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._asked: dict[str, _Asked] = {}
        self.journal: ReportJournal | None = None
        """The reports of the run that is being watched."""

    def answer(self, request: policy_service_pb2.DecisionRequest) -> Answer:
        """Decide on a packet; never raises for anything the policy does."""
        observation = self._tracker.observe(self.reader.read(request.packet))
        self._open_journal(observation.run_id)
        began_s = self._monotonic()
        decision = self._decide(observation, began_s)
        now_s = self._monotonic()
        reviewed, verdicts = self._engine.review(
            observation, decision, inference_share=(now_s - began_s) / self._budget_s(request), now_s=now_s
        )
        messages = to_commands(request.decision_id, self._process_id, reviewed.commands, verdicts)
        self._remember(observation, reviewed, messages, request.decision_id)
        self._close_windows(observation)
        return Answer(observation, reviewed, tuple(messages), verdicts)

    def take_receipt(self, receipt: policy_service_pb2.DecisionReceipt, answer: Answer) -> None:
        """The daemon has answered a decision."""
        if receipt.HasField("error"):
            for message in answer.messages:
                self._settle(message.request_id, "REJECTED", receipt.error.reason, "", 0)
            return
        for command in receipt.commands:
            request_id = command.request.request_id
            if self._advise:
                self._settle(request_id, "RECORDED", "", "", 0)
            elif command.state not in UNDECIDED:
                self.take_outcome(command)
            elif request_id in self._asked:
                self._asked[request_id] = replace(self._asked[request_id], command_id=command.command_id)

    def take_outcome(self, command: command_pb2.Command) -> None:
        """A command has its outcome."""
        state = vocabulary_pb2.CommandState.Name(command.state).removeprefix("COMMAND_STATE_")
        reason = command.error.reason
        if state != "APPLIED":
            _log.warning("command came to nothing", command_id=command.command_id, state=state, reason=reason)
        asked = self._asked.get(command.request.request_id)
        if asked is not None:
            self._asked[command.request.request_id] = replace(asked, command_id=command.command_id)
        self._settle(command.request.request_id, state, reason, command.seed_id, command.revision)

    def unanswered(self) -> list[str]:
        """Ids of accepted commands whose outcome has not come."""
        return [asked.command_id for asked in self._asked.values() if asked.command_id]

    def disconnected(self) -> None:
        """The session was lost; what could not be found out about its commands stays unknown."""
        self._asked.clear()
        self._tracker.disconnected()
        self.reader = PacketReader()

    def close(self) -> None:
        """Let go of the journal."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def _decide(self, observation: Observation, now_s: float) -> Decision:
        try:
            return self.policy.decide(observation)
        except Exception as error:  # noqa: BLE001 - a policy's own code may raise anything; then it waits, and is counted
            self._engine.failed(now_s)
            _log.exception("the policy failed", policy=self.policy.name, step=observation.step)
            return Decision(rationale=f"the policy failed: {type(error).__name__}: {error}")

    def _budget_s(self, request: policy_service_pb2.DecisionRequest) -> float:
        """Seconds until the deadline; never nothing, so that a share of it can be taken."""
        if not request.HasField("deadline"):
            return 2.0
        return max(1e-3, request.deadline.ToNanoseconds() * 1e-9 - self._wall_clock())

    def _remember(
        self,
        observation: Observation,
        decision: Decision,
        messages: Sequence[command_pb2.AdaptationCommand],
        decision_id: str,
    ) -> None:
        attempts = to_attempts(decision.commands, messages, observation)
        if decision.held_out:
            held_out = Attempt(f"{self._process_id}/{decision_id}", "HELD_OUT", observation.step, state="APPLIED")
            attempts.append(held_out)
            self._watch(held_out, "", observation, decision.propensity)
        self._tracker.sent(attempts)
        for attempt in attempts:
            if attempt.operation in WATCHED and attempt.state == "PENDING":
                self._asked[attempt.request_id] = _Asked(attempt, observation, decision.propensity)

    def _settle(self, request_id: str, state: str, reason: str, seed_id: str, revision: int) -> None:
        self._tracker.settled(request_id, state, reason, seed_id, revision)
        asked = self._asked.pop(request_id, None)
        if asked is None or state == "RECORDED":
            return
        attempt = replace(asked.attempt, state=state, reason=reason, seed_id=asked.attempt.seed_id or seed_id)
        self._watch(attempt, asked.command_id, asked.observation, asked.propensity)

    def _watch(self, attempt: Attempt, command_id: str, observation: Observation, propensity: float) -> None:
        steps = round(WINDOW_FRACTION * observation.num_steps_total) or ENDLESS_WINDOW_STEPS
        window = open_window(
            attempt, command_id, observation, steps, propensity=propensity, held_out=attempt.operation == "HELD_OUT"
        )
        if self.journal is not None:
            self.journal.watch(window)

    def _close_windows(self, observation: Observation) -> None:
        if self.journal is None:
            return
        for report in close_windows(
            list(self.journal.windows.values()),
            observation,
            policy_version=f"{self.policy.name}-{self.policy.version}",
            now_unix_s=self._wall_clock(),
        ):
            self.journal.file(report)

    def _open_journal(self, run_id: str) -> None:
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in run_id) or "run"
        mode = "advise" if self._advise else "steer"
        path = self._state_directory / f"{name}-{self.policy.name}-{mode}.jsonl"
        if self.journal is not None and self.journal.path == path:
            return
        self.close()
        self.journal = ReportJournal(path)
