"""What each command does to the run.

Training thread only, at the safe point. Each order either takes effect or raises an EsperdError having changed nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esperd.kasmina.executor import SeedExecutor
from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import (
    BreakerCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    PauseCommand,
    PolicyPresence,
    ResetOptimizerCommand,
    ResumeCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import EmergencyLevel
from esperd.tolaria.emergency import OperatorRaised, PolicyChanged
from esperd.tolaria.optimizers import Optimizers
from esperd.tolaria.safety import Safety
from esperd.tolaria.state import Progress


@dataclass(slots=True)
class Standing:
    """What holds the loop, besides an emergency."""

    is_paused: bool = False
    is_stopping: bool = False
    is_policy_present: bool = False
    packet_every_steps: int = 0
    """How often the steering policy wants a packet; 0 leaves it to the configuration."""

    def state_dict(self) -> dict[str, Any]:
        """What a later start of the daemon goes on with."""
        return {
            "is_paused": self.is_paused,
            "is_policy_present": self.is_policy_present,
            "packet_every_steps": self.packet_every_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand as an earlier start stood."""
        self.is_paused = state["is_paused"]
        self.is_policy_present = state["is_policy_present"]
        self.packet_every_steps = state["packet_every_steps"]


class Orders:
    """Carries out commands."""

    def __init__(
        self, executor: SeedExecutor, optimizers: Optimizers, safety: Safety, standing: Standing, progress: Progress
    ) -> None:
        self._executor = executor
        self._optimizers = optimizers
        self._safety = safety
        self._standing = standing
        self._progress = progress

    def apply(self, command: Command) -> int:
        """Carry out one command; returns the id of the seed that it made or touched, 0 if none."""
        step = self._progress.global_step
        match command.payload:
            case SeedCommand() as payload:
                seed_id = self._executor.apply(payload, step, Attribution(command.command_id, command.principal))
                self._optimizers.check_ownership(self._executor.grown_parameters())
                return seed_id
            case HyperparameterCommand(target, values, seed_id):
                self._optimizers.set_values(target, seed_id, dict(values))
                return seed_id
            case ResetOptimizerCommand(target, seed_id):
                self._optimizers.reset(target, seed_id)
                return seed_id
            case PauseCommand():
                self._standing.is_paused = True
            case ResumeCommand():
                self._resume()
            case StopCommand():
                self._standing.is_stopping = True
            case BreakerCommand(name, state):
                self._safety.set_breaker(name, state, step, command.principal)
            case EmergencyCommand(level, emergency_id):
                self._set_emergency(level, emergency_id, command)
            case PolicyPresence(is_present, detail, packet_every_steps, num_missed):
                self._standing.is_policy_present = is_present
                self._standing.packet_every_steps = packet_every_steps if is_present else 0
                self._safety.handle(PolicyChanged(is_present, detail, num_missed), step)
        return 0

    def _resume(self) -> None:
        if self._safety.is_halted:
            detail = f"Clear the emergency first: {', '.join(self._safety.halting())}."
            raise EsperdError("RUN_NOT_TRAINING", phase="HALTED", detail=detail)
        self._standing.is_paused = False

    def _set_emergency(self, level: EmergencyLevel, emergency_id: str, command: Command) -> None:
        step = self._progress.global_step
        if level is EmergencyLevel.UNSPECIFIED:
            self._safety.clear(emergency_id, step)
        else:
            self._safety.handle(OperatorRaised(emergency_id, level, command.principal, command.reason), step)
