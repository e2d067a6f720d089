"""`esperctl keys`: make, list, retire, revoke and rotate the keys that sign requests, and tell the running daemon.

Main thread. Part of esperctl on machines that have the daemon, whose files it changes; what a client may do without
them (list, revoke, reload) goes over AdminService. Imports what it needs when it runs, so that `--help` stays quick.
"""

import datetime
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from esper import numbers
from esper.ctl.connection import Where
from esper.ctl.options import reason_option
from esper.failures import Failed, NoAnswer, run_reporting

if TYPE_CHECKING:
    from esper.leyline.v1.admin_service_pb2 import KeyInfo, ListKeysResponse

    from esperd.leyline.keyring import Key

DAY_S = 86_400.0
HOUR_S = 3_600.0
NO_DAEMON = "no daemon answers; it reads the key ring when it starts"
PERMISSIONS = ("observe", "command", "emergency", "compile", "operate", "admin")


class Instant(click.ParamType[float]):
    """A time with its zone, as Unix seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time.

        Raises:
            click.BadParameter: it is none, or has no zone.
        """
        try:
            instant = datetime.datetime.fromisoformat(str(value))
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None:
            self.fail(f"{value} is no time with its zone, like 2026-12-01T00:00:00Z.", param, ctx)
        return instant.timestamp()


keyring_option = click.option(
    "--keyring",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The daemon's key ring; keys.toml beside its socket if not given.",
)
client_file_option = click.option(
    "--client-file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the client's file goes; it must not be there.",
)
address_option = click.option(
    "--address", default="", help="The daemon's address, to be kept in the client's file.", metavar="ADDRESS"
)
days_option = click.option(
    "--days", type=click.IntRange(1, 36500), metavar="N", help="How long the key is valid; for ever if not given."
)
not_before_option = click.option(
    "--not-before", type=Instant(), metavar="TIME", help="From when on it is valid, with zone; from now if not given."
)
overlap_option = click.option(
    "--overlap-hours",
    type=numbers.FiniteRange(0, 24 * 365),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long the old key is still accepted.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table", show_default=True,
    help="How the answer is shown.",
)  # fmt: skip


@click.group()
def keys() -> None:
    """Keys: new, list, retire, revoke, rotate, reload."""


@keys.command(short_help="Make a key for a principal.")
@click.argument("principal")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    required=True,
    type=click.Choice(PERMISSIONS),
    help="What the key allows; give it once for each permission.",
)
@keyring_option
@client_file_option
@address_option
@days_option
@not_before_option
@click.pass_obj
def new(
    where: Where,
    principal: str,
    permissions: tuple[str, ...],
    keyring: Path | None,
    client_file: Path,
    address: str,
    days: int | None,
    not_before: float | None,
) -> None:
    """Make a key for PRINCIPAL, add it to the key ring (made if absent) and write the client's file."""
    from esperd.cli.keys import make_key_pair

    def make() -> None:
        ring = keyring or _ring_beside(where)
        key = make_key_pair(
            principal,
            permissions,
            ring,
            client_file,
            address,
            now_unix_s=time.time(),
            not_before_unix_s=not_before,
            lifetime_s=None if days is None else days * DAY_S,
        )
        click.echo(f"key {key.key_id} for {principal} is in {ring}")
        click.echo(f"give {client_file} to {principal}: ESPER_KEY={client_file}")
        _tell(where, ring, key.key_id)

    _act(make)


@keys.command("list")
@click.option("--keyring", type=click.Path(path_type=Path), metavar="FILE",
              help="Of this key ring; of the running daemon, with their use, if not given.")  # fmt: skip
@output_option
@click.pass_obj
def list_(where: Where, keyring: Path | None, output: str) -> None:
    """List keys, never their secrets."""

    def read() -> None:
        from esper.ctl.output import show

        answer = _listed(where) if keyring is None else _in_file(keyring)
        show(answer, output, lambda: _table(answer.keys, with_use=keyring is None))

    _act(read)


