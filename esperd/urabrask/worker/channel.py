"""The line on which the process says what it measures: one JSON message a line, to the daemon alone.

The validator's own process, any thread of it. What anybody prints goes to the standard error, never in between.
"""

import json
import os
from typing import Any


class Stopped(Exception):
    """What was measured makes all further trials needless; the measurement itself says why."""


class Channel:
    """Says messages; each is out before the next line of code runs, so that a crash takes none with it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def instead_of_standard_output(cls) -> "Channel":
        """Take the standard output for messages, and send what is printed to the standard error."""
        own = os.dup(1)
        os.dup2(2, 1)
        return cls(own)

    def began(self, trial: str) -> None:
        """A trial begins."""
        self._say(kind="began", trial=trial)

    def measured(self, name: str, value: float, detail: str = "", *, floor: float = 0.0) -> None:
        """A value was found, which up to `floor` means nothing; of several under one name the worst counts."""
        self._say(kind="measured", name=name, value=float(value), floor=float(floor), detail=detail)

    def failed(self, trial: str, detail: str) -> None:
        """A trial could not be carried out."""
        self._say(kind="failed", trial=trial, detail=detail)

    def stopped(self) -> None:
        """No further trial is needed."""
        self._say(kind="stopped")

    def done(self) -> None:
        """Every trial was carried out."""
        self._say(kind="done")

    def _say(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]
