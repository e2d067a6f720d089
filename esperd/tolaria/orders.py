"""What each command does to the run.

Training thread only, at the safe point. Each order either takes effect or raises an EsperdError having changed nothing.
"""

from esperd.kasmina.ports import Attribution
from esperd.leyline.commands import (
    BreakerCommand,
    CheckpointCommand,
    Command,
    EmergencyCommand,
    HyperparameterCommand,
    KernelSwapCommand,
    PauseCommand,
    PolicyPresence,
    ResetOptimizerCommand,
    ResumeCommand,
    RollbackCommand,
    SeedCommand,
    StopCommand,
)
from esperd.leyline.errors import EsperdError
from esperd.leyline.vocabulary import BreakerState, EmergencyLevel
from esperd.tolaria.emergency import OperatorRaised, PolicyChanged
from esperd.tolaria.keeping import Keeper
from esperd.tolaria.parts import Parts
from esperd.tolaria.rollback import Rollback

PENDING = -1
"""What `apply` returns when the outcome comes later."""


class Orders:
    """Carries out commands."""

    def __init__(self, parts: Parts, keeper: Keeper, rollback: Rollback) -> None:
        self._executor = parts.executor
        self._optimizers = parts.optimizers
        self._safety = parts.safety
        self._standing = parts.standing
        self._progress = parts.progress
        self._keeper = keeper
        self._rollback = rollback

    def apply(self, command: Command) -> int:
        """Carry out one command; the id of the seed that it made or touched, 0 if none, PENDING if it takes longer."""
        step = self._progress.global_step
        match command.payload:
            case SeedCommand() as payload:
                seed_id = self._executor.apply(payload, step, Attribution(command.command_id, command.principal))
                self._optimizers.check_ownership(self._executor.grown_parameters())
                return seed_id
            case KernelSwapCommand() as payload:
                return self._swap_kernel(payload, step, Attribution(command.command_id, command.principal))
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
            case CheckpointCommand(note):
                self._keeper.ask(command, note)
                return PENDING
            case RollbackCommand() as payload:
                self._rollback.ask(command, payload)
                return PENDING
            case BreakerCommand(name, state):
                self._safety.set_breaker(name, state, step, command.principal)
            case EmergencyCommand(level, emergency_id):
                self._set_emergency(level, emergency_id, command)
            case PolicyPresence(is_present, detail, packet_every_steps, num_missed):
                self._standing.is_policy_present = is_present
                self._standing.packet_every_steps = packet_every_steps if is_present else 0
                self._safety.handle(PolicyChanged(is_present, detail, num_missed), step)
        return 0

    def _swap_kernel(self, payload: KernelSwapCommand, step: int, by: Attribution) -> int:
        breaker, is_repeated = self._safety.breakers["kernel"], self._progress.is_repeating
        if payload.artifact_id and breaker.state is BreakerState.OPEN and not is_repeated:
            raise EsperdError("KERNEL_BREAKER_OPEN", detail=breaker.detail)
        return self._executor.swap_kernel(payload, step, by, is_repeated=is_repeated)

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