@keys.command()
@click.argument("key_id", metavar="KEY")
@keyring_option
@overlap_option
@click.pass_obj
def retire(where: Where, key_id: str, keyring: Path | None, overlap_hours: float) -> None:
    """Let KEY go: still accepted for some hours, in which the log tells of its use; then refused."""
    from esperd.leyline.keyring_edit import find_key, retire_key

    def change() -> None:
        ring = keyring or _ring_beside(where)
        _refuse_revoked(ring, key_id)
        before = find_key(ring, key_id)
        key = retire_key(ring, key_id, time.time(), overlap_hours * HOUR_S)
        if key == before:
            click.echo(f"key {key.key_id} of {key.principal} retires already: accepted until {_end(key)}")
            return
        click.echo(f"key {key.key_id} of {key.principal} retires: accepted until {_end(key)}")
        _tell(where, ring, key_id)

    _act(change)


@keys.command()
@click.argument("key_id", metavar="KEY")
@click.option("--keyring", type=click.Path(path_type=Path), metavar="FILE",
              help="Mark it in this key ring too; needed when no daemon runs.")  # fmt: skip
@reason_option
@click.pass_obj
def revoke(where: Where, key_id: str, keyring: Path | None, reason: str) -> None:
    """Refuse KEY from now on, for good, and end every stream that it opened."""
    from esper.client.errors import Unreachable

    from esperd.leyline.keyring_edit import revoke_key

    def change() -> None:
        if keyring is None:
            _revoke_in(where, key_id, reason)
            return
        key = revoke_key(keyring, key_id)
        click.echo(f"key {key_id} of {key.principal} is revoked in {keyring}")
        daemon = _daemon_of(where, keyring)
        try:
            if daemon is not None:
                _revoke_in(daemon, key_id, reason)
                return
        except Unreachable:
            pass
        click.echo(NO_DAEMON, err=True)

    _act(change)


@keys.command()
@click.argument("key_id", metavar="KEY")
@keyring_option
@client_file_option
@address_option
@overlap_option
@days_option
@not_before_option
@click.pass_obj
def rotate(
    where: Where,
    key_id: str,
    keyring: Path | None,
    client_file: Path,
    address: str,
    overlap_hours: float,
    days: int | None,
    not_before: float | None,
) -> None:
    """Make the key that takes the place of KEY, and let KEY go after an overlap in which both are accepted."""
    from esperd.cli.keys import make_successor

    def change() -> None:
        ring = keyring or _ring_beside(where)
        _refuse_revoked(ring, key_id)
        old, key = make_successor(
            key_id,
            ring,
            client_file,
            address,
            now_unix_s=time.time(),
            overlap_s=overlap_hours * HOUR_S,
            not_before_unix_s=not_before,
            lifetime_s=None if days is None else days * DAY_S,
        )
        click.echo(f"key {key.key_id} for {key.principal} is in {ring}; {old.key_id} is accepted until {_end(old)}")
        click.echo(f"give {client_file} to {key.principal}: ESPER_KEY={client_file}")
        _tell(where, ring, key.key_id)

    _act(change)


@keys.command()
@reason_option
@output_option
@click.pass_obj
def reload(where: Where, reason: str, output: str) -> None:
    """Have the daemon read its key ring again: the whole new ring, or the old one stays."""

    def send() -> None:
        from esper.ctl.output import pairs, show

        with where.client() as client:
            answer = client.reload_keys(reason)
        rows = [
            ("added", ", ".join(answer.added_key_ids) or "-"),
            ("removed", ", ".join(answer.removed_key_ids) or "-"),
            ("changed", ", ".join(answer.changed_key_ids) or "-"),
            ("streams ended", answer.num_streams_ended),
        ]
        show(answer, output, lambda: pairs(rows))

    _act(send)


# The daemon


def _act(action: Callable[[], None]) -> None:
    """Run an action; errors of the catalogue and of the daemon become their text and exit code."""
    from esperd.leyline.errors import EsperdError

    try:
        run_reporting(action)
    except EsperdError as error:
        raise Failed(error.message) from error


def _ring_beside(where: Where) -> Path:
    """The key ring in the run directory, where the socket is."""
    from esper.address import SOCKET_NAME

    from esperd.weatherlight.run_directory import KEYRING_NAME

    try:
        address = where.target().address
    except NoAnswer:
        raise click.UsageError("no daemon runs here; name the key ring with --keyring") from None
    ring = Path(address.removeprefix("unix:").removeprefix("//")).parent / KEYRING_NAME
    if not address.startswith("unix:") or not ring.exists():
        raise click.UsageError(
            f"there is no {KEYRING_NAME} beside a {SOCKET_NAME} of {address}; name it with --keyring"
        )
    return ring


