"""Rules for the fields of a request: what breaks one is collected, so that a caller learns of every fault at once.

Pure. Reject, never clamp: a value out of range is refused, an enum number that this daemon does not know too.
"""

import enum
import math
from collections.abc import Mapping
from typing import TypeVar

from esperd.control.errors import InvalidRequest, Violation

EnumT = TypeVar("EnumT", bound=enum.IntEnum)

MAX_ID_BYTES = 128
MAX_REASON_BYTES = 1024
MAX_NAME_BYTES = 512
MAX_MAP_ENTRIES = 64


class Rules:
    """Collects what is wrong with one request."""

    __slots__ = ("_prefix", "_reason", "_violations")

    def __init__(self, prefix: str = "", reason: str = "COMMAND_INVALID") -> None:
        """`prefix` goes before each field's path; `reason` is the catalogue's for a request that breaks a rule."""
        self._prefix = prefix
        self._reason = reason
        self._violations: list[Violation] = []

    def refuse(self, field: str, rule: str) -> None:
        """Note a broken rule."""
        self._violations.append(Violation(self._prefix + field, rule))

    def need(self, holds: bool, field: str, rule: str) -> None:
        """Note a broken rule unless it holds."""
        if not holds:
            self.refuse(field, rule)

    def text(self, field: str, value: str, max_bytes: int, *, required: bool = False) -> None:
        """A text of bounded length."""
        if required and not value:
            self.refuse(field, "is required")
        elif len(value) > max_bytes or (not value.isascii() and len(value.encode()) > max_bytes):
            self.refuse(field, f"has more than {max_bytes} bytes")

    def empty(self, field: str, value: object, why: str) -> None:
        """A field that means nothing here, and that nobody should believe in."""
        if value:
            self.refuse(field, f"must be empty: {why}")

    def number(self, field: str, value: float, low: float, high: float) -> None:
        """A finite number within bounds, ends included."""
        if not low <= value <= high or not math.isfinite(value):
            self.refuse(field, f"is {value:g}; it must lie between {low:g} and {high:g}")

    def numbers(self, field: str, values: Mapping[str, float]) -> None:
        """A map of finite numbers."""
        if len(values) > MAX_MAP_ENTRIES:
            self.refuse(field, f"has more than {MAX_MAP_ENTRIES} entries")
        for name, value in values.items():
            if not math.isfinite(value):
                self.refuse(f"{field}[{name[:MAX_ID_BYTES]}]", "is not a finite number")
            if not name or len(name) > MAX_ID_BYTES:
                self.refuse(field, f"has a name that is empty or longer than {MAX_ID_BYTES}")

    def choice(self, field: str, number: int, kind: type[EnumT], *, required: bool = False) -> EnumT:
        """A known member of an enum; the zero member stands for what is unknown."""
        try:
            member = kind(number)
        except ValueError:
            self.refuse(field, f"{number} is not known to this daemon")
            return kind(0)
        if required and not member:
            self.refuse(field, "is required")
        return member

    def seed_id(self, field: str, text: str) -> int:
        """The number of a seed, as text."""
        if text.isascii() and text.isdigit() and len(text) <= 18 and text[0] != "0":
            return int(text)
        self.refuse(field, f"must be the number of a seed, not {text[:MAX_ID_BYTES]!r}" if text else "is required")
        return 0

    def check(self) -> None:
        """Raise InvalidRequest if any rule was broken."""
        if self._violations:
            raise InvalidRequest(self._violations, self._reason)
