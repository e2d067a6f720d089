"""Where the daemon listens: Unix sockets, and loopback TCP.

Event loop side, at start-up and at the end. A socket file that another daemon still answers on is left alone.
"""

import contextlib
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Any

from esperd.leyline.errors import EsperdError

MAX_UNIX_PATH_BYTES = 100
SOCKET_MODE = 0o660
"""The owner and the group may connect, nobody else."""
_PROBE_S = 1.0


def bind(server: Any, address: str) -> str:
    """Let a gRPC server listen on an address; returns the address as it became.

    Raises:
        EsperdError: ADDRESS_UNUSABLE.
    """
    check_address(address)
    path = unix_path(address)
    if path is not None:
        _clear_stale_socket(address, path)
    try:
        port = server.add_insecure_port(address if path is None else f"unix:{path.absolute()}")
    except RuntimeError as error:
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail="it is taken, or not to be had") from error
    if path is None:
        return f"{address.rpartition(':')[0]}:{port}"
    path.chmod(SOCKET_MODE)
    return f"unix:{path.absolute()}"


def check_address(address: str) -> None:
    """Refuse what this daemon does not listen on.

    Raises:
        EsperdError: ADDRESS_UNUSABLE.
    """
    path = unix_path(address)
    if path is None:
        _check_tcp(address)
        return
    path = path.absolute()
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        detail = f"the path has {len(os.fsencode(path))} bytes, at most {MAX_UNIX_PATH_BYTES} are possible"
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=detail)


def unix_path(address: str) -> Path | None:
    """The path of a Unix address, None for any other."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None


def _clear_stale_socket(address: str, path: Path) -> None:
    """Remove the socket file that a daemon which is no more left behind."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=str(error)) from error
    if not stat.S_ISSOCK(mode):
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail="the file there is not a socket")
    if _answers(path):
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail="another daemon answers there")
    path.unlink(missing_ok=True)


def remove_socket(address: str) -> None:
    """Remove the socket file at the end."""
    path = unix_path(address)
    if path is not None:
        path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # full backlog, no permission: somebody may be there
        return True


def _check_tcp(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail="it is neither unix:PATH nor HOST:PORT")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        detail = "without TLS only loopback addresses are served"
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=detail)
