from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class SeedLifecycleStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_STAGE_UNKNOWN: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_DORMANT: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_GERMINATED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_TRAINING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_BLENDING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_SHADOWING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_PROBATIONARY: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_FOSSILIZED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_CULLED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_EMBARGOED: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_RESETTING: _ClassVar[SeedLifecycleStage]
    SEED_STAGE_TERMINATED: _ClassVar[SeedLifecycleStage]

class SeedLifecycleGate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_GATE_UNKNOWN: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G0_SANITY: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G1_GRADIENT_HEALTH: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G2_STABILITY: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G3_INTERFACE: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G4_SYSTEM_IMPACT: _ClassVar[SeedLifecycleGate]
    SEED_GATE_G5_RESET: _ClassVar[SeedLifecycleGate]

class GateVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GATE_VERDICT_UNMEASURED: _ClassVar[GateVerdict]
    GATE_VERDICT_PASSED: _ClassVar[GateVerdict]
    GATE_VERDICT_FAILED: _ClassVar[GateVerdict]

class SeedOperation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEED_OPERATION_UNKNOWN: _ClassVar[SeedOperation]
    SEED_OPERATION_GERMINATE: _ClassVar[SeedOperation]
    SEED_OPERATION_START_TRAINING: _ClassVar[SeedOperation]
    SEED_OPERATION_START_GRAFTING: _ClassVar[SeedOperation]
    SEED_OPERATION_STABILIZE: _ClassVar[SeedOperation]
    SEED_OPERATION_EVALUATE: _ClassVar[SeedOperation]
    SEED_OPERATION_FINE_TUNE: _ClassVar[SeedOperation]
    SEED_OPERATION_FOSSILIZE: _ClassVar[SeedOperation]
    SEED_OPERATION_CULL: _ClassVar[SeedOperation]
    SEED_OPERATION_CANCEL: _ClassVar[SeedOperation]
    SEED_OPERATION_ADVANCE: _ClassVar[SeedOperation]
    SEED_OPERATION_SET_ALPHA: _ClassVar[SeedOperation]

class BlendMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLEND_MODE_UNSPECIFIED: _ClassVar[BlendMode]
    BLEND_MODE_CONVEX: _ClassVar[BlendMode]
    BLEND_MODE_RESIDUAL: _ClassVar[BlendMode]
    BLEND_MODE_CHANNEL: _ClassVar[BlendMode]
    BLEND_MODE_CONFIDENCE: _ClassVar[BlendMode]
    BLEND_MODE_MULTIPLY: _ClassVar[BlendMode]
    BLEND_MODE_GATE: _ClassVar[BlendMode]
    BLEND_MODE_BERNOULLI: _ClassVar[BlendMode]

class TrainingMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAINING_MODE_UNSPECIFIED: _ClassVar[TrainingMode]
    TRAINING_MODE_GRADIENT_MATCHING: _ClassVar[TrainingMode]
    TRAINING_MODE_SHADOW_FORWARD: _ClassVar[TrainingMode]
    TRAINING_MODE_STRAIGHT_THROUGH: _ClassVar[TrainingMode]

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_DEFAULT: _ClassVar[Isolation]
    ISOLATION_STRICT: _ClassVar[Isolation]
    ISOLATION_RELEASED: _ClassVar[Isolation]

