"""`esperctl timelines`: the run's history as a tree, one line for each branch."""

from collections.abc import Callable, Iterator, Sequence

import click

from esper.ctl.connection import Where
from esper.ctl.output import output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import command_pb2, state_pb2


@click.command()
@click.option("--run", "run_id", default="", metavar="RUN", help="Of this run, not of the current one.")
@output_option
@click.pass_obj
def timelines(where: Where, run_id: str, output: str) -> None:
    """The branches of the run's history: a rollback leaves one and opens the next."""

    def look() -> None:
        with where.client() as client:
            answer = client.timelines(run_id)
            run = client.run(run_id).run
            asked = {one.cause: client.command(one.cause) for one in answer.timelines if is_command(one.cause)}
        show(answer, output, lambda: "\n".join(tree(answer.timelines, run.global_step, asked.get)))

    run_reporting(look)


def is_command(cause: str) -> bool:
    """Causes that are commands: the daemon's ids hold a dash, its rules are words."""
    return "-" in cause and ":" not in cause


def tree(
    found: Sequence[state_pb2.Timeline],
    global_step: int,
    command: Callable[[str], command_pb2.Command | None],
) -> Iterator[str]:
    """Each timeline below the one whose state it went on from; `command` gives that of a cause, if it is one."""
    left_at = {after.timeline - 1: after.left_step for after in found if after.parent}
    newest = max((one.timeline for one in found), default=0)

    def branch(one: state_pb2.Timeline, first: str, rest: str) -> Iterator[str]:
        now = f"now at step {global_step}" if one.timeline == newest else f"left at step {left_at[one.timeline]}"
        came = f"from step {one.fork_step}, {cause_in_words(one.cause, command(one.cause))}, " if one.parent else ""
        yield f"{first}timeline {one.timeline}: {came}{now}"
        changes = seeds_in_words(one)
        children = [other for other in found if other.parent == one.timeline]
        if changes:
            yield f"{rest}{'|  ' if children else '   '}{changes}"
        for child in children:
            is_last = child is children[-1]
            yield from branch(child, f"{rest}+- ", f"{rest}{'   ' if is_last else '|  '}")

    for root in found:
        if not root.parent:
            yield from branch(root, "", "")


def cause_in_words(cause: str, command: command_pb2.Command | None) -> str:
    """Who or what rolled back, and why."""
    if command is None:
        return f"by the rule {cause}"
    reason = f" ({command.request.reason})" if command.request.reason else ""
    return f"by {command.principal}{reason}"


def seeds_in_words(one: state_pb2.Timeline) -> str:
    """What the rollback did to seeds; empty when it did nothing."""
    gone = f"removed seed {', '.join(one.removed_seed_ids)}" if one.removed_seed_ids else ""
    back = f"brought back seed {', '.join(one.restored_seed_ids)}" if one.restored_seed_ids else ""
    return "; ".join(text for text in (gone, back) if text)
