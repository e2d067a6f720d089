from esper.buf.validate import validate_pb2 as _validate_pb2
from esper.leyline.v1 import envelope_pb2 as _envelope_pb2
from esper.leyline.v1 import options_pb2 as _options_pb2
from esper.leyline.v1 import state_pb2 as _state_pb2
from esper.leyline.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmergencySignal(_message.Message):
    __slots__ = ("version", "level", "reason", "origin", "run_id", "request_id", "acknowledge_within_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    level: _vocabulary_pb2.EmergencyLevel
    reason: str
    origin: str
    run_id: str
    request_id: str
    acknowledge_within_ms: int
    def __init__(self, version: _Optional[int] = ..., level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ..., reason: _Optional[str] = ..., origin: _Optional[str] = ..., run_id: _Optional[str] = ..., request_id: _Optional[str] = ..., acknowledge_within_ms: _Optional[int] = ...) -> None: ...

class RaiseEmergencyRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class RaiseEmergencyResponse(_message.Message):
    __slots__ = ("emergency", "global_step", "revision", "durable")
    EMERGENCY_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    emergency: _state_pb2.Emergency
    global_step: int
    revision: int
    durable: bool
    def __init__(self, emergency: _Optional[_Union[_state_pb2.Emergency, _Mapping]] = ..., global_step: _Optional[int] = ..., revision: _Optional[int] = ..., durable: _Optional[bool] = ...) -> None: ...

class ClearEmergencyPayload(_message.Message):
    __slots__ = ("emergency_id", "reason", "request_id")
    EMERGENCY_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    emergency_id: str
    reason: str
    request_id: str
    def __init__(self, emergency_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ClearEmergencyRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: _envelope_pb2.SignedEnvelope
    def __init__(self, envelope: _Optional[_Union[_envelope_pb2.SignedEnvelope, _Mapping]] = ...) -> None: ...

class ClearEmergencyResponse(_message.Message):
    __slots__ = ("level", "revision", "durable")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    level: _vocabulary_pb2.EmergencyLevel
    revision: int
    durable: bool
    def __init__(self, level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ..., revision: _Optional[int] = ..., durable: _Optional[bool] = ...) -> None: ...

class ListEmergenciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListEmergenciesResponse(_message.Message):
    __slots__ = ("emergencies", "level")
    EMERGENCIES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    emergencies: _containers.RepeatedCompositeFieldContainer[_state_pb2.Emergency]
    level: _vocabulary_pb2.EmergencyLevel
    def __init__(self, emergencies: _Optional[_Iterable[_Union[_state_pb2.Emergency, _Mapping]]] = ..., level: _Optional[_Union[_vocabulary_pb2.EmergencyLevel, str]] = ...) -> None: ...
