import datetime

from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CommandType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_TYPE_UNSPECIFIED: _ClassVar[CommandType]
    COMMAND_TYPE_SEED: _ClassVar[CommandType]
    COMMAND_TYPE_ROLLBACK: _ClassVar[CommandType]
    COMMAND_TYPE_OPTIMIZER: _ClassVar[CommandType]
    COMMAND_TYPE_CIRCUIT_BREAKER: _ClassVar[CommandType]
    COMMAND_TYPE_PAUSE: _ClassVar[CommandType]
    COMMAND_TYPE_EMERGENCY: _ClassVar[CommandType]
    COMMAND_TYPE_STRUCTURAL_PRUNING: _ClassVar[CommandType]
    COMMAND_TYPE_CHECKPOINT: _ClassVar[CommandType]
    COMMAND_TYPE_KERNEL_SWAP: _ClassVar[CommandType]

class OptimizerAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_ACTION_UNSPECIFIED: _ClassVar[OptimizerAction]
    OPTIMIZER_ACTION_SET_HYPERPARAMETERS: _ClassVar[OptimizerAction]
    OPTIMIZER_ACTION_RESET_STATE: _ClassVar[OptimizerAction]

class RunAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_ACTION_UNSPECIFIED: _ClassVar[RunAction]
    RUN_ACTION_PAUSE: _ClassVar[RunAction]
    RUN_ACTION_RESUME: _ClassVar[RunAction]
    RUN_ACTION_STOP: _ClassVar[RunAction]
COMMAND_TYPE_UNSPECIFIED: CommandType
COMMAND_TYPE_SEED: CommandType
COMMAND_TYPE_ROLLBACK: CommandType
COMMAND_TYPE_OPTIMIZER: CommandType
COMMAND_TYPE_CIRCUIT_BREAKER: CommandType
COMMAND_TYPE_PAUSE: CommandType
COMMAND_TYPE_EMERGENCY: CommandType
COMMAND_TYPE_STRUCTURAL_PRUNING: CommandType
COMMAND_TYPE_CHECKPOINT: CommandType
COMMAND_TYPE_KERNEL_SWAP: CommandType
OPTIMIZER_ACTION_UNSPECIFIED: OptimizerAction
OPTIMIZER_ACTION_SET_HYPERPARAMETERS: OptimizerAction
OPTIMIZER_ACTION_RESET_STATE: OptimizerAction
RUN_ACTION_UNSPECIFIED: RunAction
RUN_ACTION_PAUSE: RunAction
RUN_ACTION_RESUME: RunAction
RUN_ACTION_STOP: RunAction

class AlphaSchedule(_message.Message):
    __slots__ = ("curve", "num_steps", "target", "steepness")
    CURVE_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STEEPNESS_FIELD_NUMBER: _ClassVar[int]
    curve: _vocabulary_pb2.AlphaCurve
    num_steps: int
    target: float
    steepness: float
    def __init__(self, curve: _Optional[_Union[_vocabulary_pb2.AlphaCurve, str]] = ..., num_steps: _Optional[int] = ..., target: _Optional[float] = ..., steepness: _Optional[float] = ...) -> None: ...

class CommandSeedOperation(_message.Message):
    __slots__ = ("operation", "blueprint_id", "parameters", "site", "alpha", "blend_mode", "training_mode", "isolation", "auto_advance", "auto_advance_until")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BLEND_MODE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_MODE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    AUTO_ADVANCE_FIELD_NUMBER: _ClassVar[int]
    AUTO_ADVANCE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    operation: _vocabulary_pb2.SeedOperation
    blueprint_id: str
    parameters: _containers.ScalarMap[str, float]
    site: str
    alpha: AlphaSchedule
    blend_mode: _vocabulary_pb2.BlendMode
    training_mode: _vocabulary_pb2.TrainingMode
    isolation: _vocabulary_pb2.Isolation
    auto_advance: bool
    auto_advance_until: _vocabulary_pb2.SeedLifecycleStage
    def __init__(self, operation: _Optional[_Union[_vocabulary_pb2.SeedOperation, str]] = ..., blueprint_id: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ..., site: _Optional[str] = ..., alpha: _Optional[_Union[AlphaSchedule, _Mapping]] = ..., blend_mode: _Optional[_Union[_vocabulary_pb2.BlendMode, str]] = ..., training_mode: _Optional[_Union[_vocabulary_pb2.TrainingMode, str]] = ..., isolation: _Optional[_Union[_vocabulary_pb2.Isolation, str]] = ..., auto_advance: _Optional[bool] = ..., auto_advance_until: _Optional[_Union[_vocabulary_pb2.SeedLifecycleStage, str]] = ...) -> None: ...

class CommandOptimizerAdjustment(_message.Message):
    __slots__ = ("optimizer_id", "hyperparameters", "action")
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OPTIMIZER_ID_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    optimizer_id: str
    hyperparameters: _containers.ScalarMap[str, float]
    action: OptimizerAction
    def __init__(self, optimizer_id: _Optional[str] = ..., hyperparameters: _Optional[_Mapping[str, float]] = ..., action: _Optional[_Union[OptimizerAction, str]] = ...) -> None: ...

