"""What a client notes down while it works, one JSON object a line: a round can be judged again by its files alone.

Times are seconds of the machine's monotonic clock, which all processes of a round share. Knows nothing of judging.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar


@dataclass(frozen=True, slots=True)
class Attempt:
    """One envelope was signed and sent."""

    method: str
    payload_sha256: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """An envelope that had been accepted was sent once more."""

    method: str
    answer: str
    """ACCEPTED, or the reason of the refusal; empty when no answer came."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Requests of one call, and the answer that they are accepted."""

    way: str
    """single, batch, stream, decision, emergency or clear."""
    request_ids: tuple[str, ...]
    command_ids: tuple[str, ...]
    """Empty where the answer named none."""
    asked_s: float
    """When it was asked for the first time."""
    answered_s: float
    durable: bool = True
    """False when the answer said that the disk had not taken it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A client was told the outcome of a command."""

    command_id: str
    state: int
    global_step: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A watch was opened."""

    stream: str
    """One connection of one reader: `reader.number`."""
    feed: str
    """state or commands."""
    every: bool
    """Whether every change was asked for, or only the newest of each thing."""
    token: str
    """In hex; empty for a beginning."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a watch."""

    stream: str
    kind: str
    """snapshot, change, bookmark or draining."""
    token: str
    """In hex: the feed's epoch, then the revision."""
    content: tuple[str, ...] = ()
    """Of the commands' feed `command_id:state` of each; of the state's feed `part:digest` of the state it leads to."""
    global_step: int = 0
    timeline: int = 0

    @property
    def epoch(self) -> str:
        """Which life of the feed it is of."""
        return self.token[:-16]

    @property
    def revision(self) -> int:
        """To which revision it brings the reader."""
        return int(self.token[-16:], 16)


@dataclass(frozen=True, slots=True)
class Ended:
    """A watch ended."""

    stream: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditRead:
    """A page of the audit log."""

    hashes: dict[str, str]
    """Hash of each row by its number."""


@dataclass(frozen=True, slots=True)
class AuditVerified:
    """The daemon was asked to verify its audit log."""

    intact: bool
    num_entries: int
    head_hash: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of the run, as the driver of the round saw it."""

    start: int
    revision: int
    timeline: int
    global_step: int


Event = Attempt | Replayed | Accepted | Outcome | Opened | Message | Ended | AuditRead | AuditVerified | Seen
EventT = TypeVar("EventT")

_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Attempt, Replayed, Accepted, Outcome, Opened, Message, Ended, AuditRead, AuditVerified, Seen)
}


class Notes:
    """Writes events to one file; each line is there as soon as it is written."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def write(self, event: Event) -> None:
        """Add one."""
        self._file.write(json.dumps({"event": type(event).__name__, **asdict(event)}) + "\n")

    def close(self) -> None:
        """No more of them."""
        self._file.close()


def read_events(path: Path) -> list[Event]:
    """The events of one file, in order."""
    return [_event(json.loads(line)) for line in path.read_text().splitlines()]


def of_kind(kind: type[EventT], events: Iterable[Event]) -> list[EventT]:
    """Those of one kind."""
    return [event for event in events if isinstance(event, kind)]


def _event(content: dict[str, Any]) -> Event:
    kind = _KINDS[content.pop("event")]
    names = {field.name for field in fields(kind)}
    assert names >= set(content), f"{kind.__name__} has no {set(content) - names}"
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    event: Event = kind(**values)
    return event
