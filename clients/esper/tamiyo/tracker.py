"""Remembers what happened between packets: history, the policy's own attempts, and seeds that came to an end.

Policy process, one per run; no I/O. A packet holds one moment only; a policy that is to be a pure function of its
observation needs the moments before it too. Everything kept is bounded.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from esper.tamiyo.observation import LIVE_STAGES, Attempt, Ending, Observation, Point, Seed

HISTORY_POINTS = 4096
"""Packets remembered; at one every 25 steps that is a run of 100,000 steps."""
ATTEMPTS = 1024
"""Commands and endings remembered."""


class Tracker:
    """Turns single moments into observations with a past."""

    def __init__(self, principal: str) -> None:
        self._principal = principal
        self._history: deque[Point] = deque(maxlen=HISTORY_POINTS)
        self._attempts: dict[str, Attempt] = {}
        self._settled: dict[str, tuple[Attempt, int]] = {}
        self._endings: deque[Ending] = deque(maxlen=ATTEMPTS)
        self._seeds: dict[str, Seed] = {}
        self._run_id = ""
        self._timeline = 0

    def observe(self, moment: Observation) -> Observation:
        """The moment with its past; forgets the past of another run, and that of a timeline that was left."""
        if moment.run_id != self._run_id:
            self._begin(moment.run_id)
        elif moment.timeline != self._timeline:
            self._go_back()
        self._timeline = moment.timeline
        self._note_endings(moment)
        self._apply_outcomes(moment.revision)
        self._note_point(moment)
        return replace(
            moment,
            history=tuple(self._history),
            attempts=tuple(self._attempts.values()),
            endings=tuple(self._endings),
            principal=self._principal,
        )

    def sent(self, attempts: Iterable[Attempt]) -> None:
        """Remember commands that have left."""
        for attempt in attempts:
            self._attempts[attempt.request_id] = attempt
        while len(self._attempts) > ATTEMPTS:
            self._attempts.pop(next(iter(self._attempts)))

    def settled(self, request_id: str, state: str, reason: str, seed_id: str, revision: int) -> None:
        """A command has its outcome; it shows from the first packet of that revision on."""
        attempt = self._attempts.get(request_id)
        if attempt is not None:
            done = replace(attempt, state=state, reason=reason, seed_id=attempt.seed_id or seed_id)
            self._settled[request_id] = (done, revision)

    def disconnected(self) -> None:
        """Outcomes may have been missed: what is still pending is taken as unknown and no longer waited for."""
        self._apply_outcomes(None)
        for request_id, attempt in self._attempts.items():
            if attempt.state == "PENDING":
                self._attempts[request_id] = replace(attempt, state="UNKNOWN")

    def _begin(self, run_id: str) -> None:
        self._run_id = run_id
        self._history.clear()
        self._attempts.clear()
        self._settled.clear()
        self._endings.clear()
        self._seeds.clear()

    def _go_back(self) -> None:
        """After a rollback nobody here knows what of the past still holds, and the numbers of seeds may come again."""
        self._history.clear()
        self._endings.clear()
        self._seeds.clear()
        pending = {name: attempt for name, attempt in self._attempts.items() if attempt.state == "PENDING"}
        self._attempts = pending

    def _apply_outcomes(self, revision: int | None) -> None:
        for request_id, (attempt, seen_at) in list(self._settled.items()):
            if revision is None or revision >= seen_at:
                self._attempts[request_id] = attempt
                del self._settled[request_id]

    def _note_endings(self, moment: Observation) -> None:
        """A live seed that is live no more has ended; one that has vanished was culled and reset meanwhile."""
        now = {seed.seed_id: seed for seed in moment.seeds}
        for seed_id, before in self._seeds.items():
            seed = now.get(seed_id)
            if before.stage not in LIVE_STAGES or (seed is not None and seed.stage in LIVE_STAGES):
                continue
            stage = "FOSSILIZED" if seed is not None and seed.stage == "FOSSILIZED" else "CULLED"
            self._endings.append(Ending(seed_id, before.site, before.blueprint_id, stage, before.stage, moment.step))
        self._seeds = now

    def _note_point(self, moment: Observation) -> None:
        while self._history and self._history[-1].step >= moment.step:
            self._history.pop()
        self._history.append(
            Point(moment.step, moment.probe_loss, moment.validation_loss, moment.training_loss, moment.lr_phase)
        )