class AlphaCurve(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALPHA_CURVE_UNSPECIFIED: _ClassVar[AlphaCurve]
    ALPHA_CURVE_LINEAR: _ClassVar[AlphaCurve]
    ALPHA_CURVE_COSINE: _ClassVar[AlphaCurve]
    ALPHA_CURVE_SIGMOID: _ClassVar[AlphaCurve]

class CommandState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_STATE_UNSPECIFIED: _ClassVar[CommandState]
    COMMAND_STATE_ACCEPTED: _ClassVar[CommandState]
    COMMAND_STATE_APPLIED: _ClassVar[CommandState]
    COMMAND_STATE_REJECTED: _ClassVar[CommandState]
    COMMAND_STATE_EXPIRED: _ClassVar[CommandState]
    COMMAND_STATE_CANCELLED: _ClassVar[CommandState]
    COMMAND_STATE_FAILED: _ClassVar[CommandState]

class EmergencyLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMERGENCY_LEVEL_UNSPECIFIED: _ClassVar[EmergencyLevel]
    EMERGENCY_LEVEL_NOTICE: _ClassVar[EmergencyLevel]
    EMERGENCY_LEVEL_ELEVATED: _ClassVar[EmergencyLevel]
    EMERGENCY_LEVEL_CONSERVATIVE: _ClassVar[EmergencyLevel]
    EMERGENCY_LEVEL_HALT: _ClassVar[EmergencyLevel]

class TrainerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAINER_PHASE_UNSPECIFIED: _ClassVar[TrainerPhase]
    TRAINER_PHASE_STARTING: _ClassVar[TrainerPhase]
    TRAINER_PHASE_TRAINING: _ClassVar[TrainerPhase]
    TRAINER_PHASE_VALIDATING: _ClassVar[TrainerPhase]
    TRAINER_PHASE_PAUSED: _ClassVar[TrainerPhase]
    TRAINER_PHASE_STOPPING: _ClassVar[TrainerPhase]
    TRAINER_PHASE_FINISHED: _ClassVar[TrainerPhase]
    TRAINER_PHASE_FAILED: _ClassVar[TrainerPhase]
    TRAINER_PHASE_HALTED: _ClassVar[TrainerPhase]
    TRAINER_PHASE_CATCHING_UP: _ClassVar[TrainerPhase]
    TRAINER_PHASE_ROLLING_BACK: _ClassVar[TrainerPhase]

class BlueprintTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLUEPRINT_TIER_UNSPECIFIED: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_SAFE: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_EXPERIMENTAL: _ClassVar[BlueprintTier]
    BLUEPRINT_TIER_HIGH_RISK: _ClassVar[BlueprintTier]

class CircuitBreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CIRCUIT_BREAKER_STATE_UNKNOWN: _ClassVar[CircuitBreakerState]
    CIRCUIT_BREAKER_STATE_CLOSED: _ClassVar[CircuitBreakerState]
    CIRCUIT_BREAKER_STATE_OPEN: _ClassVar[CircuitBreakerState]
    CIRCUIT_BREAKER_STATE_HALF_OPEN: _ClassVar[CircuitBreakerState]

class FieldReportOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIELD_REPORT_OUTCOME_UNSPECIFIED: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_SUCCESS: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_NEUTRAL: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_REGRESSION: _ClassVar[FieldReportOutcome]
    FIELD_REPORT_OUTCOME_ABORTED: _ClassVar[FieldReportOutcome]

class LeaseMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_MODE_UNSPECIFIED: _ClassVar[LeaseMode]
    LEASE_MODE_STEER: _ClassVar[LeaseMode]
    LEASE_MODE_ADVISE: _ClassVar[LeaseMode]

class CheckpointKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_KIND_UNSPECIFIED: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_SCHEDULED: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_REQUESTED: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_EMERGENCY: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_FINAL: _ClassVar[CheckpointKind]
    CHECKPOINT_KIND_FORK: _ClassVar[CheckpointKind]

class RollbackTier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLLBACK_TIER_UNSPECIFIED: _ClassVar[RollbackTier]
    ROLLBACK_TIER_FAST: _ClassVar[RollbackTier]
    ROLLBACK_TIER_FULL: _ClassVar[RollbackTier]
SEED_STAGE_UNKNOWN: SeedLifecycleStage
SEED_STAGE_DORMANT: SeedLifecycleStage
SEED_STAGE_GERMINATED: SeedLifecycleStage
SEED_STAGE_TRAINING: SeedLifecycleStage
SEED_STAGE_BLENDING: SeedLifecycleStage
SEED_STAGE_SHADOWING: SeedLifecycleStage
SEED_STAGE_PROBATIONARY: SeedLifecycleStage
SEED_STAGE_FOSSILIZED: SeedLifecycleStage
SEED_STAGE_CULLED: SeedLifecycleStage
SEED_STAGE_EMBARGOED: SeedLifecycleStage
SEED_STAGE_RESETTING: SeedLifecycleStage
SEED_STAGE_TERMINATED: SeedLifecycleStage
SEED_GATE_UNKNOWN: SeedLifecycleGate
SEED_GATE_G0_SANITY: SeedLifecycleGate
SEED_GATE_G1_GRADIENT_HEALTH: SeedLifecycleGate
SEED_GATE_G2_STABILITY: SeedLifecycleGate
SEED_GATE_G3_INTERFACE: SeedLifecycleGate
SEED_GATE_G4_SYSTEM_IMPACT: SeedLifecycleGate
SEED_GATE_G5_RESET: SeedLifecycleGate
GATE_VERDICT_UNMEASURED: GateVerdict
GATE_VERDICT_PASSED: GateVerdict
GATE_VERDICT_FAILED: GateVerdict
SEED_OPERATION_UNKNOWN: SeedOperation
SEED_OPERATION_GERMINATE: SeedOperation
SEED_OPERATION_START_TRAINING: SeedOperation
SEED_OPERATION_START_GRAFTING: SeedOperation
SEED_OPERATION_STABILIZE: SeedOperation
SEED_OPERATION_EVALUATE: SeedOperation
SEED_OPERATION_FINE_TUNE: SeedOperation
SEED_OPERATION_FOSSILIZE: SeedOperation
SEED_OPERATION_CULL: SeedOperation
SEED_OPERATION_CANCEL: SeedOperation
SEED_OPERATION_ADVANCE: SeedOperation
SEED_OPERATION_SET_ALPHA: SeedOperation
BLEND_MODE_UNSPECIFIED: BlendMode
BLEND_MODE_CONVEX: BlendMode
BLEND_MODE_RESIDUAL: BlendMode
BLEND_MODE_CHANNEL: BlendMode
BLEND_MODE_CONFIDENCE: BlendMode
BLEND_MODE_MULTIPLY: BlendMode
BLEND_MODE_GATE: BlendMode
BLEND_MODE_BERNOULLI: BlendMode
TRAINING_MODE_UNSPECIFIED: TrainingMode
TRAINING_MODE_GRADIENT_MATCHING: TrainingMode
TRAINING_MODE_SHADOW_FORWARD: TrainingMode
TRAINING_MODE_STRAIGHT_THROUGH: TrainingMode
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_DEFAULT: Isolation
ISOLATION_STRICT: Isolation
ISOLATION_RELEASED: Isolation
ALPHA_CURVE_UNSPECIFIED: AlphaCurve
ALPHA_CURVE_LINEAR: AlphaCurve
ALPHA_CURVE_COSINE: AlphaCurve
ALPHA_CURVE_SIGMOID: AlphaCurve
COMMAND_STATE_UNSPECIFIED: CommandState
COMMAND_STATE_ACCEPTED: CommandState
COMMAND_STATE_APPLIED: CommandState
COMMAND_STATE_REJECTED: CommandState
COMMAND_STATE_EXPIRED: CommandState
COMMAND_STATE_CANCELLED: CommandState
COMMAND_STATE_FAILED: CommandState
EMERGENCY_LEVEL_UNSPECIFIED: EmergencyLevel
EMERGENCY_LEVEL_NOTICE: EmergencyLevel
EMERGENCY_LEVEL_ELEVATED: EmergencyLevel
EMERGENCY_LEVEL_CONSERVATIVE: EmergencyLevel
EMERGENCY_LEVEL_HALT: EmergencyLevel
TRAINER_PHASE_UNSPECIFIED: TrainerPhase
TRAINER_PHASE_STARTING: TrainerPhase
TRAINER_PHASE_TRAINING: TrainerPhase
TRAINER_PHASE_VALIDATING: TrainerPhase
TRAINER_PHASE_PAUSED: TrainerPhase
TRAINER_PHASE_STOPPING: TrainerPhase
TRAINER_PHASE_FINISHED: TrainerPhase
TRAINER_PHASE_FAILED: TrainerPhase
TRAINER_PHASE_HALTED: TrainerPhase
TRAINER_PHASE_CATCHING_UP: TrainerPhase
TRAINER_PHASE_ROLLING_BACK: TrainerPhase
BLUEPRINT_TIER_UNSPECIFIED: BlueprintTier
BLUEPRINT_TIER_SAFE: BlueprintTier
BLUEPRINT_TIER_EXPERIMENTAL: BlueprintTier
BLUEPRINT_TIER_HIGH_RISK: BlueprintTier
CIRCUIT_BREAKER_STATE_UNKNOWN: CircuitBreakerState
CIRCUIT_BREAKER_STATE_CLOSED: CircuitBreakerState
CIRCUIT_BREAKER_STATE_OPEN: CircuitBreakerState
CIRCUIT_BREAKER_STATE_HALF_OPEN: CircuitBreakerState
FIELD_REPORT_OUTCOME_UNSPECIFIED: FieldReportOutcome
FIELD_REPORT_OUTCOME_SUCCESS: FieldReportOutcome
FIELD_REPORT_OUTCOME_NEUTRAL: FieldReportOutcome
FIELD_REPORT_OUTCOME_REGRESSION: FieldReportOutcome
FIELD_REPORT_OUTCOME_ABORTED: FieldReportOutcome
LEASE_MODE_UNSPECIFIED: LeaseMode
LEASE_MODE_STEER: LeaseMode
LEASE_MODE_ADVISE: LeaseMode
CHECKPOINT_KIND_UNSPECIFIED: CheckpointKind
CHECKPOINT_KIND_SCHEDULED: CheckpointKind
CHECKPOINT_KIND_REQUESTED: CheckpointKind
CHECKPOINT_KIND_EMERGENCY: CheckpointKind
CHECKPOINT_KIND_FINAL: CheckpointKind
CHECKPOINT_KIND_FORK: CheckpointKind
ROLLBACK_TIER_UNSPECIFIED: RollbackTier
ROLLBACK_TIER_FAST: RollbackTier
ROLLBACK_TIER_FULL: RollbackTier
