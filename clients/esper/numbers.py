"""The numbers that the command lines take: each fits the field of the wire or the clock that it ends in.

Without them a number that is too large would come back as an exception of protobuf or of the event loop.
"""

import math
from typing import Any

import click

MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1
MAX_SECONDS = 30 * 86400.0
"""Thirty days: longer than anybody waits, and short enough for every timer."""


class FiniteRange(click.FloatRange):
    """A range of floats that refuses NaN too, which compares as inside of every range, and the infinities."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: it is none, not finite, or out of range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


COUNT32 = click.IntRange(0, MAX_UINT32)
"""0 or more, for a uint32."""
POSITIVE32 = click.IntRange(1, MAX_UINT32)
"""1 or more, for a uint32."""
COUNT64 = click.IntRange(0, MAX_UINT64)
"""0 or more, for a uint64."""
POSITIVE64 = click.IntRange(1, MAX_UINT64)
"""1 or more, for a uint64."""
SECONDS = FiniteRange(0, MAX_SECONDS)
"""A time to wait."""
LIFETIME = FiniteRange(0, MAX_SECONDS, min_open=True)
"""A time that something lasts: more than nothing."""
SHARE = FiniteRange(0, 1)
"""From nothing to all."""
