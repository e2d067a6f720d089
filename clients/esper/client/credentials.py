"""Reads the key file that lets a client sign: key id, principal, secret, and where the daemon is.

Any thread. The file is TOML of mode 0600; `esperctl keys new --client-file` writes it. The secret never shows in a
repr.
"""

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from esper.client.errors import LeylineError, local_error
from esper.client.tls import TlsFiles, tls_files

_MAX_BYTES = 64 * 1024
_MIN_SECRET_BYTES = 32
_OPTIONAL = ("address", "ca", "certificate", "private_key")
_FIELDS = {"key_id", "principal", "secret", *_OPTIONAL}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs, and with what."""

    key_id: str
    principal: str
    secret: bytes = field(repr=False)
    address: str | None = None
    """Where the daemon listens, if the file says so: `unix:PATH`, `tls:HOST:PORT` or `HOST:PORT`."""
    tls: TlsFiles | None = None
    """For `tls:` addresses, if it names them: `ca`, `certificate` and `private_key`, relative to its directory."""
    path: Path | None = field(default=None, compare=False)
    """The key file that they were read from; it is read again when the daemon refuses the key."""

    @classmethod
    def load(cls, path: Path | str) -> "Credentials":
        """Read a key file. Raises LeylineError KEY_FILE_INVALID, naming what is wrong; never shows the secret.

        Raises CLIENT_TLS_INVALID when it names some of the three TLS files and not all.
        """
        text = _read_private(Path(path))
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            # ValueError besides TOMLDecodeError: a number with more digits than Python converts.
            raise _invalid(path, f"it is not TOML: {error}") from None
        unknown = sorted(set(content) - _FIELDS)
        if unknown:
            raise _invalid(path, f"field {unknown[0]} is unknown")
        for name in ("key_id", "principal", "secret"):
            if not isinstance(content.get(name), str) or not content[name]:
                raise _invalid(path, f"field {name} is missing")
        for name in _OPTIONAL:
            if not isinstance(content.get(name, ""), str):
                raise _invalid(path, f"field {name} is not text")
        tls = tls_files(content.get("ca"), content.get("certificate"), content.get("private_key"), Path(path).parent)
        secret = _secret(path, content["secret"])
        return cls(content["key_id"], content["principal"], secret, content.get("address"), tls, Path(path).absolute())


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _invalid(path, "it is not a regular file")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise _invalid(path, f"its mode is {stat.S_IMODE(status.st_mode):04o}, it must be 0600")
            return file.read(_MAX_BYTES).decode()
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _invalid(path, "it is not UTF-8 text") from error


def _secret(path: Path | str, text: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        # The text is not shown: a mistyped secret is still a secret.
        raise _invalid(path, "field secret is not hexadecimal") from None
    if len(secret) < _MIN_SECRET_BYTES:
        raise _invalid(path, f"field secret has {len(secret)} bytes, at least {_MIN_SECRET_BYTES} are needed")
    return secret


def _invalid(path: Path | str, detail: str) -> LeylineError:
    return local_error("KEY_FILE_INVALID", path=path, detail=detail)
