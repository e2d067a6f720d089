"""`esperctl auth`: what a key may do."""

from typing import TYPE_CHECKING

import click

from esper.client import calls
from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.output import columns, moment, output_option, pairs, show
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import server_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group()
def auth() -> None:
    """What a key may do."""


@auth.command("can-i")
@click.argument("methods", metavar="[METHOD]...", nargs=-1)
@output_option
@click.pass_obj
def can_i(where: Where, methods: tuple[str, ...], output: str) -> None:
    """Whether the key may call each METHOD (SubmitCommand, CommandService/SubmitCommand), or all there are.

    Exit code 1 when a named METHOD is not allowed.
    """
    full = [_full_name(method) for method in methods]

    def ask() -> None:
        with where.client() as client:
            answer = client.check_access(full)
        show(answer, output, lambda: _text(answer))
        if methods and not all(access.allowed for access in answer.methods):
            raise SystemExit(Failed.exit_code)

    run_reporting(ask)


def _full_name(method: str) -> str:
    names = (call.method for call in calls.CALLS)
    found = [name for name in names if name == method or name.endswith(("/" + method, "." + method))]
    if not found:
        raise click.UsageError(f"there is no method {method}; esperctl auth can-i lists them all")
    return found[0]


def _text(answer: server_service_pb2.CheckAccessResponse) -> str:
    until = moment(answer.not_after) if answer.HasField("not_after") else ""
    who = pairs(
        [
            ("principal", answer.principal),
            ("key", f"{answer.key_id} ({answer.key_state})"),
            ("permissions", ", ".join(words.permission(number) for number in answer.permissions)),
            ("valid until", until),
        ]
    )
    return f"{who}\n\n{_table(answer.methods)}"


def _table(accesses: "Iterable[server_service_pb2.MethodAccess]") -> str:
    rows = [
        (access.method.rpartition(".")[2], words.permission(access.permission), access.allowed, access.why_not)
        for access in accesses
    ]
    return columns(("METHOD", "NEEDS", "ALLOWED", "WHY NOT"), rows, "no methods")
