"""Holds the bytes of a secret so that they cannot end up in a log, a traceback or a pickle by accident.

Any thread. Knows nothing of keys or files; whoever needs the bytes calls `reveal`, which is easy to search for.
"""

import hmac
from typing import NoReturn

_SHOWN = "Secret(redacted)"


class Secret:
    """Bytes that print as `Secret(redacted)` and refuse to be pickled or copied."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._secret

    def __repr__(self) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> NoReturn:
        raise TypeError("a secret is not hashable")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")
