import datetime

from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GateEvidence(_message.Message):
    __slots__ = ("name", "value", "threshold", "sense", "passed", "num_samples", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SENSE_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    threshold: float
    sense: str
    passed: bool
    num_samples: int
    detail: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., sense: _Optional[str] = ..., passed: _Optional[bool] = ..., num_samples: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class GateResult(_message.Message):
    __slots__ = ("gate", "verdict", "global_step", "evidence", "purpose")
    GATE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    gate: _vocabulary_pb2.SeedLifecycleGate
    verdict: _vocabulary_pb2.GateVerdict
    global_step: int
    evidence: _containers.RepeatedCompositeFieldContainer[GateEvidence]
    purpose: str
    def __init__(self, gate: _Optional[_Union[_vocabulary_pb2.SeedLifecycleGate, str]] = ..., verdict: _Optional[_Union[_vocabulary_pb2.GateVerdict, str]] = ..., global_step: _Optional[int] = ..., evidence: _Optional[_Iterable[_Union[GateEvidence, _Mapping]]] = ..., purpose: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("kind", "mean", "lower", "upper", "num_samples", "level", "std")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    kind: str
    mean: float
    lower: float
    upper: float
    num_samples: int
    level: float
    std: float
    def __init__(self, kind: _Optional[str] = ..., mean: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ..., num_samples: _Optional[int] = ..., level: _Optional[float] = ..., std: _Optional[float] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("num_parameters", "forward_flops", "backward_flops", "activation_bytes", "step_ms")
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FLOPS_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_FLOPS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    num_parameters: int
    forward_flops: int
    backward_flops: int
    activation_bytes: int
    step_ms: float
    def __init__(self, num_parameters: _Optional[int] = ..., forward_flops: _Optional[int] = ..., backward_flops: _Optional[int] = ..., activation_bytes: _Optional[int] = ..., step_ms: _Optional[float] = ...) -> None: ...

class SeedState(_message.Message):
    __slots__ = ("seed_id", "stage", "gradient_norm", "learning_rate", "layer_depth", "metrics", "age_epochs", "risk_score", "site", "blueprint_id", "alpha", "alpha_target", "blend_mode", "training_mode", "isolation", "age_steps", "stage_steps", "auto_advance", "cost", "contributions", "gates", "output_ratio", "seed_loss", "first_order_gain", "num_isolation_violations", "requested_by", "note", "germinated_step", "kernel_artifact_id", "kernel_note", "prewarm_ms")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEED_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LAYER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    AGE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ALPHA_TARGET_FIELD_NUMBER: _ClassVar[int]
    BLEND_MODE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_MODE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    AGE_STEPS_FIELD_NUMBER: _ClassVar[int]
    STAGE_STEPS_FIELD_NUMBER: _ClassVar[int]
    AUTO_ADVANCE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_RATIO_FIELD_NUMBER: _ClassVar[int]
    SEED_LOSS_FIELD_NUMBER: _ClassVar[int]
    FIRST_ORDER_GAIN_FIELD_NUMBER: _ClassVar[int]
    NUM_ISOLATION_VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    GERMINATED_STEP_FIELD_NUMBER: _ClassVar[int]
    KERNEL_ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_NOTE_FIELD_NUMBER: _ClassVar[int]
    PREWARM_MS_FIELD_NUMBER: _ClassVar[int]
    seed_id: str
    stage: _vocabulary_pb2.SeedLifecycleStage
    gradient_norm: float
    learning_rate: float
    layer_depth: int
    metrics: _containers.ScalarMap[str, float]
    age_epochs: int
    risk_score: float
    site: str
    blueprint_id: str
    alpha: float
    alpha_target: float
    blend_mode: _vocabulary_pb2.BlendMode
    training_mode: _vocabulary_pb2.TrainingMode
    isolation: _vocabulary_pb2.Isolation
    age_steps: int
    stage_steps: int
    auto_advance: bool
    cost: Cost
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    output_ratio: float
    seed_loss: float
    first_order_gain: float
    num_isolation_violations: int
    requested_by: str
    note: str
    germinated_step: int
    kernel_artifact_id: str
    kernel_note: str
    prewarm_ms: float
    def __init__(self, seed_id: _Optional[str] = ..., stage: _Optional[_Union[_vocabulary_pb2.SeedLifecycleStage, str]] = ..., gradient_norm: _Optional[float] = ..., learning_rate: _Optional[float] = ..., layer_depth: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., age_epochs: _Optional[int] = ..., risk_score: _Optional[float] = ..., site: _Optional[str] = ..., blueprint_id: _Optional[str] = ..., alpha: _Optional[float] = ..., alpha_target: _Optional[float] = ..., blend_mode: _Optional[_Union[_vocabulary_pb2.BlendMode, str]] = ..., training_mode: _Optional[_Union[_vocabulary_pb2.TrainingMode, str]] = ..., isolation: _Optional[_Union[_vocabulary_pb2.Isolation, str]] = ..., age_steps: _Optional[int] = ..., stage_steps: _Optional[int] = ..., auto_advance: _Optional[bool] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ..., output_ratio: _Optional[float] = ..., seed_loss: _Optional[float] = ..., first_order_gain: _Optional[float] = ..., num_isolation_violations: _Optional[int] = ..., requested_by: _Optional[str] = ..., note: _Optional[str] = ..., germinated_step: _Optional[int] = ..., kernel_artifact_id: _Optional[str] = ..., kernel_note: _Optional[str] = ..., prewarm_ms: _Optional[float] = ...) -> None: ...

class BlueprintOffer(_message.Message):
    __slots__ = ("blueprint_id", "tier", "risk", "cost")
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    tier: _vocabulary_pb2.BlueprintTier
    risk: float
    cost: Cost
    def __init__(self, blueprint_id: _Optional[str] = ..., tier: _Optional[_Union[_vocabulary_pb2.BlueprintTier, str]] = ..., risk: _Optional[float] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ...) -> None: ...

class Site(_message.Message):
    __slots__ = ("site", "module_type", "activation_shape", "dtype", "vacant", "num_fossils", "live_seed_ids", "embargoed_until_step", "embargoed_until_time", "offers", "autocast_dtype", "batch_size")
    SITE_FIELD_NUMBER: _ClassVar[int]
    MODULE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VACANT_FIELD_NUMBER: _ClassVar[int]
    NUM_FOSSILS_FIELD_NUMBER: _ClassVar[int]
    LIVE_SEED_IDS_FIELD_NUMBER: _ClassVar[int]
    EMBARGOED_UNTIL_STEP_FIELD_NUMBER: _ClassVar[int]
    EMBARGOED_UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_DTYPE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    site: str
    module_type: str
    activation_shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    vacant: bool
    num_fossils: int
    live_seed_ids: _containers.RepeatedScalarFieldContainer[str]
    embargoed_until_step: int
    embargoed_until_time: _timestamp_pb2.Timestamp
    offers: _containers.RepeatedCompositeFieldContainer[BlueprintOffer]
    autocast_dtype: str
    batch_size: int
    def __init__(self, site: _Optional[str] = ..., module_type: _Optional[str] = ..., activation_shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., vacant: _Optional[bool] = ..., num_fossils: _Optional[int] = ..., live_seed_ids: _Optional[_Iterable[str]] = ..., embargoed_until_step: _Optional[int] = ..., embargoed_until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., offers: _Optional[_Iterable[_Union[BlueprintOffer, _Mapping]]] = ..., autocast_dtype: _Optional[str] = ..., batch_size: _Optional[int] = ...) -> None: ...

class OptimizerGroup(_message.Message):
    __slots__ = ("owner", "optimizer_type", "num_parameters", "num_tensors", "hyperparameters")
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OWNER_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_TYPE_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    NUM_TENSORS_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    owner: str
    optimizer_type: str
    num_parameters: int
    num_tensors: int
    hyperparameters: _containers.ScalarMap[str, float]
    def __init__(self, owner: _Optional[str] = ..., optimizer_type: _Optional[str] = ..., num_parameters: _Optional[int] = ..., num_tensors: _Optional[int] = ..., hyperparameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Emergency(_message.Message):
    __slots__ = ("emergency_id", "level", "reason", "origin", "raised_step", "raise_time")
    EMERGENCY_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RAISED_STEP_FIELD_NUMBER: _ClassVar[int]
    RAISE_TIME_FIELD_NUMBER: _ClassVar[int]
    emergency_id: str
    level: _vocabulary_pb2.EmergencyLevel
    reason: str
    origin: str
    raised_step: int
    raise_time: _timestamp_pb2.Timestamp
    def __init__(self, emergency_id: _Optional[str] = ..., level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ..., reason: _Optional[str] = ..., origin: _Optional[str] = ..., raised_step: _Optional[int] = ..., raise_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CircuitBreaker(_message.Message):
    __slots__ = ("name", "state", "num_failures", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: _vocabulary_pb2.CircuitBreakerState
    num_failures: int
    detail: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[_vocabulary_pb2.CircuitBreakerState, str]] = ..., num_failures: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "task", "phase", "global_step", "epoch", "num_steps_total", "train_loss", "val_loss", "metrics", "learning_rate", "lr_phase", "samples_per_s", "step_ms", "baseline_step_ms", "num_host_parameters", "num_grown_parameters", "train_flops", "host_step_flops", "device", "emergency_level", "start_time", "stall", "failure", "timeline", "resumed_from", "catch_up_step")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LR_PHASE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_STEP_MS_FIELD_NUMBER: _ClassVar[int]
    NUM_HOST_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    NUM_GROWN_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FLOPS_FIELD_NUMBER: _ClassVar[int]
    HOST_STEP_FLOPS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EMERGENCY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STALL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FROM_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    phase: _vocabulary_pb2.TrainerPhase
    global_step: int
    epoch: int
    num_steps_total: int
    train_loss: float
    val_loss: float
    metrics: _containers.ScalarMap[str, float]
    learning_rate: float
    lr_phase: str
    samples_per_s: float
    step_ms: float
    baseline_step_ms: float
    num_host_parameters: int
    num_grown_parameters: int
    train_flops: float
    host_step_flops: float
    device: str
    emergency_level: _vocabulary_pb2.EmergencyLevel
    start_time: _timestamp_pb2.Timestamp
    stall: str
    failure: str
    timeline: int
    resumed_from: str
    catch_up_step: int
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., phase: _Optional[_Union[_vocabulary_pb2.TrainerPhase, str]] = ..., global_step: _Optional[int] = ..., epoch: _Optional[int] = ..., num_steps_total: _Optional[int] = ..., train_loss: _Optional[float] = ..., val_loss: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., learning_rate: _Optional[float] = ..., lr_phase: _Optional[str] = ..., samples_per_s: _Optional[float] = ..., step_ms: _Optional[float] = ..., baseline_step_ms: _Optional[float] = ..., num_host_parameters: _Optional[int] = ..., num_grown_parameters: _Optional[int] = ..., train_flops: _Optional[float] = ..., host_step_flops: _Optional[float] = ..., device: _Optional[str] = ..., emergency_level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stall: _Optional[str] = ..., failure: _Optional[str] = ..., timeline: _Optional[int] = ..., resumed_from: _Optional[str] = ..., catch_up_step: _Optional[int] = ...) -> None: ...

class RestorePoint(_message.Message):
    __slots__ = ("global_step", "timeline", "checkpoint_id", "in_memory", "is_good", "num_bytes")
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    IN_MEMORY_FIELD_NUMBER: _ClassVar[int]
    IS_GOOD_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    global_step: int
    timeline: int
    checkpoint_id: str
    in_memory: bool
    is_good: bool
    num_bytes: int
    def __init__(self, global_step: _Optional[int] = ..., timeline: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., in_memory: _Optional[bool] = ..., is_good: _Optional[bool] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class Timeline(_message.Message):
    __slots__ = ("timeline", "parent", "fork_step", "left_step", "cause", "checkpoint_id", "removed_seed_ids", "restored_seed_ids", "open_time")
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    FORK_STEP_FIELD_NUMBER: _ClassVar[int]
    LEFT_STEP_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SEED_IDS_FIELD_NUMBER: _ClassVar[int]
    RESTORED_SEED_IDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    timeline: int
    parent: int
    fork_step: int
    left_step: int
    cause: str
    checkpoint_id: str
    removed_seed_ids: _containers.RepeatedScalarFieldContainer[str]
    restored_seed_ids: _containers.RepeatedScalarFieldContainer[str]
    open_time: _timestamp_pb2.Timestamp
    def __init__(self, timeline: _Optional[int] = ..., parent: _Optional[int] = ..., fork_step: _Optional[int] = ..., left_step: _Optional[int] = ..., cause: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., removed_seed_ids: _Optional[_Iterable[str]] = ..., restored_seed_ids: _Optional[_Iterable[str]] = ..., open_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class HardwareContext(_message.Message):
    __slots__ = ("device_type", "device_id", "total_memory_gb", "available_memory_gb", "temperature_celsius", "utilization_percent", "compute_capability")
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_MEMORY_GB_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    device_type: str
    device_id: str
    total_memory_gb: float
    available_memory_gb: float
    temperature_celsius: float
    utilization_percent: float
    compute_capability: int
    def __init__(self, device_type: _Optional[str] = ..., device_id: _Optional[str] = ..., total_memory_gb: _Optional[float] = ..., available_memory_gb: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., utilization_percent: _Optional[float] = ..., compute_capability: _Optional[int] = ...) -> None: ...

class SystemStatePacket(_message.Message):
    __slots__ = ("version", "current_epoch", "validation_accuracy", "validation_loss", "timestamp_ns", "hardware_context", "training_metrics", "seed_states", "packet_id", "global_step", "training_loss", "source_subsystem", "training_run_id", "experiment_name", "revision", "sites", "run", "reason", "probe_loss", "emergency_level", "num_steps_total", "lr_phase", "host_step_flops", "timeline")
    class TrainingMetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CURRENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_METRICS_FIELD_NUMBER: _ClassVar[int]
    SEED_STATES_FIELD_NUMBER: _ClassVar[int]
    PACKET_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TRAINING_LOSS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROBE_LOSS_FIELD_NUMBER: _ClassVar[int]
    EMERGENCY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    LR_PHASE_FIELD_NUMBER: _ClassVar[int]
    HOST_STEP_FLOPS_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    version: int
    current_epoch: int
    validation_accuracy: float
    validation_loss: float
    timestamp_ns: int
    hardware_context: HardwareContext
    training_metrics: _containers.ScalarMap[str, float]
    seed_states: _containers.RepeatedCompositeFieldContainer[SeedState]
    packet_id: str
    global_step: int
    training_loss: float
    source_subsystem: str
    training_run_id: str
    experiment_name: str
    revision: int
    sites: _containers.RepeatedCompositeFieldContainer[Site]
    run: Run
    reason: str
    probe_loss: float
    emergency_level: _vocabulary_pb2.EmergencyLevel
    num_steps_total: int
    lr_phase: str
    host_step_flops: float
    timeline: int
    def __init__(self, version: _Optional[int] = ..., current_epoch: _Optional[int] = ..., validation_accuracy: _Optional[float] = ..., validation_loss: _Optional[float] = ..., timestamp_ns: _Optional[int] = ..., hardware_context: _Optional[_Union[HardwareContext, _Mapping]] = ..., training_metrics: _Optional[_Mapping[str, float]] = ..., seed_states: _Optional[_Iterable[_Union[SeedState, _Mapping]]] = ..., packet_id: _Optional[str] = ..., global_step: _Optional[int] = ..., training_loss: _Optional[float] = ..., source_subsystem: _Optional[str] = ..., training_run_id: _Optional[str] = ..., experiment_name: _Optional[str] = ..., revision: _Optional[int] = ..., sites: _Optional[_Iterable[_Union[Site, _Mapping]]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., reason: _Optional[str] = ..., probe_loss: _Optional[float] = ..., emergency_level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ..., num_steps_total: _Optional[int] = ..., lr_phase: _Optional[str] = ..., host_step_flops: _Optional[float] = ..., timeline: _Optional[int] = ...) -> None: ...
