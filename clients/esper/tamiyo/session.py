"""One session with the daemon: answers packets before their deadline and delivers field reports beside it.

Policy process, one event loop. Knows nothing of reconnecting (`runner` does that) and nothing of how a policy decides.
"""

import asyncio
import enum
from collections.abc import Callable

import structlog

from esper.client.aio import AsyncClient
from esper.client.attempts import backoff_s
from esper.client.decision_session import DecisionSession
from esper.client.errors import LeylineError, Unreachable
from esper.leyline.v1 import vocabulary_pb2
from esper.tamiyo.agent import UNDECIDED, Agent, Answer
from esper.tamiyo.wire import short, to_field_report

FLUSH_S = 5.0
"""How long the last reports may take when the run is over."""

_log = structlog.get_logger("esper.tamiyo")


class End(enum.Enum):
    """Why a session ended without an error."""

    FINISHED = "finished"
    """The run is over."""
    DRAINED = "drained"
    """The daemon shuts down."""


Tell = Callable[[Answer, str], None]
"""Shows an answer and the daemon's refusal of it, empty if there was none."""


Greet = Callable[[str], None]
"""Shows that a session is open, with the id of its run."""


async def attend(
    client: AsyncClient, agent: Agent, *, advise: bool, packet_every_steps: int, opened: Greet, tell: Tell
) -> End:
    """Hold one session until it ends.

    Raises:
        LeylineError: it could not be opened, or it was lost.
    """
    if await run_is_over(client):
        return End.FINISHED
    mode = vocabulary_pb2.LEASE_MODE_ADVISE if advise else vocabulary_pb2.LEASE_MODE_STEER
    policy = agent.policy
    async with client.decision_session(mode, policy.name, policy.version, packet_every_steps) as session:
        _log.info("session open", lease_id=session.opened.lease_id, run_id=session.opened.run_id)
        opened(session.opened.run_id)
        await _catch_up(client, agent)
        delivery = asyncio.create_task(_deliver_for_ever(client, agent), name="field-report-delivery")
        try:
            end = await _answer_all(client, session, agent, tell)
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)
        await _flush(client, agent)
        return end


async def run_is_over(client: AsyncClient) -> bool:
    """Whether there is nothing left to decide.

    Raises:
        LeylineError: RUN_FAILED, if that is how it ended.
    """
    run = (await client.run()).run
    if run.phase == vocabulary_pb2.TRAINER_PHASE_FAILED:
        raise LeylineError(
            "FAILED_PRECONDITION",
            "RUN_FAILED",
            f"E-RUN-003: The run failed: {run.failure}. Read the log for the traceback of the task.",
        )
    return bool(run.phase == vocabulary_pb2.TRAINER_PHASE_FINISHED)


async def _answer_all(client: AsyncClient, session: DecisionSession, agent: Agent, tell: Tell) -> End:
    num_skipped = 0
    async for request in session:
        for command in session.take_outcomes():
            agent.take_outcome(command)
        if session.num_skipped != num_skipped:
            # A packet carries the sites only when they changed, and that one may have been passed over.
            num_skipped = session.num_skipped
            agent.reader.take_sites((await client.sites()).sites)
        answer = agent.answer(request)
        receipt = await session.decide(request.decision_id, answer.messages, short(answer.decision.rationale))
        agent.take_receipt(receipt, answer)
        tell(answer, receipt.error.message if receipt.HasField("error") else "")
        if request.packet.reason == "run_finished":
            return End.FINISHED
    return End.DRAINED


async def _catch_up(client: AsyncClient, agent: Agent) -> None:
    """Find out what became of the commands whose outcome the last session did not tell."""
    for command_id in agent.unanswered():
        try:
            command = await client.command(command_id)
        except LeylineError as error:
            _log.warning("outcome not found", command_id=command_id, reason=error.reason)
            continue
        if command.state not in UNDECIDED:
            agent.take_outcome(command)
    agent.disconnected()


async def _deliver_for_ever(client: AsyncClient, agent: Agent) -> None:
    num_failures = 0
    while True:
        try:
            await deliver(client, agent)
            num_failures = 0
        except LeylineError as error:
            num_failures += 1
            _log.warning("field reports wait", reason=error.reason, num_failures=num_failures)
        await asyncio.sleep(max(0.2, backoff_s(num_failures)) if num_failures else 0.2)


async def deliver(client: AsyncClient, agent: Agent) -> None:
    """Deliver every report that the daemon does not have; one that it finds wrong is not sent again.

    Raises:
        LeylineError: the daemon cannot take reports now.
    """
    journal = agent.journal
    if journal is None:
        return
    for report in list(journal.reports.values()):
        try:
            await client.submit_field_report(to_field_report(report))
        except Unreachable:
            raise
        except LeylineError as error:
            if error.status != "INVALID_ARGUMENT":
                raise
            _log.error("field report refused", report_id=report.report_id, message=error.message)
        journal.stored(report.report_id)


async def _flush(client: AsyncClient, agent: Agent) -> None:
    try:
        async with asyncio.timeout(FLUSH_S):
            await deliver(client, agent)
    except (LeylineError, TimeoutError) as error:
        _log.warning("field reports are left for the next start", detail=str(error))
