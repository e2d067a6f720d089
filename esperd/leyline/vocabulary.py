"""The closed sets of words that every part of Esper shares, with their wire numbers.

Runs on any thread. The numbers are those of the protobuf contract (`protos/esper/leyline/v1`), so that a
value crosses the wire by its number alone; a test compares the two. Knows neither protobuf nor torch.
"""

import enum


class Stage(enum.IntEnum):
    """Where a seed is in its life (design 03, Stages)."""

    UNKNOWN = 0
    DORMANT = 1
    GERMINATED = 2
    TRAINING = 3
    BLENDING = 4
    SHADOWING = 5
    PROBATIONARY = 6
    FOSSILIZED = 7
    CULLED = 8
    EMBARGOED = 9
    RESETTING = 10
    TERMINATED = 11


class Gate(enum.IntEnum):
    """The check that guards the entry to a stage (design 03, Gates)."""

    UNKNOWN = 0
    G0_SANITY = 1
    G1_GRADIENT_HEALTH = 2
    G2_STABILITY = 3
    G3_INTERFACE = 4
    G4_SYSTEM_IMPACT = 5
    G5_RESET = 6


class Verdict(enum.IntEnum):
    """What a gate found. Not measured is neither passed nor failed."""

    UNMEASURED = 0
    PASSED = 1
    FAILED = 2


class Operation(enum.IntEnum):
    """What a seed command asks for."""

    UNKNOWN = 0
    GERMINATE = 1
    START_TRAINING = 2
    START_GRAFTING = 3
    STABILIZE = 4
    EVALUATE = 5
    FINE_TUNE = 6
    FOSSILIZE = 7
    CULL = 8
    CANCEL = 9
    ADVANCE = 10
    SET_ALPHA = 11


class BlendMode(enum.IntEnum):
    """How a seed's output joins the host's activation while it blends (design 03, Blending)."""

    UNSPECIFIED = 0
    CONVEX = 1
    RESIDUAL = 2
    CHANNEL = 3
    CONFIDENCE = 4
    MULTIPLY = 5
    GATE = 6
    BERNOULLI = 7


class TrainingMode(enum.IntEnum):
    """What a seed in TRAINING learns from (design 03, What a seed learns in TRAINING)."""

    UNSPECIFIED = 0
    GRADIENT_MATCHING = 1
    SHADOW_FORWARD = 2
    STRAIGHT_THROUGH = 3


class Isolation(enum.IntEnum):
    """How far the host may feel a seed before it is fossilized."""

    UNSPECIFIED = 0
    DEFAULT = 1
    """The seed's input is detached until PROBATIONARY; the host keeps its own gradient."""
    STRICT = 2
    """The host term of the blend is detached too, as the first designs asked."""
    RELEASED = 3
    """The seed's input is attached already in BLENDING, so that the host co-adapts."""


class AlphaCurve(enum.IntEnum):
    """The shape of a blend's ramp; every one starts at exactly 0 and ends exactly at its target."""

    UNSPECIFIED = 0
    LINEAR = 1
    COSINE = 2
    SIGMOID = 3


class CommandState(enum.IntEnum):
    """The life of a command: accepted, then exactly one final outcome."""

    UNSPECIFIED = 0
    ACCEPTED = 1
    APPLIED = 2
    REJECTED = 3
    EXPIRED = 4
    CANCELLED = 5
    FAILED = 6

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the command."""
        return self not in (CommandState.UNSPECIFIED, CommandState.ACCEPTED)


class EmergencyLevel(enum.IntEnum):
    """How careful the run is (design 02, Budgets, breakers, emergency levels); UNSPECIFIED is all clear."""

    UNSPECIFIED = 0
    NOTICE = 1
    ELEVATED = 2
    CONSERVATIVE = 3
    HALT = 4


class TrainerPhase(enum.IntEnum):
    """What the training thread is doing."""

    UNSPECIFIED = 0
    STARTING = 1
    TRAINING = 2
    VALIDATING = 3
    PAUSED = 4
    STOPPING = 5
    FINISHED = 6
    FAILED = 7
    HALTED = 8
    CATCHING_UP = 9
    """Doing again what an earlier start had done after its last checkpoint."""
    ROLLING_BACK = 10


class CheckpointKind(enum.IntEnum):
    """Why a checkpoint was written."""

    UNSPECIFIED = 0
    SCHEDULED = 1
    """At its interval."""
    REQUESTED = 2
    """By a command."""
    EMERGENCY = 3
    """Because the run became conservative or halted."""
    FINAL = 4
    """When the run ended, or the daemon left it."""
    FORK = 5
    """The first state of a new timeline."""


class RollbackTier(enum.IntEnum):
    """Where the state of a rollback comes from."""

    UNSPECIFIED = 0
    """From memory if it is there, else from disk."""
    FAST = 1
    """From memory."""
    FULL = 2
    """From disk."""


class BlueprintTier(enum.IntEnum):
    """How much a blueprint is trusted."""

    UNSPECIFIED = 0
    SAFE = 1
    EXPERIMENTAL = 2
    HIGH_RISK = 3


class KernelState(enum.IntEnum):
    """Where a kernel is on its way from a wish to a seed (design 05)."""

    UNSPECIFIED = 0
    WANTED = 1
    COMPILING = 2
    COMPILE_FAILED = 3
    UPLOADING = 4
    VALIDATING = 5
    OFFERED = 6
    QUARANTINED = 7
    REMOVED = 8


class KernelFileRole(enum.IntEnum):
    """What one of a kernel's libraries computes."""

    UNSPECIFIED = 0
    FORWARD = 1
    BACKWARD = 2
    """With the gradient of the activation."""
    PARAMETER_BACKWARD = 3
    """For the parameters alone."""


class KernelInputKind(enum.IntEnum):
    """What an input of a kernel's forward library is."""

    UNSPECIFIED = 0
    PARAMETER = 1
    BUFFER = 2
    ACTIVATION = 3


class HazardBand(enum.IntEnum):
    """How dangerous a kernel was found to be."""

    UNSPECIFIED = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class HandlingClass(enum.IntEnum):
    """What may be done with a kernel."""

    UNSPECIFIED = 0
    STANDARD = 1
    RESTRICTED = 2
    QUARANTINE = 3


class BreakerState(enum.IntEnum):
    """The state of a circuit breaker."""

    UNKNOWN = 0
    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class FieldReportOutcome(enum.IntEnum):
    """What a policy found when a decision's observation window had passed."""

    UNSPECIFIED = 0
    SUCCESS = 1
    NEUTRAL = 2
    REGRESSION = 3
    ABORTED = 4


class LeaseMode(enum.IntEnum):
    """Whether a policy's decisions are applied or only recorded."""

    UNSPECIFIED = 0
    STEER = 1
    ADVISE = 2


class Permission(enum.IntEnum):
    """What a key allows; declared per method in the proto files."""

    UNSPECIFIED = 0
    OBSERVE = 1
    COMMAND = 2
    EMERGENCY = 3
    COMPILE = 4
    OPERATE = 5
    ADMIN = 6
