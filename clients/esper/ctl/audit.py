"""`esperctl audit`: who tried to change what, and whether that log is whole."""

from typing import TYPE_CHECKING

import click

from esper.ctl.connection import Where
from esper.ctl.options import timeout_option
from esper.ctl.output import columns, moment, output_option, pairs, show
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import audit_service_pb2

if TYPE_CHECKING:
    from esper.client.sync import Client

_PAGE_ROWS = 1000


@click.group()
def audit() -> None:
    """The audit log: list, verify."""


@audit.command("list")
@click.option("--principal", default="", metavar="NAME", help="Only what this principal did.")
@click.option("--key", "key_id", default="", metavar="KEY", help="Only what claimed to be signed with this key.")
@click.option("--method", default="", metavar="METHOD", help="Only calls of this method, e.g. SubmitCommand.")
@click.option("--decision", default="", metavar="REASON", help="Only this decision: OK, or the reason of an error.")
@click.option("--refused", "refused_only", is_flag=True, help="Only refusals.")
@click.option("--limit", type=click.IntRange(1, _PAGE_ROWS), default=50, show_default=True, help="Rows at most.")
@click.option("--page-token", default="", help="Where the last page ended.")
@output_option
@click.pass_obj
def list_entries(
    where: Where,
    principal: str,
    key_id: str,
    method: str,
    decision: str,
    refused_only: bool,
    limit: int,
    page_token: str,
    output: str,
) -> None:
    """Attempts to change something, newest first, refusals with their true cause."""

    def look() -> None:
        with where.client() as client:
            page = client.audit_entries(
                page_size=limit,
                page_token=page_token,
                principal=principal,
                key_id=key_id,
                method=method,
                decision=decision,
                refused_only=refused_only,
            )
        more = f"\nmore with --page-token {page.next_page_token}" if page.next_page_token else ""
        show(page, output, lambda: _table(page) + more)

    run_reporting(look)


@audit.command("verify")
@click.option("--noted", default="", metavar="HASH", help="A head hash noted earlier, which the log must still hold.")
@timeout_option(600.0, "How long the check may take.")
@output_option
@click.pass_obj
def verify(where: Where, noted: str, timeout_s: float, output: str) -> None:
    """Compute the whole chain again; exit 1 when a row is not what it was when it was written.

    Note the head hash somewhere else: only --noted shows that the newest rows were cut off.
    """

    def look() -> None:
        with where.client() as client:
            found = client.verify_audit_log(timeout_s=timeout_s)
            is_there = not noted or not found.intact or _holds(client, noted.lower())
        show(found, output, lambda: _verdict(found))
        if not found.intact:
            raise Failed(f"the audit log is broken at row {found.first_bad_number}")
        if not is_there:
            raise Failed(f"no row has the hash {noted}: the audit log has been cut off, or it is another one")

    run_reporting(look)


def _holds(client: "Client", noted: str) -> bool:
    """Whether a row has this hash, from the newest on."""
    token = ""
    while True:
        page = client.audit_entries(page_size=_PAGE_ROWS, page_token=token)
        if any(entry.row_hash.hex() == noted for entry in page.entries):
            return True
        token = page.next_page_token
        if not token:
            return False


def _verdict(found: audit_service_pb2.VerifyAuditLogResponse) -> str:
    return pairs(
        (
            ("audit log", "intact" if found.intact else f"broken at row {found.first_bad_number}"),
            ("rows", found.num_entries),
            ("head hash", found.head_hash.hex()),
        )
    )


def _table(page: audit_service_pb2.ListAuditEntriesResponse) -> str:
    rows = [
        (
            entry.number,
            moment(entry.time),
            entry.principal or f"({entry.key_id or 'nobody'})",
            entry.method.rpartition("/")[2],
            entry.decision,
            entry.peer,
            entry.detail,
        )
        for entry in page.entries
    ]
    header = ("ROW", "TIME", "PRINCIPAL", "METHOD", "DECISION", "PEER", "DETAIL")
    return columns(header, rows, "nothing was tried")
