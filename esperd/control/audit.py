"""The audit trail: who tried to change what, and how it was answered, refusals included.

Event loop only. Rows go to the journal in order, behind the answers: an accepted command names its principal and its
bytes in a durable row of its own, so the trail need not hold up the answer. A flood of refusals must not fill the disk:
refusals that are alike within one period are one row with their number.
"""

from collections.abc import Callable
from dataclasses import replace

from esperd.oona.records import AuditEntry

PERIOD_S = 1.0
MAX_KINDS = 1024
"""Different refusals that are counted within one period; the rest share one row."""
MAX_UNPROVEN = 256
"""Of these, so many at once may be of callers that have proven nothing,"""
UNPROVEN_PER_PERIOD = 4
"""and so many more with each period: who invents a key id for each call must not fill the disk either."""


class AuditTrail:
    """Collects audit entries and passes them on."""

    def __init__(self, write: Callable[[AuditEntry], None]) -> None:
        """`write` hands one entry to the journal's writer and never waits."""
        self._write = write
        self._refusals: dict[tuple[str, ...], tuple[AuditEntry, int]] = {}
        self._unproven_left = MAX_UNPROVEN

    def accepted(self, entry: AuditEntry) -> None:
        """Note an attempt that was let through."""
        self._write(entry)

    def refused(self, entry: AuditEntry) -> None:
        """Note a refusal: the first of its kind at once, those alike as a number at the end of the period."""
        kind = (entry.peer, entry.method, entry.key_id, entry.decision)
        if kind not in self._refusals:
            if self._has_room(entry):
                self._refusals[kind] = (entry, 0)
                self._write(entry)
                return
            kind = ("", "", "", "")
        first, alike = self._refusals.get(kind, (entry, 0))
        self._refusals[kind] = (first, alike + 1)

    def close_period(self) -> None:
        """Write the numbers of refusals that were alike, and start counting anew."""
        for first, alike in self._refusals.values():
            if alike:
                self._write(replace(first, detail=f"{alike} more like this within {PERIOD_S:g} s: {first.detail}"))
        self._refusals.clear()
        self._unproven_left = min(MAX_UNPROVEN, self._unproven_left + UNPROVEN_PER_PERIOD)

    def _has_room(self, entry: AuditEntry) -> bool:
        """Whether a kind of refusal that is new in this period becomes a row of its own."""
        if entry.principal:
            return len(self._refusals) < MAX_KINDS
        if not self._unproven_left:
            return False
        self._unproven_left -= 1
        return True
