"""Which of the candidates at a site goes on: the contest that structural isolation makes possible.

Pure functions. A site's candidates train side by side until all have done their dwell; then evidence decides where it
separates them, and the measured prior of `recipes` where it does not. The winner is asked to blend first and the
others are withdrawn once it does, so that a winner that its gate refuses costs the round nothing.
"""

from dataclasses import dataclass

from esper.tamiyo.decision import Cull, PolicyCommand, StartGrafting, Withdraw
from esper.tamiyo.observation import CANDIDATE_STAGES, GRAFTED_STAGES, Observation, Seed, Site
from esper.tamiyo.recipes import SEQUENCES, recipe_for, rent

PRE_BLEND = "pre_blend_gain"
DEPENDENCE = "dependence"
MEASURED_BY = 2
"""Dwells after which a contest no longer waits for the daemon to measure its candidates."""


@dataclass(frozen=True, slots=True)
class ContestSettings:
    """When a contest is settled and what is given up."""

    dwell_steps: int = 150
    """Steps in TRAINING before a candidate is judged."""
    sequences_dwell_steps: int = 50
    """The same at sites whose activation is a sequence."""
    patience: float = 5.0
    """A candidate that may not blend after this many dwells is culled."""
    min_samples: int = 64
    """Paired samples below which a bound is not used against a grafted seed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one candidate stands, in units of the loss."""

    seed: Seed
    estimate: float
    lower: float
    upper: float
    prior: float
    """What its recipe is expected to bring, net of rent."""
    measured: bool
    """False: `lower` and `upper` are the first-order estimate, which is only a screen."""


def settle_contests(
    observation: Observation, settings: ContestSettings, rent_ratio: float
) -> tuple[list[PolicyCommand], list[str]]:
    """Commands for the seeds that live now, and why."""
    commands: list[PolicyCommand] = []
    reasons: list[str] = []
    busy = {attempt.seed_id for attempt in observation.pending()}
    for site in observation.sites:
        seeds = [seed for seed in observation.at(site.site) if observation.owns(seed)]
        if not seeds or any(seed.seed_id in busy for seed in observation.at(site.site)):
            continue
        found, why = _settle(observation, site, seeds, settings, rent_ratio)
        commands += found
        reasons += [f"{site.site}: {why}"] if why else []
    return commands, reasons


def _settle(
    observation: Observation, site: Site, seeds: list[Seed], settings: ContestSettings, rent_ratio: float
) -> tuple[list[PolicyCommand], str]:
    grafted = next((seed for seed in observation.at(site.site) if seed.stage in GRAFTED_STAGES), None)
    rivals = [seed for seed in seeds if seed.stage in CANDIDATE_STAGES]
    if grafted is not None:
        withdrawn = [Withdraw(seed.seed_id, f"seed {grafted.seed_id} won the contest") for seed in rivals]
        if observation.owns(grafted) and _does_harm(grafted, settings):
            harm = Cull(grafted.seed_id, "the model is better without it, at the level of the bound")
            return [*withdrawn, harm], f"seed {grafted.seed_id} does not pay"
        return list(withdrawn), f"seed {grafted.seed_id} won, {len(withdrawn)} withdrawn" if withdrawn else ""
    dwell = dwell_steps(site, settings)
    if any(seed.stage != "TRAINING" or seed.stage_steps < dwell for seed in rivals):
        return [], ""
    return _judge(observation, site, rivals, dwell, settings, rent_ratio)


def _judge(
    observation: Observation, site: Site, rivals: list[Seed], dwell: int, settings: ContestSettings, rent_ratio: float
) -> tuple[list[PolicyCommand], str]:
    """Cull the hopeless, ask the best of the others to blend."""
    hopeless = {seed.seed_id: why for seed in rivals if (why := _hopeless(observation, seed, dwell, settings))}
    culls = [Cull(seed_id, why) for seed_id, why in hopeless.items()]
    left = [seed for seed in rivals if seed.seed_id not in hopeless]
    if not left:
        return list(culls), "no candidate pays"
    standings = [_standing(observation, site, seed, rent_ratio) for seed in left if not seed.gate_failed]
    if not standings:
        return list(culls), "no candidate is fit to blend yet"
    if not any(standing.measured for standing in standings) and left[0].stage_steps < MEASURED_BY * dwell:
        return list(culls), "no candidate is measured yet"
    winner, why = best(standings)
    return [*culls, StartGrafting(winner.seed.seed_id, why)], f"seed {winner.seed.seed_id} goes on, {why}"


def best(standings: list[Standing]) -> tuple[Standing, str]:
    """The candidate that goes on, and why.

    Pre-blend gains rank blueprints well and single runs badly (rank correlation 1.0 and 0.45), and in a language model
    they are far below what the seed brings later; hence the prior among candidates whose bounds overlap. FLOPs count
    there, as rent: a bare ratio of gain to FLOPs would always pick the smallest seed.
    """
    measured = [standing for standing in standings if standing.measured]
    screened = [standing for standing in standings if standing.seed.first_order_gain]
    if not measured and screened:
        first = max(screened, key=lambda standing: (standing.estimate, standing.prior, standing.seed.seed_id))
        return first, f"by first-order gain {first.estimate:.3g}; its contribution is not measured"
    if not measured:
        first = max(standings, key=lambda standing: (standing.prior, standing.seed.seed_id))
        return first, "its blueprint is expected to bring most; nothing is measured"
    leader = max(measured, key=lambda standing: (standing.lower, standing.seed.seed_id))
    tied = [standing for standing in measured if standing.upper >= leader.lower]
    first = max(tied, key=lambda standing: (standing.prior, standing.lower, standing.seed.seed_id))
    evidence = f"lower bound {first.lower:.3g}"
    if len(tied) == 1:
        return first, f"best {evidence}"
    return first, f"{evidence}; {len(tied)} candidates are not separated, its blueprint is expected to bring most"


def dwell_steps(site: Site, settings: ContestSettings) -> int:
    """Steps in TRAINING before the candidates of a site are judged."""
    return settings.sequences_dwell_steps if site.rank == SEQUENCES else settings.dwell_steps


def _standing(observation: Observation, site: Site, seed: Seed, rent_ratio: float) -> Standing:
    prior = recipe_for(site.rank, seed.blueprint_id).expected_gain - rent(observation, seed.cost, rent_ratio)
    gain = seed.gain(PRE_BLEND)
    if gain is None:
        screen = seed.first_order_gain
        return Standing(seed, screen, screen, screen, prior, measured=False)
    return Standing(seed, gain.mean, gain.lower, gain.upper, prior, measured=True)


def _hopeless(observation: Observation, seed: Seed, dwell: int, settings: ContestSettings) -> str:
    """Why a candidate is given up; empty while it is not."""
    for attempt in reversed(observation.attempts):
        if attempt.seed_id == seed.seed_id and attempt.operation == "START_GRAFTING":
            if attempt.reason == "GATE_FAILED":
                return "its gate refused the blend"
            break
    gain = seed.gain(PRE_BLEND)
    if gain is not None and gain.upper < 0.0:
        return f"it would not help: upper bound {gain.upper:.3g} over {gain.num_samples} samples"
    if seed.stage_steps > settings.patience * dwell:
        return f"not fit to blend after {seed.stage_steps} steps of training"
    return ""


def _does_harm(seed: Seed, settings: ContestSettings) -> bool:
    gain = seed.gain(DEPENDENCE)
    return gain is not None and gain.num_samples >= settings.min_samples and gain.upper < 0.0