class CommandCircuitBreaker(_message.Message):
    __slots__ = ("desired_state", "rationale", "name")
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    desired_state: _vocabulary_pb2.CircuitBreakerState
    rationale: str
    name: str
    def __init__(self, desired_state: _Optional[_Union[_vocabulary_pb2.CircuitBreakerState, str]] = ..., rationale: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CommandRunControl(_message.Message):
    __slots__ = ("action",)
    ACTION_FIELD_NUMBER: _ClassVar[int]
    action: RunAction
    def __init__(self, action: _Optional[_Union[RunAction, str]] = ...) -> None: ...

class CommandCheckpoint(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: str
    def __init__(self, note: _Optional[str] = ...) -> None: ...

class CommandRollback(_message.Message):
    __slots__ = ("checkpoint_id", "global_step", "before_seed_id", "tier")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    BEFORE_SEED_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    global_step: int
    before_seed_id: str
    tier: _vocabulary_pb2.RollbackTier
    def __init__(self, checkpoint_id: _Optional[str] = ..., global_step: _Optional[int] = ..., before_seed_id: _Optional[str] = ..., tier: _Optional[_Union[_vocabulary_pb2.RollbackTier, str]] = ...) -> None: ...

class CommandKernelSwap(_message.Message):
    __slots__ = ("artifact_id",)
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    def __init__(self, artifact_id: _Optional[str] = ...) -> None: ...

class ApplyAt(_message.Message):
    __slots__ = ("global_step", "epoch_boundary")
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    global_step: int
    epoch_boundary: bool
    def __init__(self, global_step: _Optional[int] = ..., epoch_boundary: _Optional[bool] = ...) -> None: ...

class RiskVerdict(_message.Message):
    __slots__ = ("rule", "action", "value", "threshold")
    RULE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    rule: str
    action: str
    value: float
    threshold: float
    def __init__(self, rule: _Optional[str] = ..., action: _Optional[str] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class AdaptationCommand(_message.Message):
    __slots__ = ("version", "command_id", "command_type", "target_seed_id", "request_id", "reason", "seed_operation", "optimizer_adjustment", "circuit_breaker", "run_control", "checkpoint", "rollback", "kernel_swap", "expected_revision", "apply_at", "expire_time", "validate_only", "decision_id", "risk")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_SEED_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SEED_OPERATION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_BREAKER_FIELD_NUMBER: _ClassVar[int]
    RUN_CONTROL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SWAP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLY_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    version: int
    command_id: str
    command_type: CommandType
    target_seed_id: str
    request_id: str
    reason: str
    seed_operation: CommandSeedOperation
    optimizer_adjustment: CommandOptimizerAdjustment
    circuit_breaker: CommandCircuitBreaker
    run_control: CommandRunControl
    checkpoint: CommandCheckpoint
    rollback: CommandRollback
    kernel_swap: CommandKernelSwap
    expected_revision: int
    apply_at: ApplyAt
    expire_time: _timestamp_pb2.Timestamp
    validate_only: bool
    decision_id: str
    risk: _containers.RepeatedCompositeFieldContainer[RiskVerdict]
    def __init__(self, version: _Optional[int] = ..., command_id: _Optional[str] = ..., command_type: _Optional[_Union[CommandType, str]] = ..., target_seed_id: _Optional[str] = ..., request_id: _Optional[str] = ..., reason: _Optional[str] = ..., seed_operation: _Optional[_Union[CommandSeedOperation, _Mapping]] = ..., optimizer_adjustment: _Optional[_Union[CommandOptimizerAdjustment, _Mapping]] = ..., circuit_breaker: _Optional[_Union[CommandCircuitBreaker, _Mapping]] = ..., run_control: _Optional[_Union[CommandRunControl, _Mapping]] = ..., checkpoint: _Optional[_Union[CommandCheckpoint, _Mapping]] = ..., rollback: _Optional[_Union[CommandRollback, _Mapping]] = ..., kernel_swap: _Optional[_Union[CommandKernelSwap, _Mapping]] = ..., expected_revision: _Optional[int] = ..., apply_at: _Optional[_Union[ApplyAt, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., validate_only: _Optional[bool] = ..., decision_id: _Optional[str] = ..., risk: _Optional[_Iterable[_Union[RiskVerdict, _Mapping]]] = ...) -> None: ...

class CommandError(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("command_id", "state", "request", "principal", "accept_time", "update_time", "global_step", "revision", "error", "seed_id", "timeline", "sequence", "kind")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    state: _vocabulary_pb2.CommandState
    request: AdaptationCommand
    principal: str
    accept_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    global_step: int
    revision: int
    error: CommandError
    seed_id: str
    timeline: int
    sequence: int
    kind: str
    def __init__(self, command_id: _Optional[str] = ..., state: _Optional[_Union[_vocabulary_pb2.CommandState, str]] = ..., request: _Optional[_Union[AdaptationCommand, _Mapping]] = ..., principal: _Optional[str] = ..., accept_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., global_step: _Optional[int] = ..., revision: _Optional[int] = ..., error: _Optional[_Union[CommandError, _Mapping]] = ..., seed_id: _Optional[str] = ..., timeline: _Optional[int] = ..., sequence: _Optional[int] = ..., kind: _Optional[str] = ...) -> None: ...
