"""Finds a policy by its name: one that ships, one of the entry point group `esperd.policies`, or `module:Class`.

A third party's policy is a class (or function) that takes `rng` and makes a Policy. Entry points are looked at only
when a name is asked for that does not ship.
"""

import importlib
import random
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Literal, cast

from esper.tamiyo.contest import ContestSettings
from esper.tamiyo.decision import Policy
from esper.tamiyo.heuristic import HeuristicPolicy, HeuristicSettings
from esper.tamiyo.random_policy import RandomPolicy, RandomSettings

ENTRY_POINTS = "esperd.policies"
SHIPPED = ("heuristic", "random")
PolicyFactory = Callable[..., Policy]
"""Called with `rng=`."""


class UnknownPolicyError(ValueError):
    """No policy has this name; the message lists those there are."""


def make_policy(
    name: str,
    rng: random.Random,
    *,
    budget: Literal["flops", "steps"],
    num_candidates: int,
    parallel_sites: bool,
    dwell_steps: int,
    hold_out: float,
) -> Policy:
    """The policy of this name; the settings are the heuristic's, other policies take the random generator only.

    Raises:
        UnknownPolicyError: there is none, or it cannot be loaded.
    """
    if name == "heuristic":
        contest = ContestSettings()
        if dwell_steps:
            contest = ContestSettings(dwell_steps=dwell_steps, sequences_dwell_steps=dwell_steps)
        settings = HeuristicSettings(
            budget=budget,
            num_candidates=num_candidates,
            parallel_sites=parallel_sites,
            hold_out=hold_out,
            contest=contest,
        )
        return HeuristicPolicy(settings, rng)
    if name == "random":
        return RandomPolicy(RandomSettings(), rng)
    return _load(name)(rng=rng)


def _load(name: str) -> PolicyFactory:
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            return cast(PolicyFactory, getattr(importlib.import_module(module), attribute))
        found = entry_points(group=ENTRY_POINTS)
        if name in found.names:
            return cast(PolicyFactory, found[name].load())
    except (ImportError, AttributeError) as error:
        raise UnknownPolicyError(f"the policy {name} cannot be loaded: {error}") from error
    known = ", ".join([*SHIPPED, *sorted(found.names)])
    raise UnknownPolicyError(f"there is no policy {name}; known: {known}, or module:Class")
