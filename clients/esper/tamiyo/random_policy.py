"""Random growth: the baseline that a policy has to beat.

Pure but for the random generator that was passed in. At random moments it grows a random blueprint at a random vacant
site and lets the daemon's gates decide about it. It never culls.
"""

import random
from dataclasses import dataclass

from esper.tamiyo.decision import Decision, Germinate
from esper.tamiyo.observation import Observation


@dataclass(frozen=True, slots=True)
class RandomSettings:
    """How often the random policy grows."""

    germinations_per_run: float = 4.0
    """Expected germinations over a whole run."""
    endless_run_steps: int = 10_000
    """Taken as the length of an endless run."""
    max_risk: float = 0.5
    """Blueprints at or above this risk are not chosen."""


class RandomPolicy:
    """Grows at random (design 04: every policy must win against this)."""

    name = "random"
    version = "1"

    def __init__(self, settings: RandomSettings, rng: random.Random) -> None:
        self.settings = settings
        self._rng = rng

    def decide(self, observation: Observation) -> Decision:
        """Germinate with the chance that the steps since the last packet deserve."""
        if observation.reason == "run_finished":
            return Decision(rationale="the run has finished")
        chance = self._chance(observation)
        if self._rng.random() >= chance:
            return Decision(rationale="the coin said wait", propensity=1.0 - chance)
        places = [
            (site, offer)
            for site in observation.sites
            if site.is_open(observation.step)
            for offer in site.offers
            if offer.risk < self.settings.max_risk and offer.tier != "HIGH_RISK"
        ]
        if not places:
            return Decision(rationale="no vacant site offers anything", propensity=chance)
        site, offer = self._rng.choice(places)
        grown = Germinate(site.site, offer.blueprint_id, until="FOSSILIZED", reason="drawn at random")
        return Decision((grown,), "the coin said grow", propensity=chance / len(places))

    def _chance(self, observation: Observation) -> float:
        earlier = observation.history[-2].step if len(observation.history) > 1 else 0
        total = observation.num_steps_total or self.settings.endless_run_steps
        return min(1.0, self.settings.germinations_per_run * max(0, observation.step - earlier) / total)