def _refuse_revoked(ring: Path, key_id: str) -> None:
    """What the daemon revoked stands in a file of its own: the ring alone would promise that the key is accepted.

    Raises EsperdError KEY_NOT_ACTIVE, or KEYRING_INVALID for a damaged file.
    """
    from esperd.leyline.errors import EsperdError
    from esperd.leyline.revocations import read_revocations
    from esperd.weatherlight.run_directory import REVOCATIONS_NAME

    if any(row.key_id == key_id for row in read_revocations(ring.absolute().parent / REVOCATIONS_NAME)):
        raise EsperdError("KEY_NOT_ACTIVE", state="revoked")


def _daemon_of(where: Where, ring: Path) -> Where | None:
    """The daemon that was named, else the one whose socket is beside the ring, else the one of the key file."""
    from esper.address import SOCKET_NAME

    socket = ring.absolute().parent / SOCKET_NAME
    if where.address is None and socket.is_socket():
        return Where(f"unix:{socket}", where.key)
    return where if where.address or where.key else None


def _tell(where: Where, ring: Path, key_id: str) -> None:
    """Have the daemon read the ring again, if one runs; the files are what they should be in any case."""
    from esper.client.errors import LeylineError, Unreachable

    daemon = _daemon_of(where, ring)
    if daemon is None or daemon.target().credentials is None:
        click.echo("a daemon that runs reads it after: esperctl keys reload, or SIGHUP", err=True)
        return
    try:
        with daemon.client() as client:
            answer = client.reload_keys(f"esperctl keys: {key_id}")
    except Unreachable:
        click.echo(NO_DAEMON, err=True)
    except LeylineError as error:
        click.echo(f"the daemon goes on with the key ring it has: {error.message}", err=True)
    else:
        if key_id in (*answer.added_key_ids, *answer.changed_key_ids):
            click.echo("the daemon has read it")
        else:
            click.echo(f"the daemon has read its key ring, and {ring} is another: see [control] keyring", err=True)


def _revoke_in(daemon: Where, key_id: str, reason: str) -> None:
    with daemon.client() as client:
        answer = client.revoke_key(key_id, reason)
    ended = answer.num_streams_ended
    click.echo(f"key {key_id} of {answer.key.principal} is refused from now on; {ended} of its streams were ended")


# What is shown


def _listed(where: Where) -> "ListKeysResponse":
    with where.client() as client:
        return client.keys()


def _in_file(path: Path) -> "ListKeysResponse":
    from esper.leyline.v1.admin_service_pb2 import ListKeysResponse

    from esperd.control.shown import key_info
    from esperd.leyline.keyring_edit import read_ring

    now_unix_s, ring = time.time(), read_ring(path)
    return ListKeysResponse(keys=[key_info(key, now_unix_s) for key in ring.keys])


def _table(infos: "Iterable[KeyInfo]", *, with_use: bool) -> str:
    from esper.ctl.output import columns
    from esper.ctl.words import permission

    header = ["KEY", "PRINCIPAL", "PERMISSIONS", "STATE", "VALID FROM", "VALID UNTIL"]
    rows = []
    for info in infos:
        names = ", ".join(map(permission, info.permissions))
        row: list[object] = [info.key_id, info.principal, names, info.state, _shown(info, "not_before")]
        row.append(_shown(info, "not_after"))
        if with_use:
            row += [info.num_requests, _shown(info, "last_used_time"), info.num_streams]
        rows.append(row)
    return columns([*header, *(["REQUESTS", "LAST USED", "STREAMS"] if with_use else [])], rows, "there are no keys")


def _shown(info: "KeyInfo", field: Literal["not_before", "not_after", "last_used_time"]) -> str:
    from esper.ctl.output import moment

    return moment(getattr(info, field)) if info.HasField(field) else "-"


def _end(key: "Key") -> str:
    from esperd.leyline.keyring_edit import time_text

    return "its revocation" if key.not_after_unix_s is None else time_text(key.not_after_unix_s)
