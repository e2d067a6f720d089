"""The watch over the certificates: what is renewed is taken up, what is broken is not, and an end is told in time."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from esperd.control.certificate_watch import DAY_S, CertificateWatch
from esperd.control.tls import Certificates as Shown
from tests.certificates import Certificates


class Watched:
    """A watch with a clock of its own, and what it has told."""

    def __init__(self, directory: Path) -> None:
        self.made = Certificates(directory)
        self.made.ca()
        self.made.signed("server")
        self.made.signed("next")
        self.now_s = time.time()
        self.told: list[tuple[str, str]] = []
        self.is_good: bool | None = None
        self.shown = Shown(self.made.server(), lambda: self.now_s)
        self.watch = CertificateWatch(self.shown, clock=lambda: self.now_s, tell=self.tell, set_good=self.set_good)

    def tell(self, kind: str, message: str, level: str, facts: Mapping[str, str]) -> None:
        self.told.append((kind, level))

    def set_good(self, is_good: bool) -> None:
        self.is_good = is_good

    def look(self) -> list[tuple[str, str]]:
        """Look once; what was told."""
        self.told.clear()
        self.watch.look()
        return list(self.told)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """The certificate ends in two days, so its end has been told already."""
    watched = Watched(tmp_path)
    assert watched.look() == [("tls.expiring", "error")]
    assert watched.look() == []
    return watched


def test_renewed_files_are_taken_up(watched: Watched) -> None:
    """Once both files fit; that they do not for a moment is told once and bad until it is over."""
    first = watched.shown.pair
    (watched.made.directory / "server.pem").write_bytes((watched.made.directory / "next.pem").read_bytes())
    assert watched.look() == [("tls.refused", "error")]
    assert watched.look() == []
    assert watched.shown.pair is first
    watched.made.install("next", "server")
    assert watched.look() == [("tls.reloaded", "info"), ("tls.expiring", "error")]
    assert watched.shown.pair.fingerprint != first.fingerprint


def test_broken_files_are_bad_although_a_good_pair_is_shown(watched: Watched) -> None:
    """The next start of the daemon would fail."""
    watched.now_s -= 30 * DAY_S  # far from the end
    watched.shown._clock = time.time  # but inside the certificate's own time
    watched.look()
    assert watched.is_good is True
    watched.made.server().private_key.unlink()
    assert watched.look() == [("tls.refused", "error")]
    assert watched.is_good is False
    watched.made.install("next", "server")
    watched.look()
    assert watched.is_good is True


def test_a_reload_is_told_too(watched: Watched) -> None:
    """Whoever exchanged the pair: there is one place where one reads of it."""
    watched.shown.swap(watched.shown.prepare(watched.made.server("next")))
    assert watched.look() == [("tls.reloaded", "info"), ("tls.expiring", "error")]
    assert watched.look() == []


def test_files_that_were_only_touched_are_not_told(watched: Watched) -> None:
    """The same content is the same pair."""
    pair = watched.shown.pair
    watched.made.server().certificate.touch()
    assert watched.look() == []
    assert watched.shown.pair is pair


def test_the_end_is_told_in_three_steps(watched: Watched) -> None:
    """30 days before, 7 days before, and when it has come; each once."""
    end_s = watched.shown.pair.not_after_unix_s
    watched.watch._told = ("", "")
    for left_days, told, is_good in (
        (31, [], True),
        (29.5, [("tls.expiring", "warning")], True),
        (20, [], True),
        (6.9, [("tls.expiring", "error")], False),
        (1, [], False),
        (-0.1, [("tls.expiring", "critical")], False),
    ):
        watched.now_s = end_s - left_days * DAY_S
        assert watched.look() == told, left_days
        assert watched.is_good is is_good
