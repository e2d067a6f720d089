"""How often one caller may ask: a token bucket for each principal and kind of request.

Event loop only, on the path of every call; the clock comes in. Pacing (`pacing.py`) bounds what all callers together
take from training; this bounds what one of them takes from the others. Each kind has buckets of its own, so that no
flood of commands or reads keeps an emergency out. Knows nothing of gRPC.
"""

import enum
import math
from collections.abc import Callable, Iterable, Mapping

from esperd.config.settings import ControlSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.method_policy import MethodPolicy
from esperd.leyline.vocabulary import Permission

BURST_S = 2.0
"""A caller that was quiet may send so many seconds' worth at once, one request at least."""
MAX_NAMES = 4096
"""Callers that are told apart at once, in each kind; further ones share one bucket."""
OPENING = "the opening of a session"
"""Counts as a read of its peer, since nobody has signed yet; the messages on it count as what they are."""
_SLACK_S = 1e-6
"""A sum of many intervals is a little off."""
_OTHERS = "(callers beyond the table)"
_POLICY_SERVICE = "/esper.leyline.v1.PolicyService/"


class RateClass(enum.Enum):
    """Kinds of requests, by what they are called in an error."""

    READS = "reads"
    """Unsigned calls and streams opened; counted by certificate, host, or for all on a Unix socket together."""
    COMMANDS = "commands"
    """Signed calls, and each batch on a command stream; counted, as all that follow, by principal."""
    DECISIONS = "decisions"
    """What a policy sends: sessions, decisions, field reports."""
    EMERGENCIES = "emergencies"
    ADMIN = "administrative calls"
    """What needs the permission `operate` or `admin`."""


def limits_of(control: ControlSettings) -> Mapping[RateClass, float]:
    """Requests a second of one caller, by kind."""
    return {
        RateClass.READS: control.max_reads_per_s,
        RateClass.COMMANDS: control.max_commands_per_s,
        RateClass.DECISIONS: control.max_decisions_per_s,
        RateClass.EMERGENCIES: control.max_emergencies_per_s,
        RateClass.ADMIN: control.max_admin_per_s,
    }


def rate_class(policy: MethodPolicy) -> RateClass:
    """The kind of a method's requests."""
    if policy.urgent:
        return RateClass.EMERGENCIES
    if not policy.signed:
        return RateClass.READS
    if policy.permission in (Permission.OPERATE, Permission.ADMIN):
        return RateClass.ADMIN
    return RateClass.DECISIONS if policy.method.startswith(_POLICY_SERVICE) else RateClass.COMMANDS


class Rates:
    """The buckets of every kind."""

    def __init__(
        self, policies: Iterable[MethodPolicy], limits: Mapping[RateClass, float], monotonic: Callable[[], float]
    ) -> None:
        """`policies` are those of the contract; whatever is not in it is a read. `monotonic` never goes back."""
        self._monotonic = monotonic
        self._buckets = {kind: _Buckets(kind, limits[kind]) for kind in RateClass}
        self._of_method = {policy.method: self._buckets[rate_class(policy)] for policy in policies}
        self._reads = self._buckets[RateClass.READS]

    def set_limits(self, limits: Mapping[RateClass, float]) -> None:
        """Hold callers to other limits from now on."""
        for kind, per_s in limits.items():
            self._buckets[kind].set_rate(per_s)

    def take(self, method: str, name: str) -> None:
        """Take one token of a caller. Raises EsperdError RATE_LIMITED when there is none."""
        buckets = self._of_method.get(method, self._reads)
        now_s = self._monotonic()
        full_at_s = buckets.full_at_s.get(name)
        if full_at_s is None:
            name, full_at_s = buckets.begin(name, now_s)
        elif full_at_s < now_s:
            full_at_s = now_s
        full_at_s += buckets.interval_s
        if full_at_s - now_s > buckets.full_s:
            raise EsperdError(
                "RATE_LIMITED",
                principal=name,
                rate=f"{1.0 / buckets.interval_s:g}",
                what=buckets.kind.value,
                retry_after_s=math.ceil((full_at_s - now_s - buckets.full_s) * 1e3) / 1e3,
            )
        buckets.full_at_s[name] = full_at_s


class _Buckets:
    """The buckets of one kind, each as one number: when it will be full again (the generic cell rate algorithm)."""

    __slots__ = ("_swept_at_s", "full_at_s", "full_s", "interval_s", "kind")

    def __init__(self, kind: RateClass, per_s: float) -> None:
        self.kind = kind
        self.set_rate(per_s)
        self.full_at_s: dict[str, float] = {}
        self._swept_at_s = 0.0

    def set_rate(self, per_s: float) -> None:
        self.interval_s = 1.0 / per_s
        """Seconds in which one token comes back."""
        self.full_s = max(BURST_S, self.interval_s) + _SLACK_S
        """Seconds in which an empty bucket fills."""

    def begin(self, name: str, now_s: float) -> tuple[str, float]:
        """The row of a caller that has none, and when its bucket is full."""
        if len(self.full_at_s) >= MAX_NAMES and now_s - self._swept_at_s >= 1.0:
            self._swept_at_s = now_s
            # A bucket that is full again says nothing.
            self.full_at_s = {row: full_at_s for row, full_at_s in self.full_at_s.items() if full_at_s > now_s}
        if len(self.full_at_s) < MAX_NAMES:
            return name, now_s
        return _OTHERS, max(now_s, self.full_at_s.get(_OTHERS, now_s))
