"""Commands for the daemon itself: drain, connections, log-level, diag."""

import click

from esper.ctl.connection import Where
from esper.ctl.options import reason_option
from esper.ctl.output import columns, moment, output_option, show
from esper.failures import run_reporting
from esper.leyline.v1 import admin_service_pb2 as pb

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@reason_option
@output_option
@click.pass_obj
def drain(where: Where, reason: str, output: str) -> None:
    """Have the daemon leave in good order: a last checkpoint, streams ended with resume tokens."""

    def send() -> None:
        with where.client() as client:
            answer = client.drain(reason)
        show(answer, output, lambda: f"draining; calls and streams have {answer.drain_s:g} s to end")

    run_reporting(send)


@click.command()
@output_option
@click.pass_obj
def connections(where: Where, output: str) -> None:
    """Open streams, and peers that have called of late."""

    def look() -> None:
        with where.client() as client:
            answer = client.connections()
        show(answer, output, lambda: f"{_streams(answer)}\n\n{_peers(answer)}")

    run_reporting(look)


@click.command("log-level")
@click.argument("level", type=click.Choice(LEVELS))
@reason_option
@output_option
@click.pass_obj
def log_level(where: Where, level: str, reason: str, output: str) -> None:
    """Change the level of the daemon's log until its next start or reload."""

    def send() -> None:
        with where.client() as client:
            answer = client.set_log_level(level, reason)
        show(answer, output, lambda: f"the log's level is {level} now; it was {answer.previous_level}")

    run_reporting(send)


@click.group()
def diag() -> None:
    """What a maintainer needs to see of a daemon in trouble."""


@diag.command("dump")
@reason_option
@output_option
@click.pass_obj
def diag_dump(where: Where, reason: str, output: str) -> None:
    """Stacks of all threads, queues, the configuration without secrets, the newest rows of the journal."""

    def look() -> None:
        with where.client() as client:
            answer = client.diagnostics(reason)
        show(answer, output, lambda: _dump(answer))

    run_reporting(look)


def _streams(answer: pb.ListConnectionsResponse) -> str:
    rows = [
        (
            one.stream_number,
            one.method.rpartition("/")[2],
            one.peer,
            one.principal or "-",
            one.key_id or "-",
            moment(one.open_time),
            one.num_sent,
            one.num_received,
        )
        for one in answer.streams
    ]
    header = ("STREAM", "METHOD", "PEER", "PRINCIPAL", "KEY", "SINCE", "SENT", "RECEIVED")
    return columns(header, rows, "no open streams")


def _peers(answer: pb.ListConnectionsResponse) -> str:
    rows = [(one.peer, one.num_calls, moment(one.last_call_time)) for one in answer.peers]
    return columns(("PEER", "CALLS", "LAST CALL"), rows, "no peers")


def _dump(answer: pb.DumpDiagnosticsResponse) -> str:
    parts = (f"== {section.title}\n{section.text}" for section in answer.sections)
    return "\n\n".join([f"esperd diagnostics, {moment(answer.time)}", *parts])
