"""The heuristic policy: grows while the learning rate is stable, lets candidates compete, keeps what pays.

Pure and deterministic: a decision follows from the settings, the observation and the random generator that was passed
in. The recipe and its measurements: design 04 and growth science, section 7.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from esper.tamiyo.contest import ContestSettings, settle_contests
from esper.tamiyo.decision import Decision, Germinate, PolicyCommand
from esper.tamiyo.observation import LIVE_STAGES, Observation, Site
from esper.tamiyo.plateau import trend
from esper.tamiyo.recipes import IMAGES, Candidate, candidates

CONSERVATIVE = 3
"""Emergency level from which nothing new is asked for."""
FINAL_REFUSALS = frozenset({"GATE_FAILED", "BLUEPRINT_UNKNOWN", "BLUEPRINT_PARAMETER", "BLEND_UNSUITABLE"})
"""Refusals that will not change when asked again."""


@dataclass(frozen=True, slots=True)
class HeuristicSettings:
    """How the heuristic decides."""

    budget: Literal["flops", "steps"] = "flops"
    """What is scarce: `flops` waits for a plateau, `steps` grows early."""
    num_candidates: int = 3
    """Seeds that compete at one site."""
    parallel_sites: bool = True
    """Grow at several sites in one round."""
    max_seeds_per_round: int = 8
    """Candidates over all sites of a round; what the daemon admits at once by default."""
    plateau_improvement: float = 0.01
    """A loss that improves by less than this share of itself over the window stands still."""
    plateau_fraction: float = 0.05
    """The window, as a share of the run."""
    plateau_steps: int = 500
    """The window of an endless run."""
    images_start_fraction: float = 0.27
    """`steps`: when growth begins at image sites; later than elsewhere because overfitting bites."""
    start_fraction: float = 0.15
    """`steps`: when growth begins elsewhere."""
    end_fraction: float = 0.30
    """`steps`: no further round begins after this share of the run."""
    round_fraction: float = 0.05
    """At most one round of germinations in this share of the run."""
    round_steps: int = 500
    """The same for an endless run."""
    max_culls_in_a_row: int = 3
    """Rounds in a row that ended without anything kept, after which growth ends."""
    max_risk: float = 0.5
    """Blueprints at or above this risk are not chosen."""
    rent_ratio: float = 0.01
    """Share of the loss that a seed must bring per unit of ln(1 + FLOP ratio)."""
    hold_out: float = 0.0
    """Chance that a wanted round is turned into waiting, as a control."""
    contest: ContestSettings = field(default_factory=ContestSettings)


class HeuristicPolicy:
    """The recipe as a policy (design 04)."""

    name = "heuristic"
    version = "1"

    def __init__(self, settings: HeuristicSettings, rng: random.Random) -> None:
        self.settings = settings
        self._rng = rng

    def decide(self, observation: Observation) -> Decision:
        """Settle the contests that are due, then see whether a new round should begin."""
        if observation.reason == "run_finished":
            return Decision(rationale="the run has finished")
        commands, reasons = settle_contests(observation, self.settings.contest, self.settings.rent_ratio)
        obstacle = self._obstacle(observation)
        if obstacle:
            return Decision(tuple(commands), "; ".join([*reasons, obstacle]))
        moment, why = self._moment(observation)
        if not moment:
            return Decision(tuple(commands), "; ".join([*reasons, why]))
        germinations = self._round(observation)
        if not germinations:
            return Decision(tuple(commands), "; ".join([*reasons, "no vacant site offers anything worth its cost"]))
        return self._hold_out(commands, germinations, [*reasons, why])

    def _obstacle(self, observation: Observation) -> str:
        """Why no round may begin whatever the losses say; empty when one may."""
        if observation.emergency_level >= CONSERVATIVE:
            return "the run is conservative"
        if observation.lr_phase != "stable":
            return f"the learning rate is in its {observation.lr_phase or 'unknown'} phase"
        if any(attempt.operation == "GERMINATE" for attempt in observation.pending()):
            return "the last round is still being answered"
        num_failed = failed_rounds_in_a_row(observation)
        if num_failed >= self.settings.max_culls_in_a_row:
            return f"{num_failed} rounds in a row ended in a cull, growth is over"
        if any(seed.stage in LIVE_STAGES and observation.owns(seed) for seed in observation.seeds):
            return "seeds of the last round are still growing"
        since = self._steps_since_round(observation)
        if since < self._round_steps(observation):
            return f"the last round began {since} steps ago"
        return ""

    def _moment(self, observation: Observation) -> tuple[bool, str]:
        """Whether now is the time, and why."""
        if self.settings.budget == "steps" and observation.num_steps_total:
            return self._early(observation)
        return self._plateau(observation)

    def _early(self, observation: Observation) -> tuple[bool, str]:
        settings = self.settings
        images = any(site.rank == IMAGES for site in observation.sites)
        start = settings.images_start_fraction if images else settings.start_fraction
        done = f"{observation.fraction:.0%} of the run is done"
        if observation.fraction < start:
            return False, f"{done}, growth begins at {start:.0%}"
        grown = any(attempt.operation == "GERMINATE" for attempt in observation.attempts)
        if observation.fraction > settings.end_fraction and (grown or observation.seeds):
            return False, f"{done}, no round begins after {settings.end_fraction:.0%}"
        return True, f"steps are scarce and {done}: grow now"

    def _plateau(self, observation: Observation) -> tuple[bool, str]:
        settings = self.settings
        window = settings.plateau_fraction * observation.num_steps_total or settings.plateau_steps
        found = trend(observation.history, window)
        if found is None:
            return False, f"too few losses in the last {window:g} steps to see a plateau"
        moved = f"{found.series} improved by {found.improvement:.2%} over the last {window:g} steps"
        if found.improvement >= settings.plateau_improvement:
            return False, moved
        return True, f"plateau: {moved}"

    def _round(self, observation: Observation) -> list[Germinate]:
        """The candidates of a new round, best expected ones first at each site."""
        sites = [site for site in observation.sites if site.is_open(observation.step) and not observation.at(site.site)]
        chosen = self._sites([(site, self._choices(observation, site)) for site in sites])
        if not chosen:
            return []
        per_site = max(1, min(self.settings.num_candidates, self.settings.max_seeds_per_round // len(chosen)))
        return [
            Germinate(
                choice.site,
                choice.recipe.blueprint_id,
                choice.recipe.parameters,
                reason=f"candidate: expected to bring {choice.net_gain:.0%} of the loss net of rent",
            )
            for choices in chosen
            for choice in choices[:per_site]
        ]

    def _choices(self, observation: Observation, site: Site) -> list[Candidate]:
        refused = {
            (attempt.site, attempt.blueprint_id)
            for attempt in observation.attempts
            if attempt.operation == "GERMINATE" and attempt.reason in FINAL_REFUSALS
        }
        offered = candidates(observation, site, self.settings.rent_ratio, self.settings.max_risk)
        return [
            choice
            for choice in offered
            if choice.net_gain > 0.0 and (site.site, choice.recipe.blueprint_id) not in refused
        ]

    def _sites(self, offered: list[tuple[Site, list[Candidate]]]) -> list[list[Candidate]]:
        """Where to grow: the sites with the fewest fossils, those whose best candidate promises most."""
        open_sites = [(site, choices) for site, choices in offered if choices]
        open_sites.sort(key=lambda pair: (pair[0].num_fossils, -pair[1][0].net_gain))
        limit = self.settings.max_seeds_per_round if self.settings.parallel_sites else 1
        return [choices for _, choices in open_sites[:limit]]

    def _hold_out(self, commands: list[PolicyCommand], germinations: list[Germinate], reasons: list[str]) -> Decision:
        chance = self.settings.hold_out
        if chance > 0.0 and self._rng.random() < chance:
            rationale = "; ".join([*reasons, "held out at random as a control"])
            return Decision(tuple(commands), rationale, propensity=chance, held_out=True)
        return Decision((*commands, *germinations), "; ".join(reasons), propensity=1.0 - chance)

    def _steps_since_round(self, observation: Observation) -> float:
        begun = [seed.germinated_step for seed in observation.seeds if observation.owns(seed)]
        begun += [attempt.step for attempt in observation.attempts if attempt.operation in ("GERMINATE", "HELD_OUT")]
        return observation.step - max(begun) if begun else math.inf

    def _round_steps(self, observation: Observation) -> float:
        return self.settings.round_fraction * observation.num_steps_total or self.settings.round_steps


def failed_rounds_in_a_row(observation: Observation) -> int:
    """Rounds at a site, newest first, that ended without a fossil before one that kept something.

    The losers of a contest that went on with a winner do not count, nor does what has not ended yet.
    """
    rounds: dict[tuple[str, int], list[str]] = {}
    for ending in observation.endings:
        begun = next((a.step for a in observation.attempts if a.seed_id == ending.seed_id), ending.step)
        rounds.setdefault((ending.site, begun), []).append(ending.stage)
    live = {seed.site for seed in observation.seeds if seed.stage in LIVE_STAGES}
    ended = sorted((begun, site) for site, begun in rounds if site not in live)
    num_failed = 0
    for begun, site in reversed(ended):
        if "FOSSILIZED" in rounds[site, begun]:
            break
        num_failed += 1
    return num_failed
