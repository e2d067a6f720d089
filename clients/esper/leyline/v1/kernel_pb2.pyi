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

class KernelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KERNEL_STATE_UNSPECIFIED: _ClassVar[KernelState]
    KERNEL_STATE_WANTED: _ClassVar[KernelState]
    KERNEL_STATE_COMPILING: _ClassVar[KernelState]
    KERNEL_STATE_COMPILE_FAILED: _ClassVar[KernelState]
    KERNEL_STATE_UPLOADING: _ClassVar[KernelState]
    KERNEL_STATE_VALIDATING: _ClassVar[KernelState]
    KERNEL_STATE_OFFERED: _ClassVar[KernelState]
    KERNEL_STATE_QUARANTINED: _ClassVar[KernelState]
    KERNEL_STATE_REMOVED: _ClassVar[KernelState]

class KernelFileRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KERNEL_FILE_ROLE_UNSPECIFIED: _ClassVar[KernelFileRole]
    KERNEL_FILE_ROLE_FORWARD: _ClassVar[KernelFileRole]
    KERNEL_FILE_ROLE_BACKWARD: _ClassVar[KernelFileRole]
    KERNEL_FILE_ROLE_PARAMETER_BACKWARD: _ClassVar[KernelFileRole]

class KernelInputKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KERNEL_INPUT_KIND_UNSPECIFIED: _ClassVar[KernelInputKind]
    KERNEL_INPUT_KIND_PARAMETER: _ClassVar[KernelInputKind]
    KERNEL_INPUT_KIND_BUFFER: _ClassVar[KernelInputKind]
    KERNEL_INPUT_KIND_ACTIVATION: _ClassVar[KernelInputKind]

