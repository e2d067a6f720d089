"""Where the daemon listens: Unix sockets, TCP with mutual TLS, and loopback TCP.

Event loop side, at start-up and at the end. A socket file that another daemon still answers on is left alone.
"""

import contextlib
import ipaddress
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from esperd.leyline.errors import EsperdError

MAX_UNIX_PATH_BYTES = 100
TLS_PREFIX = "tls:"
SOCKET_MODE = 0o660
"""The owner and the group may connect, nobody else."""
_PROBE_S = 1.0


def bind(
    server: Any, address: str, credentials: Callable[[], grpc.ServerCredentials] | None = None, group: str = ""
) -> str:
    """Let a gRPC server listen on an address; returns the address as it became.

    `credentials` makes what a `tls:` address is bound with; `group` may connect to a Unix socket.

    Raises:
        EsperdError: ADDRESS_UNUSABLE.
    """
    check_address(address)
    path = unix_path(address)
    if path is not None:
        _clear_stale_socket(address, path)
    try:
        if path is not None:
            with _closed_to_others():
                server.add_insecure_port(f"unix:{path.absolute()}")
        elif is_tls(address):
            assert credentials is not None  # a configuration with such an address names the certificates
            port = server.add_secure_port(address.removeprefix(TLS_PREFIX), credentials())
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail="it is taken, or not to be had") from error
    if path is None:
        return f"{address.rpartition(':')[0]}:{port}"
    _give_to_group(address, path, group)
    path.chmod(SOCKET_MODE)
    return f"unix:{path.absolute()}"


@contextlib.contextmanager
def _closed_to_others() -> Iterator[None]:
    """While it lasts, sockets are made with their mode: one that got it later could be connected to before."""
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        yield
    finally:
        os.umask(before)


def _give_to_group(address: str, path: Path, group: str) -> None:
    if not group:
        return
    try:
        shutil.chown(path, group=group)
    except (LookupError, OSError) as error:
        path.unlink(missing_ok=True)
        detail = f"its socket cannot be given to the group {group}: {error}"
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=detail) from error


def is_tls(address: str) -> bool:
    """Whether it is served with TLS."""
    return address.startswith(TLS_PREFIX)


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
    host, _, port = address.removeprefix(TLS_PREFIX).rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        detail = "it is none of unix:PATH, tls:HOST:PORT and HOST:PORT"
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=detail)
    if is_tls(address):
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        detail = "without TLS only loopback addresses are served; write tls:HOST:PORT"
        raise EsperdError("ADDRESS_UNUSABLE", address=address, detail=detail)
