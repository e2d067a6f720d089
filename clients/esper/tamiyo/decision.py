"""What a policy decides: commands as frozen values, and the policy's own interface.

Any thread. Knows no protobuf (`wire` turns these values into signed messages) and nothing of the daemon.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from esper.tamiyo.observation import Observation


@dataclass(frozen=True, slots=True)
class Germinate:
    """Start a candidate at a vacant site."""

    site: str
    blueprint_id: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    until: str = "TRAINING"
    """The stage to which the daemon advances it by itself."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartGrafting:
    """Blend a trained candidate in, and let the daemon advance it as its gates pass."""

    seed_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cull:
    """Remove a seed that does not pay."""

    seed_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back a candidate that lost against another: it has not failed, so no embargo follows."""

    seed_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetSeedLearningRate:
    """Change the learning rate of one seed's optimizer."""

    seed_id: str
    learning_rate: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PauseRun:
    """Hold training at the next safe point until somebody resumes it."""

    reason: str = ""


PolicyCommand = Germinate | StartGrafting | Cull | Withdraw | SetSeedLearningRate | PauseRun


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one packet; no commands means wait."""

    commands: tuple[PolicyCommand, ...] = ()
    rationale: str = ""
    """Why, in plain words, for the journal."""
    risk: float = 0.0
    """The policy's own estimate of how risky this is, 0 to 1."""
    propensity: float = 1.0
    """Chance with which the policy chose these commands."""
    held_out: bool = False
    """The policy wanted to act and waited at random, as a control."""


class Policy(Protocol):
    """Anything that decides; loaded by name, by entry point, or as `module:Class`."""

    name: str
    version: str

    def decide(self, observation: Observation) -> Decision:
        """Answer one packet. Must return within the deadline and touch nothing but its own state."""
        ...
