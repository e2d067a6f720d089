"""The key under which this daemon's validator signs its reports: made once, kept in the run directory.

Main thread, at the start, before anything is served; blocking file work. The process that opens libraries never sees
it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esperd.leyline.errors import EsperdError
from esperd.leyline.private_files import PrivateFileRefused, read_private_text, write_private_text
from esperd.leyline.secret import Secret

VALIDATOR_KEY_NAME = "validator.key"
_NUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class ValidatorKey:
    """A secret with its name."""

    key_id: str
    secret: Secret


def validator_key(path: Path, random_bytes: Callable[[int], bytes]) -> ValidatorKey:
    """The key in this file; a fresh one, written there with mode 0600, when there is no such file.

    Raises:
        EsperdError: KEY_FILE_INVALID when it cannot be read, written or trusted.
    """
    try:
        if not path.exists():
            write_private_text(path, random_bytes(_NUM_BYTES).hex() + "\n")
        secret = bytes.fromhex(read_private_text(path))
    except PrivateFileRefused as refused:
        raise EsperdError("KEY_FILE_INVALID", path=path, detail=refused) from refused
    except ValueError:
        raise EsperdError("KEY_FILE_INVALID", path=path, detail="it is not hexadecimal") from None
    if len(secret) != _NUM_BYTES:
        raise EsperdError("KEY_FILE_INVALID", path=path, detail=f"it holds {len(secret)} bytes, not {_NUM_BYTES}")
    return ValidatorKey(f"validator-{hashlib.sha256(secret).hexdigest()[:8]}", Secret(secret))
