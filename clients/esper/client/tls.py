"""The three files with which a client and a daemon prove to each other who they are over TCP.

Any thread. The files are read anew for each connection that is dialled, since they are renewed from time to time.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from esper.client.errors import LeylineError, local_error

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; an address `tls:HOST:PORT` needs all three."""

    ca: Path
    """The CAs that may have signed the daemon's certificate."""
    certificate: Path
    """This client's certificate, and those between it and its CA."""
    private_key: Path

    def read(self) -> grpc.ChannelCredentials:
        """What a connection is dialled with. Raises LeylineError CLIENT_TLS_INVALID."""
        ca, certificate, key = (_read(path) for path in (self.ca, self.certificate, self.private_key))
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def signature(self) -> Signature:
        """Changes when one of the files does."""
        return tuple(_state_of(path) for path in (self.ca, self.certificate, self.private_key))


def tls_files(ca: str | None, certificate: str | None, private_key: str | None, beside: Path) -> TlsFiles | None:
    """The files as somebody named them, relative to a directory; None when none was named.

    Raises LeylineError CLIENT_TLS_INVALID when one or two are missing.
    """
    named = {"CA": ca, "certificate": certificate, "private key": private_key}
    missing = [name for name, path in named.items() if not path]
    if len(missing) == len(named):
        return None
    if not ca or not certificate or not private_key:
        raise tls_invalid(f"{' and '.join(missing)} missing")
    return TlsFiles(beside / ca, beside / certificate, beside / private_key)


def tls_invalid(detail: str) -> LeylineError:
    """What is wrong with the files."""
    return local_error("CLIENT_TLS_INVALID", detail=detail)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise tls_invalid(f"{path}: {error.strerror or error}") from error
    if b"-----BEGIN " not in content:
        raise tls_invalid(f"{path}: it is no PEM file")
    return content


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
