"""Watches the certificates: takes up new files by itself, and tells in time that they end.

Event loop only; looked at every few seconds. Files that cannot be used are told of once and looked at again until they
can: a certificate and its key are often renewed one after the other. Knows neither gRPC nor the journal.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from esperd.control.tls import Certificates, TlsPair
from esperd.leyline.errors import EsperdError

INTERVAL_S = 5.0
DAY_S = 86_400.0
ENDS = ((0.0, "critical"), (7 * DAY_S, "error"), (30 * DAY_S, "warning"))
"""How long before its end a certificate is told of, and how seriously; the most serious first."""
UNHEALTHY_S = 7 * DAY_S
"""The condition `tls` is bad from so long before the end, and while the files cannot be used."""

Tell = Callable[[str, str, str, Mapping[str, str]], None]
"""Takes a notice: kind, words, level, facts."""
_Signature = tuple[tuple[int, int, int] | None, ...]


class CertificateWatch:
    """Looks after one set of certificates."""

    def __init__(
        self, certificates: Certificates, *, clock: Callable[[], float], tell: Tell, set_good: Callable[[bool], None]
    ) -> None:
        """`clock` gives Unix seconds, `tell` takes notices, `set_good` the condition."""
        self._certificates = certificates
        self._clock = clock
        self._tell = tell
        self._set_good = set_good
        self._seen = _signature(certificates.pair)
        self._known = certificates.pair.fingerprint
        self._problem = ""
        """What is wrong with the files on disk, as it was told."""
        self._told: tuple[str, str] = ("", "")
        """(fingerprint, level) of the end that was told last."""

    def look(self) -> None:
        """Take up files that have changed, and tell of an end that is near."""
        pair = self._certificates.pair
        seen = _signature(pair)
        if seen != self._seen or self._problem:
            self._seen = seen
            self._take_up(pair)
        self._tell_of_change()
        left_s = self._certificates.pair.not_after_unix_s - self._clock()
        self._tell_of_end(left_s)
        self._set_good(not self._problem and left_s > UNHEALTHY_S)

    def _take_up(self, shown: TlsPair) -> None:
        try:
            pair = self._certificates.prepare()
        except EsperdError as error:
            if error.message != self._problem:
                self._problem = error.message
                self._tell("tls.refused", f"the certificates stay as they were: {error.message}", "error", {})
            return
        self._problem = ""
        if pair.fingerprint != shown.fingerprint:
            self._certificates.swap(pair)

    def _tell_of_change(self) -> None:
        """Tell of another pair, whoever exchanged it."""
        pair = self._certificates.pair
        if pair.fingerprint == self._known:
            return
        self._known = pair.fingerprint
        facts = {"names": " ".join(pair.names), "days_left": str(self._days_left(pair))}
        self._tell("tls.reloaded", "new connections are shown the new certificate", "info", facts)

    def _tell_of_end(self, left_s: float) -> None:
        pair = self._certificates.pair
        level = next((level for before_s, level in ENDS if left_s <= before_s), "")
        if not level or self._told == (pair.fingerprint, level):
            return
        self._told = (pair.fingerprint, level)
        days = self._days_left(pair)
        words = (
            f"the certificate ends in {days} day{'' if days == 1 else 's'}"
            if left_s > 0.0
            else "the certificate has ended"
        )
        facts = {"path": str(pair.files.certificate), "days_left": str(days)}
        self._tell("tls.expiring", f"{words}; write a new one to {pair.files.certificate}", level, facts)

    def _days_left(self, pair: TlsPair) -> int:
        return max(0, math.floor((pair.not_after_unix_s - self._clock()) / DAY_S))


def _signature(pair: TlsPair) -> _Signature:
    files = pair.files
    return tuple(_state_of(path) for path in (files.certificate, files.private_key, files.client_ca))


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
