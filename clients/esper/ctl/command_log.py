"""`esperctl command`: one command, the list of them, following them, taking one back."""

from typing import Any

import click

from esper import numbers
from esper.ctl import tables
from esper.ctl.connection import Where
from esper.ctl.output import echo_message, output_option, show
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import vocabulary_pb2

STATES = [name.removeprefix("COMMAND_STATE_") for name in vocabulary_pb2.CommandState.keys()[1:]]


@click.group()
def command() -> None:
    """Commands: get, list, watch, cancel."""


@command.command("get")
@click.argument("command_id", metavar="COMMAND")
@click.option(
    "--wait",
    "wait_s",
    type=numbers.FiniteRange(0, 20),
    default=0.0,
    metavar="SECONDS",
    help="Wait so long for its outcome.",
)
@output_option
@click.pass_obj
def get(where: Where, command_id: str, wait_s: float, output: str) -> None:
    """One command; its error, if it has one, on stderr."""

    def look() -> None:
        with where.client() as client:
            found = client.command(command_id, wait_s=wait_s)
        show(found, output, lambda: tables.command(found))
        if found.error.message:
            raise Failed(found.error.message)

    run_reporting(look)


@command.command("list")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only commands in this state.")
@click.option("--seed", "seed_id", default="", metavar="SEED", help="Only commands about this seed.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most.")
@click.option("--page-token", default="", help="Where the last page ended.")
@output_option
@click.pass_obj
def list_commands(where: Where, state: str | None, seed_id: str, limit: int, page_token: str, output: str) -> None:
    """Commands, newest first."""
    wanted: Any = vocabulary_pb2.CommandState.Value(f"COMMAND_STATE_{state}") if state else 0

    def look() -> None:
        with where.client() as client:
            page = client.commands(page_size=limit, page_token=page_token, state=wanted, seed_id=seed_id)
        more = f"\nmore with --page-token {page.next_page_token}" if page.next_page_token else ""
        show(page, output, lambda: tables.commands(page.commands) + more)

    run_reporting(look)


@command.command("watch")
@click.option("--latest", is_flag=True, help="Only the newest state of each command, when they come fast.")
@output_option
@click.pass_obj
def watch(where: Where, latest: bool, output: str) -> None:
    """Follow commands as they are accepted and settled, one line each. JSON is one message per line."""

    def follow() -> None:
        with where.client() as client:
            for change in client.watch_commands(latest=latest):
                if not change.commands:
                    continue  # a bookmark
                if output == "table":
                    click.echo("\n".join(tables.command_line(one) for one in change.commands))
                else:
                    echo_message(change, output)

    run_reporting(follow)


@command.command("cancel")
@click.argument("command_id", metavar="COMMAND")
@click.option("--reason", default="", help="Why, for the journal.")
@output_option
@click.pass_obj
def cancel(where: Where, command_id: str, reason: str, output: str) -> None:
    """Take back a command that has not taken effect."""

    def send() -> None:
        with where.client() as client:
            found = client.cancel(command_id, reason)
        show(found, output, lambda: tables.command(found))

    run_reporting(send)
