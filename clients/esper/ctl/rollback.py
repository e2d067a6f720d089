"""`esperctl rollback`: shows where it lands and what is lost, asks, goes back, and says where the run stands."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from esper.ctl import landing, words
from esper.ctl.connection import Where
from esper.ctl.landing import Losses, Target
from esper.ctl.options import timeout_option
from esper.ctl.output import as_values, confirm, duration, output_option, show_values
from esper.ctl.tables import place, timeline_line, what
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import command_pb2, run_service_pb2, state_pb2, vocabulary_pb2
from esper.text import plain

if TYPE_CHECKING:
    from esper.client.sync import Client

TIERS = ("fast", "full")
SETTLE_S = 5.0
"""How long the new timeline may take to show after the outcome."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A rollback before it is asked for."""

    before: run_service_pb2.GetRunResponse
    point: state_pb2.RestorePoint
    losses: Losses


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was typed."""

    target: Target
    tier: str
    reason: str
    request_id: str

    def command(self, point: state_pb2.RestorePoint | None) -> command_pb2.AdaptationCommand:
        """What the daemon is asked: the target as it was typed, or with a tier the very state that was found."""
        from esper.client.plans import roll_back

        target = self.target
        if self.tier and point is not None and not target.checkpoint_id:
            is_full = self.tier == "full"
            target = Target(point.checkpoint_id) if is_full else Target(global_step=point.global_step)
        wanted: Any = vocabulary_pb2.RollbackTier.Value(f"ROLLBACK_TIER_{self.tier.upper()}") if self.tier else 0
        return roll_back(
            target.checkpoint_id, target.global_step, target.before_seed_id, wanted, self.reason, self.request_id
        )


@click.command()
@click.option("--to", "text", required=True, metavar='STEP|CHECKPOINT|"before seed N"',
              help="A step or a seed leads to the newest good state before it.")  # fmt: skip
@click.option("--tier", type=click.Choice(TIERS), default=None, help="Only from memory, or only from disk.")
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("--request-id", default="", help="Your own id: sent again, it changes nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be lost, change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@timeout_option(60.0, "How long to wait for the outcome.")
@output_option
@click.pass_obj
def rollback(
    where: Where,
    text: str,
    tier: str | None,
    reason: str,
    request_id: str,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    output: str,
) -> None:
    """Go back to an earlier state of the run, on a new timeline; what came after it is left behind."""
    wish = _Wish(Target.read(text), tier or "", reason, request_id)
    run_reporting(_roll_back, where, wish, dry_run, yes, timeout_s, output)


def _roll_back(where: Where, wish: _Wish, dry_run: bool, yes: bool, timeout_s: float, output: str) -> None:
    with where.client() as client:
        plan = _plan(client, wish)
        asked = wish.command(plan.point)
        _check(client, asked)
        if dry_run or output == "table":
            _tell(plan, output)
        if dry_run:
            return
        confirm("Go back?", yes=yes)
        done = client.submit(asked, wait=True, timeout_s=timeout_s)
        after = _settled(client, plan, done)
    if output == "table":
        if done.state == vocabulary_pb2.COMMAND_STATE_APPLIED:
            phase = words.phase(after.run.phase)
            click.echo(f"The run is at step {after.run.global_step} on timeline {timeline_line(after)}: {phase}.")
    else:
        show_values({**_values(plan), "command": as_values(done), "run": as_values(after.run)}, output)
    _raise_unless_back(done, timeout_s)


def _check(client: "Client", asked: command_pb2.AdaptationCommand) -> None:
    """Have the daemon say no before anybody is asked anything."""
    trial = command_pb2.AdaptationCommand()
    trial.CopyFrom(asked)
    trial.validate_only = True
    trial.request_id = ""
    client.submit(trial)


def _plan(client: "Client", wish: _Wish) -> _Plan:
    target = wish.target
    before = client.run()
    stories = [client.seed(seed.seed_id) for seed in client.seeds(with_gone=True).seeds]
    germinated = None
    if target.before_seed_id:
        germinated = client.seed(target.before_seed_id).seed.germinated_step
    point = landing.find(target, before, germinated, wish.tier)
    if point is None:
        _check(client, wish.command(None))
        if not target.checkpoint_id:
            raise Failed(
                "E-RBK-001: There is no state to go back to: no good one is as old as that. "
                "esperctl checkpoint list shows the states that there are; one may be named."
            )
        point = landing.on_disk(client.checkpoint_info(target.checkpoint_id).checkpoint)
    return _Plan(before, point, landing.losses(point, before, stories, _applied(client, before.run)))


def _applied(client: "Client", run: state_pb2.Run) -> Iterator[command_pb2.Command]:
    """Commands of this run that took effect, newest first; the journal may hold earlier runs behind them."""
    began_ns = run.start_time.ToNanoseconds()
    token = ""
    while True:
        page = client.commands(page_size=500, page_token=token, state=vocabulary_pb2.COMMAND_STATE_APPLIED)
        for one in page.commands:
            if one.accept_time.ToNanoseconds() < began_ns:
                return
            yield one
        token = page.next_page_token
        if not token:
            return


def _settled(client: "Client", plan: _Plan, done: command_pb2.Command) -> run_service_pb2.GetRunResponse:
    """The run after its outcome; the state that shows the new timeline comes a moment later."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        after = client.run()
        is_shown = after.run.timeline > plan.before.run.timeline
        if is_shown or done.state != vocabulary_pb2.COMMAND_STATE_APPLIED or time.monotonic() > deadline_s:
            return after
        time.sleep(0.05)


