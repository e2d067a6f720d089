"""Where the daemon is and which key signs, when nobody said so.

The address is, in this order: `--address`; ESPER_ADDRESS; the address in the key file that was named; the only
`leyline.sock` under `./esperd-run`, `./run`, `$XDG_RUNTIME_DIR/esperd` and `/run/esperd`. The key is `--key`, else
ESPER_KEY, else the first of the named files beside the socket that can be read. The files for TLS are those of the
`--tls-` options or ESPER_TLS_CA, ESPER_TLS_CERT and ESPER_TLS_KEY, else those that the key file names.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from esper.failures import NoAnswer

if TYPE_CHECKING:
    from esper.client.credentials import Credentials
    from esper.client.tls import TlsFiles

P = ParamSpec("P")
T = TypeVar("T")
SOCKET_NAME = "leyline.sock"
OPERATOR_KEYS = ("operator.key",)
"""Key files of an operator, beside the socket."""
POLICY_KEYS = ("policy.key", "operator.key")
"""Key files of a policy, beside the socket."""


@dataclass(frozen=True, slots=True)
class Target:
    """A daemon, and the credentials for it; None while none were found: reads need none."""

    address: str
    credentials: "Credentials | None"
    tls: "TlsFiles | None" = None
    """For a `tls:` address, if the command line or the environment names them."""


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """The `--tls-` options, None where not given."""

    ca: str | None = None
    certificate: str | None = None
    private_key: str | None = None


def tls_options(command: Callable[P, T]) -> Callable[P, T]:
    """The options that name the files for a `tls:` address."""
    for name, variable, words in (
        ("tls-key", "ESPER_TLS_KEY", "Private key of that certificate."),
        ("tls-cert", "ESPER_TLS_CERT", "Certificate that is shown to the daemon, for tls: addresses."),
        ("tls-ca", "ESPER_TLS_CA", "CA of the daemon's certificate, for tls: addresses."),
    ):
        command = click.option(f"--{name}", envvar=variable, metavar="FILE", help=words)(command)
    return command


def find_target(address: str | None, key: str | None, key_names: Sequence[str], tls: TlsPaths | None = None) -> Target:
    """Resolve address, key and the files for TLS.

    Raises:
        NoAnswer: no socket was found.
        click.UsageError: several were found.
        LeylineError: KEY_FILE_INVALID, CLIENT_TLS_INVALID.
    """
    from esper.client.credentials import Credentials
    from esper.client.tls import tls_files

    credentials = Credentials.load(key) if key else None
    found = address or (credentials.address if credentials is not None else None) or only_socket(os.environ, Path())
    if credentials is None:
        path = key_beside(found, key_names)
        credentials = Credentials.load(path) if path is not None else None
    named = tls or TlsPaths()
    return Target(found, credentials, tls_files(named.ca, named.certificate, named.private_key, Path()))


def only_socket(environment: Mapping[str, str], here: Path) -> str:
    """The address of the only socket in the usual places."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    directories = [
        here / "esperd-run",
        here / "run",
        *([Path(runtime) / "esperd"] if runtime else []),
        Path("/run/esperd"),
    ]
    sockets = [directory / SOCKET_NAME for directory in directories if (directory / SOCKET_NAME).is_socket()]
    if len(sockets) == 1:
        return f"unix:{sockets[0]}"
    if sockets:
        raise click.UsageError(f"several daemons are here: {', '.join(map(str, sockets))}; choose one with --address")
    raise NoAnswer(
        f"E-CLI-001: No daemon answers at unix:{directories[0] / SOCKET_NAME}: there is no such socket. "
        "Start one with esperd serve FILE, or name its address with --address."
    )


def key_beside(address: str, names: Sequence[str]) -> Path | None:
    """The first readable key file of these names in the directory of a Unix socket."""
    if not address.startswith("unix:"):
        return None
    directory = Path(address.removeprefix("unix:").removeprefix("//")).parent
    return next((path for name in names if os.access(path := directory / name, os.R_OK)), None)
