"""`esperctl kernels`: the compiled blueprints of a run, and those that are wanted."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from esper.ctl import kernel_tables as tables
from esper.ctl import words
from esper.ctl.connection import Where
from esper.ctl.options import reason_option, timeout_option
from esper.ctl.output import as_values, echo_message, output_option, show, show_values, size
from esper.failures import Failed, run_reporting
from esper.leyline.v1 import kernel_pb2, vocabulary_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from esper.client.sync import Client

STATES = [name.removeprefix("KERNEL_STATE_") for name in kernel_pb2.KernelState.keys()[1:]]
TIERS = [name.removeprefix("BLUEPRINT_TIER_") for name in vocabulary_pb2.BlueprintTier.keys()[1:]]
ID_CHARS = 64
JUDGED = (
    kernel_pb2.KERNEL_STATE_OFFERED,
    kernel_pb2.KERNEL_STATE_QUARANTINED,
    kernel_pb2.KERNEL_STATE_REMOVED,
)
"""States after which nothing more is to be waited for."""

state_option = click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES, case_sensitive=False),
    help="Only those in this state; may be given several times.",
)  # fmt: skip


def state_numbers(states: Sequence[str]) -> list[Any]:
    """The states of the contract with these names."""
    return [kernel_pb2.KernelState.Value(f"KERNEL_STATE_{state}") for state in states]


def full_id(client: "Client", artifact_id: str) -> str:
    """The whole name of a kernel, of which the first characters are enough."""
    return artifact_id if len(artifact_id) >= ID_CHARS else client.kernel(artifact_id).kernel.artifact_id


@click.group()
def kernels() -> None:
    """Kernels: list, show, watch, upload, download, verify, pin, unpin, delete.

    A KERNEL is named by its artifact id or the first six characters of it or more.
    """


@kernels.command("list")
@click.option("--blueprint", "blueprint_id", default="", metavar="BLUEPRINT", help="Only those of this blueprint.")
@click.option("--site", default="", help="Only those that this site could use.")
@state_option
@click.option("--tier", type=click.Choice(TIERS, case_sensitive=False), help="Only those of this tier.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Rows at most.")
@click.option("--page-token", default="", help="Where the last page ended.")
@output_option
@click.pass_obj
def list_kernels(
    where: Where,
    blueprint_id: str,
    site: str,
    states: tuple[str, ...],
    tier: str | None,
    limit: int,
    page_token: str,
    output: str,
) -> None:
    """Kernels, those in use first; all but the removed ones unless --state says which."""
    wanted: Any = vocabulary_pb2.BlueprintTier.Value(f"BLUEPRINT_TIER_{tier or 'UNSPECIFIED'}")

    def look() -> None:
        with where.client() as client:
            page = client.kernels(
                blueprint_id=blueprint_id,
                site=site,
                states=state_numbers(states),
                tier=wanted,
                page_size=limit,
                page_token=page_token,
            )
        show(page, output, lambda: tables.page_of(page))

    run_reporting(look)


@kernels.command("show")
@click.argument("artifact_id", metavar="KERNEL")
@output_option
@click.pass_obj
def show_one(where: Where, artifact_id: str, output: str) -> None:
    """One kernel: its manifest, each check of the validator, and which seeds run it."""

    def look() -> None:
        with where.client() as client:
            answer = client.kernel(artifact_id)
        show(answer, output, lambda: tables.details(answer))

    run_reporting(look)


@kernels.command()
@state_option
@click.option("-o", "--output", type=click.Choice(["line", "json"]), default="line", show_default=True,
              help="Lines, or JSON lines.")  # fmt: skip
@click.pass_obj
def watch(where: Where, states: tuple[str, ...], output: str) -> None:
    """Every kernel as it is, then each change as it comes, until it is interrupted."""

    def follow() -> None:
        with where.client() as client:
            for response in client.watch_kernels(states=state_numbers(states)):
                for kernel in response.kernels:
                    if output == "json":
                        echo_message(kernel, output)
                    else:
                        click.echo(tables.line(kernel))
                sys.stdout.flush()

    run_reporting(follow)


@kernels.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True,
                type=click.Path(exists=True, file_okay=False))  # fmt: skip
@click.option("--sign", is_flag=True, help="Sign with your key in place of the signature that is there.")
@click.option("--wait", is_flag=True, help="Wait for the validator; exit 1 unless all are offered.")
@timeout_option(600.0, "How long one upload and --wait may take, each.")
@output_option
@click.pass_obj
def upload(where: Where, directories: tuple[str, ...], sign: bool, wait: bool, timeout_s: float, output: str) -> None:
    """Bring compiled kernels to the daemon; an upload that was cut off goes on where it stood.

    A kernel that nobody has signed yet is signed with your key. One that another key has signed is refused, unless you
    vouch for it with --sign.
    """
    run_reporting(_upload, where, directories, sign, wait, timeout_s, output)


@kernels.command()
@click.argument("artifact_id", metavar="KERNEL")
@click.option("-o", "--output-dir", required=True, metavar="DIR", help="Directory to write, made if it is not there.")
@timeout_option(120.0, "How long it may take.")
@click.pass_obj
def download(where: Where, artifact_id: str, output_dir: str, timeout_s: float) -> None:
    """Write a kernel with all that proves it into a directory; each library is compared with the manifest."""

    def fetch() -> None:
        with where.client() as client:
            files = client.download_kernel(artifact_id, output_dir, timeout_s=timeout_s)
        click.echo(f"kernel {files.artifact_id} in {output_dir}")

    run_reporting(fetch)


@kernels.command()
@click.argument("artifact_id", metavar="[KERNEL]", required=False, default="")
@click.option("--all", "is_all", is_flag=True, help="Every kernel that the library has, one after the other.")
@timeout_option(120.0, "How long one may take.")
@output_option
@click.pass_obj
def verify(where: Where, artifact_id: str, is_all: bool, timeout_s: float, output: str) -> None:
    """Have files and signatures of a kernel looked at again; exit 1 if one is damaged, which is then removed."""
    if bool(artifact_id) == is_all:
        raise click.UsageError("name a kernel, or say --all")
    run_reporting(_verify, where, artifact_id, timeout_s, output)


@kernels.command()
@click.argument("artifact_id", metavar="KERNEL")
@reason_option
@output_option
@click.pass_obj
def delete(where: Where, artifact_id: str, reason: str, output: str) -> None:
    """Remove a kernel; refused while a seed runs it."""

    def remove() -> None:
        with where.client() as client:
            answer = client.delete_kernel(full_id(client, artifact_id), reason)
        show(answer, output, lambda: tables.line(answer.kernel))

    run_reporting(remove)


def _pinning(name: str, pinned: bool, text: str) -> click.Command:
    @kernels.command(name, help=text)
    @click.argument("artifact_id", metavar="KERNEL")
    @output_option
    @click.pass_obj
    def change(where: Where, artifact_id: str, output: str) -> None:
        def ask() -> None:
            with where.client() as client:
                answer = client.pin_kernel(full_id(client, artifact_id), pinned=pinned)
            show(answer, output, lambda: tables.line(answer.kernel))

        run_reporting(ask)

    return change


pin = _pinning("pin", True, "Keep KERNEL whatever quota and age say.")
unpin = _pinning("unpin", False, "Let KERNEL go as quota and age say.")


@click.command()
@click.option("--site", default="", help="Only those that may germinate at this site.")
@output_option
@click.pass_obj
def blueprints(where: Where, site: str, output: str) -> None:
    """Every blueprint that may germinate, with the bounds of its parameters."""

    def look() -> None:
        with where.client() as client:
            answer = client.blueprints(site)
        show(answer, output, lambda: tables.blueprints(answer.blueprints))

    run_reporting(look)


def _upload(where: Where, directories: Sequence[str], sign: bool, wait: bool, timeout_s: float, output: str) -> None:
    from esper.client.kernel_files import KernelFiles

    found = [KernelFiles.read(directory) for directory in directories]
    for files in found:  # all of them are fine before any is sent
        files.check()
    if sign:
        found = [replace(files, signature=None) for files in found]
    done = []
    with where.client() as client:
        for files in found:
            kernel = client.upload_kernel(files, on_progress=_progress(files.artifact_id), timeout_s=timeout_s)
            if wait:
                kernel = _judged(client, kernel, timeout_s)
            done.append(kernel)
            if output == "table":
                click.echo(tables.line(kernel))
    if output != "table":
        show_values([as_values(kernel) for kernel in done], output)
    unfit = [kernel for kernel in done if kernel.state != kernel_pb2.KERNEL_STATE_OFFERED]
    if wait and unfit:
        raise Failed(
            f"kernel {unfit[0].artifact_id} is {words.kernel_state(unfit[0].state)}, not offered. "
            f"See why with esperctl kernels show {tables.short(unfit[0].artifact_id)}."
        )


def _progress(artifact_id: str) -> "Callable[[int, int], None]":
    def tell(num_received: int, num_bytes: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"{tables.short(artifact_id)}  {size(num_received)} of {size(num_bytes)}", err=True)

    return tell


def _judged(client: "Client", kernel: kernel_pb2.Kernel, timeout_s: float) -> kernel_pb2.Kernel:
    """The kernel once the validator has spoken, or as it is when the time is over."""
    import time

    ends_s = time.monotonic() + timeout_s
    while kernel.state not in JUDGED and time.monotonic() < ends_s:
        time.sleep(min(0.5, max(0.0, ends_s - time.monotonic())))
        kernel = client.kernel(kernel.artifact_id).kernel
    return kernel


def _verify(where: Where, artifact_id: str, timeout_s: float, output: str) -> None:
    answers = []
    with where.client() as client:
        names = [full_id(client, artifact_id)] if artifact_id else _stored(client)
        for name in names:
            answer = client.verify_kernel(name, timeout_s=timeout_s)
            answers.append(answer)
            if output == "table":
                click.echo(tables.verdict(answer))
    if output != "table":
        show_values([as_values(answer) for answer in answers], output)
    elif not answers:
        click.echo("no kernels")
    num_bad = sum(not answer.intact for answer in answers)
    if num_bad:
        raise Failed(f"{num_bad} of {len(answers)} kernels are damaged. They were removed; look at the disk.")


def _stored(client: "Client") -> list[str]:
    """The names of all kernels that the library has, whole ones only."""
    wanted = state_numbers(["VALIDATING", "OFFERED", "QUARANTINED"])
    names: list[str] = []
    token = ""
    while True:
        page = client.kernels(states=wanted, page_size=500, page_token=token)
        names += [kernel.artifact_id for kernel in page.kernels if kernel.artifact_id]
        token = page.next_page_token
        if not token:
            return names
