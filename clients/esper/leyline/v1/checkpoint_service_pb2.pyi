import datetime

from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_pb2 as _state_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_SAFETENSORS: _ClassVar[ExportFormat]
    EXPORT_FORMAT_TORCH_EXPORT: _ClassVar[ExportFormat]
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_SAFETENSORS: ExportFormat
EXPORT_FORMAT_TORCH_EXPORT: ExportFormat

class Checkpoint(_message.Message):
    __slots__ = ("checkpoint_id", "run_id", "kind", "timeline", "global_step", "epoch", "is_good", "num_bytes", "num_parameters", "write_time", "note", "task", "pause_ms", "sequence", "revision", "journal_revision", "esperd_version", "torch_version")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_GOOD_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    WRITE_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PAUSE_MS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_REVISION_FIELD_NUMBER: _ClassVar[int]
    ESPERD_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    run_id: str
    kind: _vocabulary_pb2.CheckpointKind
    timeline: int
    global_step: int
    epoch: int
    is_good: bool
    num_bytes: int
    num_parameters: int
    write_time: _timestamp_pb2.Timestamp
    note: str
    task: str
    pause_ms: float
    sequence: int
    revision: int
    journal_revision: int
    esperd_version: str
    torch_version: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., run_id: _Optional[str] = ..., kind: _Optional[_Union[_vocabulary_pb2.CheckpointKind, str]] = ..., timeline: _Optional[int] = ..., global_step: _Optional[int] = ..., epoch: _Optional[int] = ..., is_good: _Optional[bool] = ..., num_bytes: _Optional[int] = ..., num_parameters: _Optional[int] = ..., write_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., note: _Optional[str] = ..., task: _Optional[str] = ..., pause_ms: _Optional[float] = ..., sequence: _Optional[int] = ..., revision: _Optional[int] = ..., journal_revision: _Optional[int] = ..., esperd_version: _Optional[str] = ..., torch_version: _Optional[str] = ...) -> None: ...

class CheckpointFile(_message.Message):
    __slots__ = ("name", "num_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., num_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "run_id", "all_runs")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_RUNS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    run_id: str
    all_runs: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., run_id: _Optional[str] = ..., all_runs: _Optional[bool] = ...) -> None: ...

class DamagedCheckpoint(_message.Message):
    __slots__ = ("checkpoint_id", "problem")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    problem: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "next_page_token", "memory_points", "damaged")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_POINTS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    next_page_token: str
    memory_points: _containers.RepeatedCompositeFieldContainer[_state_pb2.RestorePoint]
    damaged: _containers.RepeatedCompositeFieldContainer[DamagedCheckpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., memory_points: _Optional[_Iterable[_Union[_state_pb2.RestorePoint, _Mapping]]] = ..., damaged: _Optional[_Iterable[_Union[DamagedCheckpoint, _Mapping]]] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint_id", "run_id")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    run_id: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class GetCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "files", "config_json", "directory")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    files: _containers.RepeatedCompositeFieldContainer[CheckpointFile]
    config_json: str
    directory: str
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., files: _Optional[_Iterable[_Union[CheckpointFile, _Mapping]]] = ..., config_json: _Optional[str] = ..., directory: _Optional[str] = ...) -> None: ...

class VerifyCheckpointRequest(_message.Message):
    __slots__ = ("checkpoint_id", "run_id")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    run_id: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class VerifyCheckpointResponse(_message.Message):
    __slots__ = ("problems", "num_bytes")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    num_bytes: int
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class PruneCheckpointsRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class PruneCheckpointsPayload(_message.Message):
    __slots__ = ("run_id", "keep", "dry_run", "reason", "keep_requested")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    KEEP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    keep: int
    dry_run: bool
    reason: str
    keep_requested: int
    def __init__(self, run_id: _Optional[str] = ..., keep: _Optional[int] = ..., dry_run: _Optional[bool] = ..., reason: _Optional[str] = ..., keep_requested: _Optional[int] = ...) -> None: ...

class PruneCheckpointsResponse(_message.Message):
    __slots__ = ("removed", "num_kept")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    NUM_KEPT_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    num_kept: int
    def __init__(self, removed: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., num_kept: _Optional[int] = ...) -> None: ...

class ExportCheckpointRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class ExportCheckpointPayload(_message.Message):
    __slots__ = ("checkpoint_id", "run_id", "format", "without_live_seeds", "directory", "reason")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_LIVE_SEEDS_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    run_id: str
    format: ExportFormat
    without_live_seeds: bool
    directory: str
    reason: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., run_id: _Optional[str] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., without_live_seeds: _Optional[bool] = ..., directory: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ExportCheckpointResponse(_message.Message):
    __slots__ = ("directory", "files", "how_to_load")
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    HOW_TO_LOAD_FIELD_NUMBER: _ClassVar[int]
    directory: str
    files: _containers.RepeatedCompositeFieldContainer[CheckpointFile]
    how_to_load: str
    def __init__(self, directory: _Optional[str] = ..., files: _Optional[_Iterable[_Union[CheckpointFile, _Mapping]]] = ..., how_to_load: _Optional[str] = ...) -> None: ...
