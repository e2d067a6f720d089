"""Where the daemon is and which key signs, when nobody said so.

The address is, in this order: `--address`; ESPER_ADDRESS; the address in the key file that was named; the only
`leyline.sock` under `./esperd-run`, `./run`, `$XDG_RUNTIME_DIR/esperd` and `/run/esperd`. The key is `--key`, else
ESPER_KEY, else the first of the named files beside the socket that can be read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esper.failures import NoAnswer

if TYPE_CHECKING:
    from esper.client.credentials import Credentials

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


def find_target(address: str | None, key: str | None, key_names: Sequence[str]) -> Target:
    """Resolve address and key.

    Raises:
        NoAnswer: no socket was found.
        click.UsageError: several were found.
        LeylineError: KEY_FILE_INVALID.
    """
    from esper.client.credentials import Credentials

    credentials = Credentials.load(key) if key else None
    found = address or (credentials.address if credentials is not None else None) or only_socket(os.environ, Path())
    if credentials is None:
        path = key_beside(found, key_names)
        credentials = Credentials.load(path) if path is not None else None
    return Target(found, credentials)


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
