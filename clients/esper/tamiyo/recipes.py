"""What may be worth growing where: blueprints with the gain that was measured for them, by the shape of the site.

Data and pure functions. The numbers are shares of the loss before growth: for images the final causal gains of six
blueprints on the digits task, for sequences those of whole layers in a saturated byte-level model (growth science,
sections 3 and 6). They order candidates before anything has been measured; afterwards evidence decides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from esper.tamiyo.observation import Cost, Observation, Offer, Site

IMAGES, SEQUENCES, ROWS = 4, 3, 2
"""Ranks of the activation, batch size included."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One blueprint, the parameters to ask for, and what it is expected to bring."""

    blueprint_id: str
    expected_gain: float
    """Share of the loss before growth."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    cost_factor: float = 1.0
    """FLOPs with these parameters over those of the offer, which is made for the defaults."""


RECIPES: Mapping[int, tuple[Recipe, ...]] = {
    IMAGES: (
        Recipe("residual_conv", 0.55),
        Recipe("conv_light", 0.35),
        Recipe("conv1x1", 0.32),
        Recipe("depthwise", 0.31),
        Recipe("norm", 0.02),
        Recipe("squeeze_excite", 0.01),
    ),
    SEQUENCES: (
        Recipe("transformer_block", 0.10, {"num_layers": 3}, 3.0),
        Recipe("gated_ffn", 0.05),
        Recipe("causal_attention", 0.04),
        Recipe("bottleneck_mlp", 0.02),
        Recipe("lora", 0.01),
        Recipe("layer_scale_norm", 0.01),
    ),
    ROWS: (Recipe("residual_mlp", 0.20), Recipe("residual_linear", 0.10)),
}
UNKNOWN_GAIN = 0.03
"""Expected of a blueprint that has no recipe: some, so that it is tried after those that have proven themselves."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe at one site, with the price of growing it there."""

    site: str
    recipe: Recipe
    offer: Offer
    net_gain: float
    """Expected gain minus rent, as a share of the loss."""

    @property
    def sort_key(self) -> tuple[float, str]:
        """Best first; equal ones in a fixed order."""
        return (-self.net_gain, self.recipe.blueprint_id)


def recipe_for(rank: int, blueprint_id: str) -> Recipe:
    """The recipe of a blueprint at a site of this rank."""
    known = (recipe for recipe in RECIPES.get(rank, ()) if recipe.blueprint_id == blueprint_id)
    return next(known, Recipe(blueprint_id, UNKNOWN_GAIN))


def rent(observation: Observation, cost: Cost, ratio: float, cost_factor: float = 1.0) -> float:
    """What a seed must bring to be worth its FLOPs: `ratio * ln(1 + FLOPs of the seed / FLOPs of the host)`."""
    return ratio * math.log1p(cost_factor * observation.flops_ratio(cost))


def candidates(observation: Observation, site: Site, rent_ratio: float, max_risk: float) -> list[Candidate]:
    """What a site offers, best expected net gain first; too risky ones left out."""
    found = []
    for offer in site.offers:
        if offer.risk >= max_risk or offer.tier == "HIGH_RISK":
            continue
        recipe = recipe_for(site.rank, offer.blueprint_id)
        net_gain = recipe.expected_gain - rent(observation, offer.cost, rent_ratio, recipe.cost_factor)
        found.append(Candidate(site.site, recipe, offer, net_gain))
    return sorted(found, key=lambda candidate: candidate.sort_key)