class HazardBand(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HAZARD_BAND_UNSPECIFIED: _ClassVar[HazardBand]
    HAZARD_BAND_LOW: _ClassVar[HazardBand]
    HAZARD_BAND_MEDIUM: _ClassVar[HazardBand]
    HAZARD_BAND_HIGH: _ClassVar[HazardBand]
    HAZARD_BAND_CRITICAL: _ClassVar[HazardBand]

class HandlingClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HANDLING_CLASS_UNSPECIFIED: _ClassVar[HandlingClass]
    HANDLING_CLASS_STANDARD: _ClassVar[HandlingClass]
    HANDLING_CLASS_RESTRICTED: _ClassVar[HandlingClass]
    HANDLING_CLASS_QUARANTINE: _ClassVar[HandlingClass]
KERNEL_STATE_UNSPECIFIED: KernelState
KERNEL_STATE_WANTED: KernelState
KERNEL_STATE_COMPILING: KernelState
KERNEL_STATE_COMPILE_FAILED: KernelState
KERNEL_STATE_UPLOADING: KernelState
KERNEL_STATE_VALIDATING: KernelState
KERNEL_STATE_OFFERED: KernelState
KERNEL_STATE_QUARANTINED: KernelState
KERNEL_STATE_REMOVED: KernelState
KERNEL_FILE_ROLE_UNSPECIFIED: KernelFileRole
KERNEL_FILE_ROLE_FORWARD: KernelFileRole
KERNEL_FILE_ROLE_BACKWARD: KernelFileRole
KERNEL_FILE_ROLE_PARAMETER_BACKWARD: KernelFileRole
KERNEL_INPUT_KIND_UNSPECIFIED: KernelInputKind
KERNEL_INPUT_KIND_PARAMETER: KernelInputKind
KERNEL_INPUT_KIND_BUFFER: KernelInputKind
KERNEL_INPUT_KIND_ACTIVATION: KernelInputKind
HAZARD_BAND_UNSPECIFIED: HazardBand
HAZARD_BAND_LOW: HazardBand
HAZARD_BAND_MEDIUM: HazardBand
HAZARD_BAND_HIGH: HazardBand
HAZARD_BAND_CRITICAL: HazardBand
HANDLING_CLASS_UNSPECIFIED: HandlingClass
HANDLING_CLASS_STANDARD: HandlingClass
HANDLING_CLASS_RESTRICTED: HandlingClass
HANDLING_CLASS_QUARANTINE: HandlingClass

class KernelVariant(_message.Message):
    __slots__ = ("blueprint_id", "blueprint_sha256", "parameters", "tail_shape", "dtype", "weight_dtype", "autocast_dtype", "memory_format", "device_type", "capability", "machine", "torch_version")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TAIL_SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    AUTOCAST_DTYPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    blueprint_id: str
    blueprint_sha256: str
    parameters: _containers.ScalarMap[str, float]
    tail_shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    weight_dtype: str
    autocast_dtype: str
    memory_format: str
    device_type: str
    capability: str
    machine: str
    torch_version: str
    def __init__(self, blueprint_id: _Optional[str] = ..., blueprint_sha256: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ..., tail_shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., weight_dtype: _Optional[str] = ..., autocast_dtype: _Optional[str] = ..., memory_format: _Optional[str] = ..., device_type: _Optional[str] = ..., capability: _Optional[str] = ..., machine: _Optional[str] = ..., torch_version: _Optional[str] = ...) -> None: ...

class KernelInput(_message.Message):
    __slots__ = ("kind", "name", "dtype", "shape", "requires_grad")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_GRAD_FIELD_NUMBER: _ClassVar[int]
    kind: KernelInputKind
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    requires_grad: bool
    def __init__(self, kind: _Optional[_Union[KernelInputKind, str]] = ..., name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., requires_grad: _Optional[bool] = ...) -> None: ...

class SavedTensor(_message.Message):
    __slots__ = ("is_input", "index")
    IS_INPUT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    is_input: bool
    index: int
    def __init__(self, is_input: _Optional[bool] = ..., index: _Optional[int] = ...) -> None: ...

class KernelFile(_message.Message):
    __slots__ = ("role", "sha256", "num_bytes")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    role: KernelFileRole
    sha256: bytes
    num_bytes: int
    def __init__(self, role: _Optional[_Union[KernelFileRole, str]] = ..., sha256: _Optional[bytes] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class KernelManifest(_message.Message):
    __slots__ = ("schema", "variant", "min_batch", "max_batch", "hint_batch", "inputs", "output_index", "mutated_buffers", "saved", "gradients", "parameter_gradients", "files", "draws_random", "strategy", "compile_s", "compiler", "options", "create_time")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    MIN_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    HINT_BATCH_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_INDEX_FIELD_NUMBER: _ClassVar[int]
    MUTATED_BUFFERS_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    DRAWS_RANDOM_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    COMPILE_S_FIELD_NUMBER: _ClassVar[int]
    COMPILER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    schema: int
    variant: KernelVariant
    min_batch: int
    max_batch: int
    hint_batch: int
    inputs: _containers.RepeatedCompositeFieldContainer[KernelInput]
    output_index: int
    mutated_buffers: _containers.RepeatedScalarFieldContainer[str]
    saved: _containers.RepeatedCompositeFieldContainer[SavedTensor]
    gradients: _containers.RepeatedScalarFieldContainer[int]
    parameter_gradients: _containers.RepeatedScalarFieldContainer[int]
    files: _containers.RepeatedCompositeFieldContainer[KernelFile]
    draws_random: bool
    strategy: str
    compile_s: float
    compiler: str
    options: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, schema: _Optional[int] = ..., variant: _Optional[_Union[KernelVariant, _Mapping]] = ..., min_batch: _Optional[int] = ..., max_batch: _Optional[int] = ..., hint_batch: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[KernelInput, _Mapping]]] = ..., output_index: _Optional[int] = ..., mutated_buffers: _Optional[_Iterable[str]] = ..., saved: _Optional[_Iterable[_Union[SavedTensor, _Mapping]]] = ..., gradients: _Optional[_Iterable[int]] = ..., parameter_gradients: _Optional[_Iterable[int]] = ..., files: _Optional[_Iterable[_Union[KernelFile, _Mapping]]] = ..., draws_random: _Optional[bool] = ..., strategy: _Optional[str] = ..., compile_s: _Optional[float] = ..., compiler: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class KernelSignature(_message.Message):
    __slots__ = ("key_id", "hmac")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    HMAC_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    hmac: bytes
    def __init__(self, key_id: _Optional[str] = ..., hmac: _Optional[bytes] = ...) -> None: ...