def _tell(plan: _Plan, output: str) -> None:
    if output == "table":
        click.echo("\n".join(map(plain, _lines(plan))))
    else:
        show_values(_values(plan), output)


def _lines(plan: _Plan) -> Iterator[str]:
    run, point, lost = plan.before.run, plan.point, plan.losses
    good = "" if point.is_good else ", NOT known to be good"
    yield f"from   step {run.global_step} of timeline {run.timeline}"
    yield f"to     {place(point)}{good}"
    at_speed = f", about {duration(lost.training_s)} of training" if lost.training_s else ""
    yield f"lost   {lost.num_steps} steps{at_speed}"
    yield from _block("seeds that go:", lost.going)
    yield from _block("fossils that go:", lost.fossils)
    yield from _block("seeds that come back:", lost.returning)
    yield from _block("seeds that step back:", lost.stepping_back)
    changes = landing.hyperparameter_changes(lost.commands)
    yield from _block("changes of hyper-parameters that are undone:", [_command_line(one) for one in changes])
    others = [one for one in lost.commands if one not in changes]
    yield from _block("other commands that are undone:", [_command_line(one) for one in others])
    yield f"The run goes on as timeline {1 + max(one.timeline for one in plan.before.timelines)}."


def _block(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield title
        yield from (f"  {line}" for line in lines)


def _command_line(one: command_pb2.Command) -> str:
    reason = f": {one.request.reason}" if one.request.reason else ""
    return f"step {one.global_step}  {what(one)}, by {one.principal}{reason}"


def _values(plan: _Plan) -> dict[str, Any]:
    lost = plan.losses
    return {
        "landing": as_values(plan.point),
        "lost": {
            "numSteps": lost.num_steps,
            "trainingS": round(lost.training_s, 3),
            "seedsThatGo": list(lost.going),
            "fossilsThatGo": list(lost.fossils),
            "seedsThatComeBack": list(lost.returning),
            "seedsThatStepBack": list(lost.stepping_back),
            "commands": [as_values(one) for one in lost.commands],
        },
    }


def _raise_unless_back(done: command_pb2.Command, timeout_s: float) -> None:
    if done.state == vocabulary_pb2.COMMAND_STATE_APPLIED:
        return
    if done.state == vocabulary_pb2.COMMAND_STATE_ACCEPTED:
        raise Failed(
            f"the rollback has no outcome after {timeout_s:g} s. "
            f"It may still take effect; look again with esperctl command get {done.command_id}."
        )
    raise Failed(done.error.message or f"the command is {words.command_state(done.state)}")
