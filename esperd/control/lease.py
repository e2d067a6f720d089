"""Who steers the run: the lease of the one steering policy, decisions and their deadlines, as values.

Pure: no clock, no I/O; times are monotonic seconds that come in. A policy that only went silent is known by its missed
deadlines alone, so three in a row lose the lease; its session stays, and a timely answer takes a vacant lease back.
"""

from dataclasses import dataclass

from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import LeaseMode


@dataclass(frozen=True, slots=True)
class Presence:
    """The trainer must be told: a steering policy is there, or is lost."""

    present: bool
    detail: str
    num_missed: int = 0
    """Decisions it missed in a row, unusable ones among them, when these are why it is lost."""


@dataclass(slots=True)
class _Session:
    mode: LeaseMode
    principal: str
    decision_id: str = ""
    """The decision that is outstanding; empty when none is."""
    deadline_s: float = 0.0
    num_missed: int = 0
    """Deadlines missed in a row."""


class LeaseTable:
    """The open sessions, and which of them steers."""

    def __init__(self, max_missed: int) -> None:
        """`max_missed` missed deadlines in a row lose the lease."""
        self.max_missed = max_missed
        self._sessions: dict[str, _Session] = {}
        self._holder: str | None = None

    @property
    def holder_principal(self) -> str:
        """Principal of the steering policy, empty if nobody holds the lease."""
        return "" if self._holder is None else self._sessions[self._holder].principal

    def open(self, session_id: str, mode: LeaseMode, principal: str) -> Presence | None:
        """Begin a session; a steering one takes the lease.

        Raises:
            EsperdError: LEASE_TAKEN, when another session steers.
        """
        if mode is LeaseMode.STEER and self._holder is not None:
            raise EsperdError("LEASE_TAKEN", principal=self.holder_principal)
        self._sessions[session_id] = _Session(mode, principal)
        if mode is not LeaseMode.STEER:
            return None
        self._holder = session_id
        return Presence(True, f"{principal} took the lease")

    def close(self, session_id: str, why: str) -> Presence | None:
        """End a session; a steering one gives up the lease."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        presence = self._lose(why) if self._holder == session_id else None
        del self._sessions[session_id]
        return presence

    def ask(self, session_id: str, decision_id: str, deadline_s: float) -> bool:
        """Note that a decision is asked for; False while an earlier one is outstanding."""
        session = self._sessions[session_id]
        if session.decision_id:
            return False
        session.decision_id, session.deadline_s = decision_id, deadline_s
        return True

    def answer(self, session_id: str, decision_id: str, now_s: float) -> Presence | None:
        """Take in an answer; it is timely, or refused. A timely one takes a vacant lease back.

        Raises:
            EsperdError: DECISION_STALE when it is late or for another packet; LEASE_LOST when another policy steers.
        """
        session = self._sessions[session_id]
        if not decision_id or decision_id != session.decision_id:
            raise EsperdError("DECISION_STALE", detail="for an old packet")
        if now_s > session.deadline_s:
            raise EsperdError("DECISION_STALE", detail=f"{now_s - session.deadline_s:.3f} s after its deadline")
        session.decision_id = ""
        if session.mode is not LeaseMode.STEER or self._holder == session_id:
            session.num_missed = 0
            return None
        if self._holder is not None:
            raise EsperdError("LEASE_LOST", detail=f"{self.holder_principal} steers now")
        session.num_missed = 0
        self._holder = session_id
        return Presence(True, f"{session.principal} answers again")

    def spoil(self, session_id: str) -> Presence | None:
        """Count an answer that could not be used as a missed deadline."""
        return self._miss(session_id, "sent decisions that are not valid")

    def expire(self, now_s: float) -> tuple[list[str], list[Presence]]:
        """End the decisions whose deadline has passed: the sessions that may be asked again, and what to tell."""
        late = [name for name, found in self._sessions.items() if found.decision_id and now_s > found.deadline_s]
        told = [presence for name in late if (presence := self._miss(name, "missed deadlines")) is not None]
        return late, told

    def _miss(self, session_id: str, what: str) -> Presence | None:
        session = self._sessions[session_id]
        session.decision_id = ""
        session.num_missed += 1
        if self._holder != session_id or session.num_missed < self.max_missed:
            return None
        return self._lose(f"{session.principal} {what} ({session.num_missed} in a row)", session.num_missed)

    def _lose(self, why: str, num_missed: int = 0) -> Presence:
        self._holder = None
        return Presence(False, why, num_missed)
