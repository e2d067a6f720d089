"""`esperctl checkpoint`: make one, see what there is, check it, and remove what is no longer wanted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from esper.ctl import checkpoint_tables as tables
from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.options import timeout_option
from esper.ctl.output import as_values, confirm, output_option, show, show_values, size
from esper.ctl.tables import command as command_line
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import checkpoint_service_pb2, command_pb2, vocabulary_pb2

if TYPE_CHECKING:
    from esper.client.sync import Client

run_option = click.option("--run", "run_id", default="", metavar="RUN", help="Of this run, not of the current one.")


@click.group()
def checkpoint() -> None:
    """Checkpoints: create, list, show, verify, prune. To go back to one: esperctl rollback."""


@checkpoint.command()
@click.option("--note", default="", help="Words for people, kept in the checkpoint.")
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("--request-id", default="", help="Your own id: sent again, it changes nothing.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is on disk.")
@timeout_option(60.0, "How long to wait.")
@output_option
@click.pass_obj
def create(where: Where, note: str, reason: str, request_id: str, no_wait: bool, timeout_s: float, output: str) -> None:
    """Write a checkpoint of the next safe point, and wait until it is on disk."""

    def send() -> None:
        with where.client() as client:
            done = client.checkpoint(
                note=note, reason=reason, request_id=request_id, wait=not no_wait, timeout_s=timeout_s
            )
            found = made_by(client, done)
        if output == "table":
            click.echo(f"checkpoint {found.checkpoint_id} of step {found.global_step}" if found else command_line(done))
        else:
            show_values({"command": as_values(done), "checkpoint": as_values(found) if found else None}, output)
        raise_unless_written(done, no_wait=no_wait, timeout_s=timeout_s)

    run_reporting(send)


@checkpoint.command("list")
@run_option
@click.option("--all-runs", is_flag=True, help="Of every run.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most.")
@click.option("--page-token", default="", help="Where the last page ended.")
@output_option
@click.pass_obj
def list_checkpoints(where: Where, run_id: str, all_runs: bool, limit: int, page_token: str, output: str) -> None:
    """Checkpoints, newest first, and the states that memory holds."""

    def look() -> None:
        with where.client() as client:
            page = client.checkpoints(page_size=limit, page_token=page_token, run_id=run_id, all_runs=all_runs)
        show(page, output, lambda: tables.page_of(page, all_runs))

    run_reporting(look)


@checkpoint.command("show")
@click.argument("checkpoint_id", metavar="CHECKPOINT")
@run_option
@output_option
@click.pass_obj
def show_one(where: Where, checkpoint_id: str, run_id: str, output: str) -> None:
    """One checkpoint: what it holds, its files, and where it lies."""

    def look() -> None:
        with where.client() as client:
            answer = client.checkpoint_info(checkpoint_id, run_id=run_id)
        show(answer, output, lambda: tables.details(answer))

    run_reporting(look)


@checkpoint.command()
@click.argument("checkpoint_id", metavar="[CHECKPOINT]", required=False, default="")
@click.option("--all", "is_all", is_flag=True, help="Every checkpoint of the run, one after the other.")
@run_option
@timeout_option(600.0, "How long one may take.")
@output_option
@click.pass_obj
def verify(where: Where, checkpoint_id: str, is_all: bool, run_id: str, timeout_s: float, output: str) -> None:
    """Read every file of a checkpoint and compare it with its manifest; exit 1 if one is damaged."""
    if bool(checkpoint_id) == is_all:
        raise click.UsageError("name a checkpoint, or say --all")
    run_reporting(_verify, where, checkpoint_id, run_id, timeout_s, output)


def _verify(where: Where, checkpoint_id: str, run_id: str, timeout_s: float, output: str) -> None:
    from esper.client.errors import LeylineError

    rows: list[dict[str, object]] = []
    with where.client() as client:
        names, damaged = ([checkpoint_id], []) if checkpoint_id else _names(client, run_id)
        rows += [_verdict(one.checkpoint_id, [one.problem], 0, output) for one in damaged]
        for name in names:
            try:
                answer = client.verify_checkpoint(name, run_id=run_id, timeout_s=timeout_s)
            except LeylineError as error:
                if checkpoint_id or error.reason != "CHECKPOINT_UNKNOWN":
                    raise
                continue  # the run has gone on and let it go since it was listed
            rows.append(_verdict(name, answer.problems, answer.num_bytes, output))
    if output == "table" and not rows:
        click.echo("no checkpoints")
    elif output != "table":
        show_values(rows, output)
    num_bad = sum(bool(row["problems"]) for row in rows)
    if num_bad:
        raise Failed(f"{num_bad} of {len(rows)} checkpoints are damaged. Keep to the sound ones, and check the disk.")


@checkpoint.command()
@click.option("--keep", type=click.IntRange(1, 1_000_000), default=None, metavar="N",
              help="Scheduled ones to keep.  [default: as the daemon is configured]")  # fmt: skip
@click.option("--keep-requested", type=click.IntRange(0, 1_000_000), default=None, metavar="N",
              help="Those made by command to keep.  [default: all]")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why, for the audit log.")
@run_option
@output_option
@click.pass_obj
def prune(
    where: Where,
    keep: int | None,
    keep_requested: int | None,
    dry_run: bool,
    yes: bool,
    reason: str,
    run_id: str,
    output: str,
) -> None:
    """Remove old checkpoints; the newest ones and those that the run may go back to always stay."""
    wish = {"keep": keep or 0, "keep_requested": keep_requested, "run_id": run_id, "reason": reason}
    run_reporting(_prune, where, wish, dry_run, yes, output)


def made_by(client: "Client", done: command_pb2.Command) -> checkpoint_service_pb2.Checkpoint | None:
    """The checkpoint that a command made."""
    if done.state != vocabulary_pb2.COMMAND_STATE_APPLIED:
        return None
    place = (vocabulary_pb2.CHECKPOINT_KIND_REQUESTED, done.timeline, done.global_step)
    page = client.checkpoints(page_size=200)
    return next((one for one in page.checkpoints if (one.kind, one.timeline, one.global_step) == place), None)


def raise_unless_written(done: command_pb2.Command, *, no_wait: bool, timeout_s: float) -> None:
    """A checkpoint that is not on disk is an error for whoever waits.

    Raises:
        Failed: with the daemon's own words.
    """
    if done.state == vocabulary_pb2.COMMAND_STATE_APPLIED:
        return
    if done.state != vocabulary_pb2.COMMAND_STATE_ACCEPTED:
        raise Failed(done.error.message or f"the command is {words.command_state(done.state)}")
    if not no_wait:
        raise Failed(
            f"the checkpoint is not on disk after {timeout_s:g} s. "
            f"Look again with esperctl command get {done.command_id}."
        )


def _prune(where: Where, wish: "dict[str, Any]", dry_run: bool, yes: bool, output: str) -> None:
    with where.client() as client:
        if not yes:
            going = client.prune_checkpoints(**wish, dry_run=True)
            if dry_run or not going.removed:
                show(going, output, lambda: tables.pruned(going, "would go"))
                return
            click.echo(tables.pruned(going, "will go"), err=True)
            confirm("Remove them?", yes=False)
        done = client.prune_checkpoints(**wish, dry_run=dry_run)
    show(done, output, lambda: tables.pruned(done, "would go" if dry_run else "removed"))


def _names(client: "Client", run_id: str) -> tuple[list[str], Sequence[checkpoint_service_pb2.DamagedCheckpoint]]:
    page = client.checkpoints(page_size=500, run_id=run_id)
    damaged = list(page.damaged)
    names = [one.checkpoint_id for one in page.checkpoints]
    while page.next_page_token:
        page = client.checkpoints(page_size=500, page_token=page.next_page_token, run_id=run_id)
        names += [one.checkpoint_id for one in page.checkpoints]
    return names, damaged


def _verdict(name: str, problems: Sequence[str], num_bytes: int, output: str) -> dict[str, object]:
    if output == "table":
        click.echo(f"{name}  {'DAMAGED: ' + '; '.join(problems) if problems else f'sound, {size(num_bytes)}'}")
    return {"checkpointId": name, "problems": list(problems), "numBytes": str(num_bytes)}
