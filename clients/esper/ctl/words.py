"""The contract's enum numbers as the words that people use: `TRAINING`, `BERNOULLI`, `APPLIED`.

A number that this version does not know is shown as a number: a newer daemon must stay readable.
"""

from typing import Any

from esper.leyline.v1 import kernel_pb2, options_pb2, vocabulary_pb2


def word(enum: Any, value: int, prefix: str) -> str:
    """The name of an enum value without its prefix."""
    return str(enum.Name(value)).removeprefix(prefix) if value in enum.values() else str(value)


def stage(value: int) -> str:
    """`TRAINING` for SEED_STAGE_TRAINING."""
    return word(vocabulary_pb2.SeedLifecycleStage, value, "SEED_STAGE_")


def gate(value: int) -> str:
    """`G2_STABILITY` for SEED_GATE_G2_STABILITY."""
    return word(vocabulary_pb2.SeedLifecycleGate, value, "SEED_GATE_")


def verdict(value: int) -> str:
    """`PASSED` for GATE_VERDICT_PASSED."""
    return word(vocabulary_pb2.GateVerdict, value, "GATE_VERDICT_")


def phase(value: int) -> str:
    """`TRAINING` for TRAINER_PHASE_TRAINING."""
    return word(vocabulary_pb2.TrainerPhase, value, "TRAINER_PHASE_")


def command_state(value: int) -> str:
    """`APPLIED` for COMMAND_STATE_APPLIED."""
    return word(vocabulary_pb2.CommandState, value, "COMMAND_STATE_")


def level(value: int) -> str:
    """`HALT` for EMERGENCY_LEVEL_HALT; `none` for all clear."""
    return word(vocabulary_pb2.EmergencyLevel, value, "EMERGENCY_LEVEL_") if value else "none"


def checkpoint_kind(value: int) -> str:
    """`SCHEDULED` for CHECKPOINT_KIND_SCHEDULED."""
    return word(vocabulary_pb2.CheckpointKind, value, "CHECKPOINT_KIND_")


def breaker_state(value: int) -> str:
    """`OPEN` for CIRCUIT_BREAKER_STATE_OPEN."""
    return word(vocabulary_pb2.CircuitBreakerState, value, "CIRCUIT_BREAKER_STATE_")


def blend(value: int) -> str:
    """`BERNOULLI` for BLEND_MODE_BERNOULLI."""
    return word(vocabulary_pb2.BlendMode, value, "BLEND_MODE_")


def tier(value: int) -> str:
    """`SAFE` for BLUEPRINT_TIER_SAFE."""
    return word(vocabulary_pb2.BlueprintTier, value, "BLUEPRINT_TIER_")


def operation(value: int) -> str:
    """`GERMINATE` for SEED_OPERATION_GERMINATE."""
    return word(vocabulary_pb2.SeedOperation, value, "SEED_OPERATION_")


def permission(value: int) -> str:
    """`command` for PERMISSION_COMMAND, as a key ring has it."""
    return word(options_pb2.Permission, value, "PERMISSION_").lower()


def kernel_state(value: int) -> str:
    """`OFFERED` for KERNEL_STATE_OFFERED."""
    return word(kernel_pb2.KernelState, value, "KERNEL_STATE_")


def hazard(value: int) -> str:
    """`LOW` for HAZARD_BAND_LOW."""
    return word(kernel_pb2.HazardBand, value, "HAZARD_BAND_")


def handling(value: int) -> str:
    """`STANDARD` for HANDLING_CLASS_STANDARD."""
    return word(kernel_pb2.HandlingClass, value, "HANDLING_CLASS_")
