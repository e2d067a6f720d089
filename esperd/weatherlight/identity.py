"""Who this daemon and this run are: names that are made once at the start.

Pure: the time and the random bytes come in as arguments.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from esperd.config.settings import Settings

EPOCH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """The names of one start of the daemon."""

    daemon_id: str
    """The audience of signed requests; the same at every start, so that clients can keep it."""
    run_id: str
    """Unique, and sorts by the time of the start."""
    epoch: bytes
    """Random and new at every start: a request signed for an earlier start is refused."""


def make_identity(
    settings: Settings, unix_s: float, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> Identity:
    """Names for a daemon that starts at `unix_s` with these settings."""
    name = settings.run.name or _slug(Path(settings.run.directory).name) or "run"
    started = datetime.fromtimestamp(unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    return Identity(
        daemon_id=settings.control.daemon_id or f"esperd-{name}",
        run_id=f"{started}-{name}-{random_bytes(3).hex()}",
        epoch=random_bytes(EPOCH_BYTES),
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:64]