class KernelCheck(_message.Message):
    __slots__ = ("name", "passed", "value", "limit", "unit", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    passed: bool
    value: float
    limit: float
    unit: str
    detail: str
    def __init__(self, name: _Optional[str] = ..., passed: _Optional[bool] = ..., value: _Optional[float] = ..., limit: _Optional[float] = ..., unit: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class KernelReport(_message.Message):
    __slots__ = ("artifact_id", "validator_version", "checks", "load_ms", "first_ms", "step_ratio", "parameter_step_ratio", "max_error", "resident_bytes", "risk_score", "hazard_band", "handling_class", "create_time")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    STEP_RATIO_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_STEP_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RISK_SCORE_FIELD_NUMBER: _ClassVar[int]
    HAZARD_BAND_FIELD_NUMBER: _ClassVar[int]
    HANDLING_CLASS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    validator_version: str
    checks: _containers.RepeatedCompositeFieldContainer[KernelCheck]
    load_ms: float
    first_ms: float
    step_ratio: float
    parameter_step_ratio: float
    max_error: float
    resident_bytes: int
    risk_score: float
    hazard_band: HazardBand
    handling_class: HandlingClass
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, artifact_id: _Optional[str] = ..., validator_version: _Optional[str] = ..., checks: _Optional[_Iterable[_Union[KernelCheck, _Mapping]]] = ..., load_ms: _Optional[float] = ..., first_ms: _Optional[float] = ..., step_ratio: _Optional[float] = ..., parameter_step_ratio: _Optional[float] = ..., max_error: _Optional[float] = ..., resident_bytes: _Optional[int] = ..., risk_score: _Optional[float] = ..., hazard_band: _Optional[_Union[HazardBand, str]] = ..., handling_class: _Optional[_Union[HandlingClass, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Kernel(_message.Message):
    __slots__ = ("artifact_id", "variant_key", "state", "variant", "hint_batch", "min_batch", "max_batch", "sites", "num_waiting_seeds", "seed_ids", "num_bytes", "pinned", "principal", "report", "detail", "num_attempts", "update_time", "resident", "tier")
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    HINT_BATCH_FIELD_NUMBER: _ClassVar[int]
    MIN_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_SEEDS_FIELD_NUMBER: _ClassVar[int]
    SEED_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NUM_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    artifact_id: str
    variant_key: str
    state: KernelState
    variant: KernelVariant
    hint_batch: int
    min_batch: int
    max_batch: int
    sites: _containers.RepeatedScalarFieldContainer[str]
    num_waiting_seeds: int
    seed_ids: _containers.RepeatedScalarFieldContainer[str]
    num_bytes: int
    pinned: bool
    principal: str
    report: KernelReport
    detail: str
    num_attempts: int
    update_time: _timestamp_pb2.Timestamp
    resident: bool
    tier: _vocabulary_pb2.BlueprintTier
    def __init__(self, artifact_id: _Optional[str] = ..., variant_key: _Optional[str] = ..., state: _Optional[_Union[KernelState, str]] = ..., variant: _Optional[_Union[KernelVariant, _Mapping]] = ..., hint_batch: _Optional[int] = ..., min_batch: _Optional[int] = ..., max_batch: _Optional[int] = ..., sites: _Optional[_Iterable[str]] = ..., num_waiting_seeds: _Optional[int] = ..., seed_ids: _Optional[_Iterable[str]] = ..., num_bytes: _Optional[int] = ..., pinned: _Optional[bool] = ..., principal: _Optional[str] = ..., report: _Optional[_Union[KernelReport, _Mapping]] = ..., detail: _Optional[str] = ..., num_attempts: _Optional[int] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resident: _Optional[bool] = ..., tier: _Optional[_Union[_vocabulary_pb2.BlueprintTier, str]] = ...) -> None: ...
